//! A worker joins with the script that Keyplane wrote, and its token comes and goes with the need for it.

use std::collections::BTreeSet;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use keyplane_e2e::boot::boot;
use keyplane_e2e::installation::{Installation, PATIENCE, USER};
use keyplane_e2e::join::join;
use keyplane_e2e::kubectl::documents;
use keyplane_e2e::machine::lab_kubelet_settings;
use keyplane_e2e::{Kubectl, Lab, Machine, eventually, image};
use serde_json::{Value, json};

const CLUSTER: &str = "crew";
const POOL: &str = "workers";
const JOIN_DATA: &str = "crew-workers-bootstrap";

fn objects(control_plane: &Machine, worker: &Machine) -> String {
    let kubelet = lab_kubelet_settings(worker);
    let cluster = json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "ClusterSpec", "metadata": {"name": CLUSTER},
        "spec": {
            "kubernetesVersion": "v1.37.2",
            "controlPlaneEndpoint": {"host": control_plane.address()},
            "controlPlane": {
                "nodes": [{"name": "cp1", "addresses": [control_plane.address()]}],
                "kubelet": kubelet,
            },
            "network": {"podCIDRs": ["10.244.0.0/16"]},
            // They have a test of their own, and would put files of theirs on the worker.
            "addons": {"coreDNS": {"enabled": false}, "kubeProxy": {"enabled": false}},
            "registryMirrors": [{"registry": "docker.io", "endpoints": ["http://192.0.2.5:5000"], "fallback": false}],
        },
    });
    // The machine's own host name is another: its address says which one it is.
    let pool = json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "NodePool", "metadata": {"name": POOL},
        "spec": {
            "clusterRef": {"name": CLUSTER},
            "machines": [{"name": "worker1", "addresses": [worker.address()], "failureDomain": "rack-3",
                "providerID": "metal:///worker1"}],
            "kubelet": kubelet,
            "labels": {"example.com/disk": "ssd", "node-role.kubernetes.io/worker": ""},
            "taints": [{"key": "example.com/first", "value": "true", "effect": "NoSchedule"}],
            "sysctls": {"net.ipv4.ip_local_port_range": "20000 60999"},
        },
    });
    documents(&[cluster, pool])
}

/// Everything that the checks below look at.
struct Crew {
    installation: Installation,
    target: Kubectl,
    worker: Machine,
    /// Every token that was ever in the join data.
    tokens: BTreeSet<String>,
}

pub(crate) fn a_worker_joins_with_its_script_and_the_token_lives_only_while_a_machine_is_missing() -> Result<()> {
    let began = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());
    let lab = Lab::start()?;
    let images = image::all(lab.parts())?;
    let mut control_plane = lab.machine("cp1")?;
    let worker = lab.machine("box7")?;
    let mut installation = Installation::start(&lab)?;
    installation.admin().apply(&objects(&control_plane, &worker))?;
    installation.wait_for(CLUSTER, "Rendered")?;
    let target = boot(&lab, &mut installation, CLUSTER, &mut control_plane, &images, "10.244.0.0/24", &tell)?;
    let mut crew = Crew { installation, target, worker, tokens: BTreeSet::new() };

    let script = crew.the_join_data_is_there_and_its_token_is_good()?;
    tell("the join data is there");
    crew.keyplane_may_make_tokens_and_no_other_secret()?;
    tell("its rights are narrow");
    another_machine_is_sent_away(&control_plane, &script)?;
    let images = image::for_any_node(lab.parts())?;
    let told = join(&mut crew.worker, &script, &images)?;
    ensure!(
        told == ["daemon-reload", "enable containerd kubelet", "restart containerd", "restart kubelet"],
        "{told:?}"
    );
    crew.worker.put_pod_network("10.244.1.0/24")?;
    tell("the worker has joined");
    crew.the_worker_is_ready_and_marked()?;
    crew.a_pod_on_the_worker_can_be_read()?;
    tell("the worker is Ready, and a pod on it can be read");
    crew.the_worker_has_its_files_and_no_secret_but_its_own_keys(&script)?;
    crew.the_token_is_gone_once_nobody_is_missing()?;
    tell("the token is gone");
    crew.the_script_may_run_again(&script, &images)?;
    tell("the script has run again");
    crew.nothing_is_written_while_nothing_changes()?;
    tell("it is quiet");
    crew.a_machine_more_gets_a_new_token_and_a_shorter_life_another()?;
    tell("tokens are made and replaced");
    crew.a_node_that_is_gone_is_missed()?;
    tell("the lost machine is missed");
    crew.with_the_pool_goes_its_token()?;
    tell("the pool is gone");
    crew.no_token_is_shown()
}

fn another_machine_is_sent_away(other: &Machine, script: &str) -> Result<()> {
    other.put_file("/tmp/join.sh", script.as_bytes(), 0o700)?;
    let told = other.run(&["sh", "/tmp/join.sh"]).err().context("any machine may join")?;
    let told = format!("{told:#}");
    ensure!(told.contains(&other.address()) && told.contains("none of NodePool workers"), "{told}");
    Ok(())
}

fn decoded(object: &Value, key: &str) -> Result<String> {
    let text = object["data"][key].as_str().with_context(|| format!("no key {key}"))?;
    Ok(String::from_utf8(BASE64_STANDARD.decode(text)?)?)
}

impl Crew {
    fn admin(&self) -> &Kubectl {
        self.installation.admin()
    }

    fn pool(&self) -> Result<Value> {
        self.admin().json(&["get", "nodepool", POOL])
    }

    /// The join data, if it is there.
    fn join_data(&self) -> Result<String> {
        let secret = self.admin().json(&["get", "secret", JOIN_DATA])?;
        ensure!(decoded(&secret, "format")? == "script");
        decoded(&secret, "value")
    }

    /// The token in the join data, which the target knows.
    fn good_token(&mut self) -> Result<(String, String, Value)> {
        let script = self.join_data()?;
        let token = script.lines().find_map(|line| line.trim().strip_prefix("token: ")).context("no token in it")?;
        let (id, secret) = token.split_once('.').context("a strange token")?;
        let found = self.target.json(&["get", "secret", "-n", "kube-system", &format!("bootstrap-token-{id}")])?;
        ensure!(decoded(&found, "token-secret")? == secret, "the join data has another token than the target");
        self.tokens.insert(secret.to_owned());
        Ok((token.to_owned(), script.clone(), found))
    }

    fn tokens_in_target(&self) -> Result<usize> {
        let field = "--field-selector=type=bootstrap.kubernetes.io/token";
        let found = self.target.json(&["get", "secret", "-n", "kube-system", field])?;
        Ok(found["items"].as_array().map_or(0, Vec::len))
    }

    fn the_join_data_is_there_and_its_token_is_good(&mut self) -> Result<String> {
        eventually("join data", PATIENCE, || self.join_data().map(|_| ()))?;
        let (_, script, token) = self.good_token()?;
        let groups = "system:bootstrappers:kubeadm:default-node-token,system:bootstrappers:keyplane:workers";
        ensure!(decoded(&token, "auth-extra-groups")? == groups);
        eventually("state of the machine", PATIENCE, || {
            let status = self.pool()?["status"].clone();
            let machine = &status["machines"][0];
            ensure!(machine["name"] == "worker1" && machine["state"] == "Declared", "{status}");
            ensure!(
                status["readyNodes"] == 0 && status["desiredNodes"] == 1 && status["tokenExpires"].is_string(),
                "{status}"
            );
            self.admin().check_condition(&["nodepool", POOL], "Ready")
        })?;
        let config = self.admin().json(&["get", "configmap", "crew-worker1-config"])?;
        let flags = config["data"]["kubeadm-flags.env"].as_str().unwrap_or_default();
        ensure!(flags.contains("--hostname-override=worker1") && flags.contains(&self.worker.address()), "{flags}");
        Ok(script)
    }

    fn keyplane_may_make_tokens_and_no_other_secret(&self) -> Result<()> {
        let as_keyplane = |arguments: &[&str]| {
            let told = self.target.run(&[arguments, &["--as=keyplane:controller", "-n", "kube-system"]].concat());
            told.map_err(|error| format!("{error:#}"))
        };
        let refused = as_keyplane(&["create", "secret", "generic", "key-to-everything"]);
        ensure!(
            refused.as_ref().is_err_and(|told| told.contains("bootstrap tokens and no other Secret")),
            "{refused:?}"
        );
        for forbidden in
            [&["get", "secrets"][..], &["get", "secret", "bootstrap-token-zzzzzz"], &["delete", "secret", "x"]]
        {
            ensure!(as_keyplane(forbidden).is_err_and(|told| told.contains("forbidden")), "{forbidden:?}");
        }
        Ok(())
    }

    fn the_worker_is_ready_and_marked(&self) -> Result<()> {
        eventually("worker that is Ready", PATIENCE, || self.target.check_condition(&["node", "worker1"], "Ready"))?;
        let node = self.target.json(&["get", "node", "worker1"])?;
        eventually("labels of the worker", PATIENCE, || {
            let node = self.target.json(&["get", "node", "worker1"])?;
            let labels = &node["metadata"]["labels"];
            ensure!(
                labels["example.com/disk"] == "ssd" && labels["topology.kubernetes.io/zone"] == "rack-3",
                "{labels}"
            );
            ensure!(labels["node-role.kubernetes.io/worker"] == "", "{labels}");
            Ok(())
        })?;
        ensure!(node["spec"]["providerID"] == "metal:///worker1", "{}", node["spec"]);
        let taint = json!({"key": "example.com/first", "value": "true", "effect": "NoSchedule"});
        ensure!(node["spec"]["taints"].as_array().is_some_and(|taints| taints.contains(&taint)), "{}", node["spec"]);
        eventually("machine that is Ready in the status", PATIENCE, || {
            let status = self.pool()?["status"].clone();
            ensure!(
                status["machines"][0]["state"] == "Ready" && status["readyNodes"] == 1 && status["desiredNodes"] == 1,
                "{status}"
            );
            self.admin().check_condition(&["nodepool", POOL], "NodesReady")
        })?;
        let table = self.admin().run(&["get", "nodepool", POOL])?;
        let row: Vec<_> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        ensure!(row[..6] == [POOL, CLUSTER, "Worker", "1", "1", "True"], "{table}");
        Ok(())
    }

    fn a_pod_on_the_worker_can_be_read(&self) -> Result<()> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "there", "namespace": "default"},
            "spec": {
                "nodeSelector": {"topology.kubernetes.io/zone": "rack-3"},
                "tolerations": [{"key": "example.com/first", "operator": "Exists"}],
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "there", "image": image::TOOLBOX, "imagePullPolicy": "Never",
                    "command": ["sh", "-c", "echo hello from the worker; sleep 3600"]}],
            },
        });
        self.target.apply(&pod.to_string())?;
        eventually("pod on the worker", PATIENCE, || self.target.check_condition(&["pod", "there"], "Ready"))?;
        eventually("log of the pod", PATIENCE, || {
            let log = self.target.run(&["logs", "there"])?;
            ensure!(log.contains("hello from the worker"), "{log}");
            Ok(())
        })
    }

    fn the_worker_has_its_files_and_no_secret_but_its_own_keys(&self, script: &str) -> Result<()> {
        // The serving certificate comes a moment after the Node is Ready.
        let find = "find /etc/kubernetes /var/lib/kubelet -path /var/lib/kubelet/pods -prune -o ! -type d -printf '%p %m\\n' | sort";
        let files = self.worker.run(&["sh", "-c", find])?;
        let files: BTreeSet<_> = files
            .lines()
            // The kubelet's own notes and sockets, which it makes wherever it runs.
            .filter(|line| {
                let of_kubelet = ["_state", "checkpoint", ".sock", "allocated_pods", "actuated_pods", "/plugins"];
                !of_kubelet.iter().any(|part| line.contains(part))
            })
            .map(|line| {
                // The kubelet's certificates have the time in their names.
                match line.split_once("-20") {
                    Some((kind, _)) => format!("{kind}-TIME"),
                    None => line.to_owned(),
                }
            })
            .collect();
        let expected = [
            "/etc/kubernetes/kubelet.conf 600",
            "/etc/kubernetes/pki/ca.crt 644",
            "/var/lib/kubelet/config.yaml 644",
            "/var/lib/kubelet/instance-config.yaml 644",
            "/var/lib/kubelet/kubeadm-flags.env 644",
            "/var/lib/kubelet/pki/kubelet-client-TIME",
            "/var/lib/kubelet/pki/kubelet-client-current.pem 777",
            "/var/lib/kubelet/pki/kubelet-server-TIME",
            "/var/lib/kubelet/pki/kubelet-server-current.pem 777",
        ];
        ensure!(files == expected.map(str::to_owned).into(), "{files:#?}");
        self.worker.run(&[
            "sh",
            "-c",
            "test -d /etc/kubernetes/manifests && test -z \"$(ls /etc/kubernetes/manifests)\"",
        ])?;
        for path in [
            "/etc/containerd/config.toml",
            "/etc/containerd/certs.d/docker.io/hosts.toml",
            "/etc/crictl.yaml",
            "/etc/modules-load.d/k8s.conf",
            "/etc/sysctl.d/k8s.conf",
            "/usr/lib/systemd/system/kubelet.service",
            "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf",
        ] {
            ensure!(self.worker.run(&["stat", "-c", "%a", path])?.trim() == "644", "{path}");
        }
        ensure!(
            self.worker
                .run(&["sysctl", "-n", "net.ipv4.ip_local_port_range"])?
                .split_whitespace()
                .eq(["20000", "60999"])
        );
        let token = script.lines().find_map(|line| line.trim().strip_prefix("token: ")).context("no token")?;
        let secret = token.split_once('.').context("a strange token")?.1;
        let search = format!(
            "! grep -rlF {secret} /etc/kubernetes /etc/containerd /usr/lib/systemd /var/lib/kubelet /tmp 2>/dev/null"
        );
        self.worker.run(&["sh", "-c", &search]).context("the token is still on the machine")?;
        let search =
            "! grep -rl 'PRIVATE KEY' /etc/kubernetes /var/lib/kubelet | grep -v ^/var/lib/kubelet/pki/kubelet-";
        self.worker.run(&["sh", "-c", search]).context("a key that is not the kubelet's own")?;
        Ok(())
    }

    fn the_token_is_gone_once_nobody_is_missing(&self) -> Result<()> {
        eventually("end of the token", PATIENCE, || {
            ensure!(self.tokens_in_target()? == 0, "the target has a token");
            ensure!(self.join_data().is_err(), "the join data is still there");
            ensure!(self.pool()?["status"]["tokenExpires"].is_null());
            Ok(())
        })
    }

    fn the_script_may_run_again(&mut self, script: &str, images: &[image::Image]) -> Result<()> {
        let told = join(&mut self.worker, script, images)?;
        ensure!(told.len() == 4, "{told:?}");
        self.worker.run(&["test", "!", "-e", "/etc/kubernetes/bootstrap-kubelet.conf"])?;
        self.target.check_condition(&["node", "worker1"], "Ready")
    }

    fn nothing_is_written_while_nothing_changes(&self) -> Result<()> {
        let count = || -> Result<usize> {
            let writes = self.installation.management.writes_of(USER)?;
            Ok(writes.iter().filter(|write| write.resource != "leases").count())
        };
        eventually("quiet", PATIENCE, || {
            let before = count()?;
            sleep(Duration::from_secs(8));
            let after = count()?;
            ensure!(before == after, "{} writes", after - before);
            Ok(())
        })
    }

    fn a_machine_more_gets_a_new_token_and_a_shorter_life_another(&mut self) -> Result<()> {
        let patch =
            |pool: &Value| self.admin().run(&["patch", "nodepool", POOL, "--type=merge", "-p", &pool.to_string()]);
        let machines = self.pool()?["spec"]["machines"].clone();
        let [first] = machines.as_array().context("no machines")?.as_slice() else { anyhow::bail!("{machines}") };
        patch(&json!({"spec": {"machines": [first, {"name": "worker2", "addresses": ["192.0.2.22"]}]}}))?;
        eventually("join data for the second machine", PATIENCE, || self.join_data().map(|_| ()))?;
        let (token, script, found) = self.good_token()?;
        ensure!(script.contains("192.0.2.22"), "the second machine is not in it");
        let long = decoded(&found, "expiration")?;
        eventually("status of both", PATIENCE, || {
            let status = self.pool()?["status"].clone();
            ensure!(
                status["readyNodes"] == 1
                    && status["desiredNodes"] == 2
                    && status["machines"][1]["state"] == "Declared",
                "{status}"
            );
            let told = self.admin().complaint(&["nodepool", POOL], "NodesReady")?;
            ensure!(told.contains("worker2 is Declared"), "{told}");
            Ok(())
        })?;
        let patch = json!({"spec": {"bootstrap": {"tokenTTL": "1h"}}});
        self.admin().run(&["patch", "nodepool", POOL, "--type=merge", "-p", &patch.to_string()])?;
        let begun = Instant::now();
        let (replaced, _, found) = loop {
            match self.good_token() {
                Ok(found) if found.0 != token => break found,
                other => ensure!(begun.elapsed() < PATIENCE, "no other token: {:?}", other.map(|_| ())),
            }
            sleep(Duration::from_secs(1));
        };
        ensure!(replaced != token && decoded(&found, "expiration")? < long, "{found}");
        eventually("end of the long token", PATIENCE, || {
            ensure!(self.tokens_in_target()? == 1);
            Ok(())
        })
    }

    fn a_node_that_is_gone_is_missed(&mut self) -> Result<()> {
        self.worker.stop_kubelet()?;
        self.target.run(&["delete", "node", "worker1"])?;
        eventually("machine that is missing", PATIENCE, || {
            let status = self.pool()?["status"].clone();
            let machine = &status["machines"][0];
            ensure!(machine["state"] == "Missing" && machine["reason"] == "NodeGone", "{status}");
            ensure!(
                machine["lastTransitionTime"].is_string() && status["readyNodes"] == 0 && status["desiredNodes"] == 2,
                "{status}"
            );
            Ok(())
        })
    }

    fn with_the_pool_goes_its_token(&self) -> Result<()> {
        ensure!(self.tokens_in_target()? == 1);
        self.admin().run(&["delete", "nodepool", POOL, "--timeout=60s"])?;
        ensure!(self.tokens_in_target()? == 0, "the target still has a token");
        ensure!(self.join_data().is_err(), "the join data is still there");
        for machine in ["worker1", "worker2"] {
            let name = format!("crew-{machine}-config");
            ensure!(self.admin().run(&["get", "configmap", &name]).is_err(), "{name} is still there");
        }
        Ok(())
    }

    fn no_token_is_shown(&self) -> Result<()> {
        ensure!(self.tokens.len() >= 3, "{} tokens were looked for", self.tokens.len());
        let shown = [
            fs::read_to_string(self.installation.operator.log())?,
            self.admin().run(&["get", "events,clusterspecs,nodepools,configmaps", "-A", "-o", "yaml"])?,
        ];
        for token in &self.tokens {
            ensure!(!shown.iter().any(|text| text.contains(token)), "a token is shown");
        }
        Ok(())
    }
}
