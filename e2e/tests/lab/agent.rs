//! The agent on a control-plane machine: it carries what changes, may touch nothing else, and says what the machine holds.

use std::collections::BTreeSet;
use std::fs;
use std::slice;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use keyplane_e2e::boot::boot;
use keyplane_e2e::installation::{Installation, PATIENCE, USER, bootable_cluster_spec};
use keyplane_e2e::node_files::{NodeFile, files};
use keyplane_e2e::process::Process;
use keyplane_e2e::{Kubectl, Lab, Machine, Management, eventually, image};
use serde_json::{Value, json};

const CLUSTER: &str = "kept";
const SECRET: &str = "kept-cp1-pki";
const CONFIG: &str = "kept-cp1-config";
const BOOTSTRAP: &str = "kept-cp1-agent-bootstrap";

fn cluster(machine: &Machine, management: &Management) -> Value {
    let mut cluster = bootable_cluster_spec(CLUSTER, &machine.address(), slice::from_ref(machine));
    cluster["spec"]["nodeAgent"] = json!({"managementServer": management.server_for_machines()});
    cluster
}

struct Site {
    installation: Installation,
    admin: Kubectl,
    target: Kubectl,
    machine: Machine,
    agent: Process,
}

pub(crate) fn an_agent_carries_what_changes_and_may_do_nothing_else() -> Result<()> {
    let began = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());
    let lab = Lab::start()?;
    let images = image::all(lab.parts())?;
    let mut machine = lab.machine("cp1")?;
    let mut installation = Installation::start(&lab)?;
    let admin = installation.admin().clone();
    admin.apply(&cluster(&machine, &installation.management).to_string())?;
    installation.wait_for(CLUSTER, "Rendered")?;
    let target = boot(&lab, &mut installation, CLUSTER, &mut machine, &images, "10.244.0.0/24", &tell)?;
    let first_token = eventually("token", PATIENCE, || admin.secret_text(BOOTSTRAP, "token"))?;
    let agent = machine.start_agent(&admin, CLUSTER)?;
    let mut site = Site { installation, admin, target, machine, agent };

    site.it_reports_what_the_machine_holds()?;
    tell("the agent reports that the machine holds both objects");
    site.its_first_token_is_revoked(&first_token)?;
    tell("its first token is refused, and its own lets it see its two objects and nothing else");
    site.new_certificates_arrive()?;
    tell("new certificates are on the machine, with their modes and owners");
    site.a_kubelet_with_another_configuration_is_restarted()?;
    tell("the kubelet was restarted for its new configuration");
    site.the_kubelets_certificate_moves_to_the_authority()?;
    tell("the kubelet has a certificate of the wanted authority");
    site.a_heartbeat_writes_nothing()?;
    tell("heartbeats cost the operator nothing");
    site.one_that_lost_its_credential_begins_anew()?;
    tell("an agent without a credential has begun anew");
    site.no_secret_is_shown(&first_token)
}

impl Site {
    fn report(&mut self) -> Result<Value> {
        self.agent.check_running()?;
        let lease = self.admin.json(&["get", "lease", "kept-cp1"])?;
        let report = lease["metadata"]["annotations"]["keyplane.io/agent-report"].as_str().context("no report")?;
        Ok(serde_json::from_str(report)?)
    }

    /// Waits for a report that both objects are on the machine as they are now.
    fn holds_both(&mut self) -> Result<Value> {
        eventually("report that all is held", PATIENCE, || {
            let checksum = |object: &Value| object["metadata"]["annotations"]["keyplane.io/content-checksum"].clone();
            let secret = checksum(&self.admin.json(&["get", "secret", SECRET])?);
            let config = checksum(&self.admin.json(&["get", "configmap", CONFIG])?);
            let report = self.report()?;
            ensure!(report["secret"] == secret && report["config"] == config && report["errors"].is_null(), "{report}");
            Ok(report)
        })
    }

    fn it_reports_what_the_machine_holds(&mut self) -> Result<()> {
        let report = self.holds_both()?;
        let client = &report["kubelet"]["client"];
        ensure!(client["issuer"] == "kubernetes" && client["authorityKeyId"].is_string(), "{report}");
        ensure!(report["kubelet"]["started"].is_string() && report["kubelet"]["server"].is_object(), "{report}");
        // containerd runs with the lab's own configuration.
        ensure!(report["pending"].to_string().contains("restart containerd"), "{report}");
        self.machines_are_in_sync()
    }

    fn machines_are_in_sync(&self) -> Result<()> {
        eventually("machines in sync", PATIENCE, || {
            self.admin.check_condition(&["clusterspec", CLUSTER], "NodesInSync")
        })
    }

    /// kubectl with a token and nothing else.
    fn with_token(&self, token: &str, arguments: &[&str]) -> Result<String> {
        let server = self.installation.management.server();
        let line = ["--kubeconfig=/dev/null", "--insecure-skip-tls-verify", "-s", &server, "--token", token];
        self.admin.run(&[&line, arguments].concat())
    }

    fn its_first_token_is_revoked(&mut self, first: &str) -> Result<()> {
        eventually("report with a credential of its own", PATIENCE, || {
            let report = self.report()?;
            ensure!(report["credential"] == "Renewed", "{report}");
            Ok(())
        })?;
        eventually("bootstrap Secret that is gone", PATIENCE, || {
            let left = self.admin.run(&["get", "secret", BOOTSTRAP, "--ignore-not-found", "-o", "name"])?;
            ensure!(left.is_empty(), "{left}");
            Ok(())
        })?;
        // The API server remembers a good token for a few seconds.
        eventually("refusal of the first token", PATIENCE, || {
            let answer = self.with_token(first, &["get", "configmap", CONFIG]);
            let told = format!("{:#}", answer.err().context("it still is good")?);
            ensure!(told.contains("Unauthorized") || told.contains("must be logged in"), "{told}");
            Ok(())
        })?;
        let token = String::from_utf8(self.machine.read_file("/etc/keyplane/token")?)?;
        for allowed in [
            &["get", "secret", SECRET, "-o", "name"][..],
            &["get", "configmap", CONFIG, "-o", "name"],
            &["get", "configmaps", "--field-selector", "metadata.name=kept-cp1-config", "-o", "name"],
        ] {
            self.with_token(&token, allowed)?;
        }
        for refused in [
            &["get", "secret", "kept-ca"][..],
            &["get", "secret", "kept-kubeconfig"],
            &["get", "secrets"],
            &["get", "configmaps"],
            &["get", "configmaps", "-A"],
            &["get", "configmap", "kept-ca-bundle"],
            &["get", "leases"],
            &["get", "lease", "keyplane"],
            &["get", "clusterspecs"],
            &["delete", "secret", SECRET],
            &["delete", "lease", "kept-cp1"],
            &["annotate", "configmap", CONFIG, "a=b"],
            &["create", "token", "default"],
        ] {
            let told = self.with_token(&token, refused);
            let told = format!("{:#}", told.err().with_context(|| format!("it may {refused:?}"))?);
            ensure!(told.contains("orbidden"), "{refused:?}: {told}");
        }
        Ok(())
    }

    /// Everything in both objects is on the machine as the index says.
    fn all_files_are_there(&self) -> Result<()> {
        for (kind, name) in [("secret", SECRET), ("configmap", CONFIG)] {
            for NodeFile { path, mode, owner, content } in files(&self.admin.json(&["get", kind, name])?)? {
                let found = self.machine.run(&["stat", "-c", "%a %U:%G", &path])?;
                ensure!(found.trim() == format!("{mode:o} {owner}"), "{path}: {found}");
                if path != "/etc/kubernetes/kubelet.conf" {
                    ensure!(self.machine.read_file(&path)? == content, "{path} has another content");
                }
            }
        }
        let left = self.machine.run(&["find", "/etc/kubernetes", "/var/lib/kubelet", "-name", ".*.keyplane-new"])?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    }

    fn new_certificates_arrive(&mut self) -> Result<()> {
        let key = || self.machine.read_file("/etc/kubernetes/pki/apiserver-kubelet-client.key");
        let authority = self.machine.read_file("/etc/kubernetes/pki/ca.crt")?;
        let before = key()?;
        self.admin.run(&["annotate", "clusterspec", CLUSTER, "keyplane.io/rotate-certificates=once"])?;
        eventually("new key on the machine", PATIENCE, || {
            ensure!(key()? != before, "it is the old one");
            Ok(())
        })?;
        self.holds_both()?;
        self.all_files_are_there()?;
        ensure!(self.machine.read_file("/etc/kubernetes/pki/ca.crt")? == authority, "the authority has changed");
        // The kubelet's own credential stays its own.
        let own = String::from_utf8(self.machine.read_file("/etc/kubernetes/kubelet.conf")?)?;
        ensure!(own.contains("kubelet-client-current.pem"), "{own}");
        Ok(())
    }

    fn a_kubelet_with_another_configuration_is_restarted(&mut self) -> Result<()> {
        let started = self.report()?["kubelet"]["started"].clone();
        let patch = json!({"spec": {"controlPlane": {"kubelet": {"maxPods": 77}}}}).to_string();
        self.admin.run(&["patch", "clusterspec", CLUSTER, "--type=merge", "-p", &patch])?;
        eventually("kubelet with the new configuration", PATIENCE, || {
            self.machine.check_kubelet()?;
            let node = self.target.json(&["get", "node", "cp1"])?;
            ensure!(node["status"]["capacity"]["pods"] == "77", "{}", node["status"]["capacity"]);
            Ok(())
        })?;
        // The files are there first, and the restart waits for its turn.
        eventually("report of the new kubelet", PATIENCE, || {
            let report = self.holds_both()?;
            ensure!(report["kubelet"]["started"] != started && report["restart"].is_null(), "{report}");
            Ok(())
        })
    }

    /// The serving certificate is of another authority, as after a rotation; the annotation names the cluster's own.
    fn the_kubelets_certificate_moves_to_the_authority(&mut self) -> Result<()> {
        const CURRENT: &str = "/var/lib/kubelet/pki/kubelet-server-current.pem";
        let address = self.machine.address();
        let script = format!(
            "cd /tmp && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout o.key -out o.crt 2>&1 &&
             openssl req -newkey rsa:2048 -nodes -subj /O=system:nodes/CN=system:node:cp1 -keyout l.key -out l.csr 2>&1 &&
             printf 'subjectAltName=DNS:cp1,IP:{address}\\nextendedKeyUsage=serverAuth\\n' >l.ext &&
             openssl x509 -req -in l.csr -CA o.crt -CAkey o.key -CAcreateserial -days 1 -extfile l.ext -out l.crt 2>&1 &&
             cat l.crt l.key >/var/lib/kubelet/pki/other.pem && chmod 600 /var/lib/kubelet/pki/other.pem &&
             ln -sfn /var/lib/kubelet/pki/other.pem {CURRENT}"
        );
        self.machine.run(&["sh", "-c", &script])?;
        let fingerprint = "openssl x509 -in /etc/kubernetes/pki/ca.crt -outform DER | sha256sum | cut -d' ' -f1";
        let fingerprint = self.machine.run(&["sh", "-c", fingerprint])?;
        let annotation = format!("keyplane.io/kubelet-ca={}", fingerprint.trim());
        self.admin.run(&["annotate", "configmap", CONFIG, &annotation])?;
        let verify = format!(
            "openssl s_client -connect {address}:10250 -CAfile /etc/kubernetes/pki/ca.crt -verify_return_error </dev/null 2>&1"
        );
        eventually("kubelet with a certificate of the authority", PATIENCE, || {
            self.machine.check_kubelet()?;
            let link = self.machine.run(&["readlink", CURRENT])?;
            ensure!(link.contains("/var/lib/kubelet/pki/kubelet-server-20"), "{link}");
            self.machine.run(&["sh", "-c", &verify])
        })?;
        ensure!(self.machine.read_file("/var/lib/kubelet/pki/other.pem").is_ok(), "the pair before was deleted");
        ensure!(self.machine.run(&["stat", "-Lc", "%a", CURRENT])?.trim() == "600");
        eventually("log of a pod", PATIENCE, || self.target.run(&["logs", "hello", "--tail=1"]))?;
        let report = self.holds_both()?;
        ensure!(report["kubelet"]["server"]["issuer"] == "kubernetes" && report["waits"].is_null(), "{report}");
        Ok(())
    }

    fn a_heartbeat_writes_nothing(&mut self) -> Result<()> {
        let renewed =
            |site: &Self| Ok::<_, anyhow::Error>(site.admin.json(&["get", "lease", "kept-cp1"])?["spec"].clone());
        // What the tests before have begun comes to its end: for its new kubeconfigs two static pods are made anew.
        self.installation.wait_for(CLUSTER, "RolledOut")?;
        self.installation.wait_for(CLUSTER, "Ready")?;
        sleep(Duration::from_secs(10));
        let (before, writes) = (renewed(self)?, self.writes()?);
        let requests = self.installation.management.requests()?.len();
        eventually("heartbeat", PATIENCE, || {
            ensure!(renewed(self)? != before, "none yet");
            Ok(())
        })?;
        sleep(Duration::from_secs(2));
        ensure!(self.writes()? == writes, "a heartbeat has made the operator write");
        let new: BTreeSet<_> = self.installation.management.requests()?[requests..]
            .iter()
            .filter(|request| request.user == USER && request.resource != "leases")
            .map(|request| format!("{} {} {}", request.verb, request.resource, request.name))
            .collect();
        ensure!(!new.iter().any(|request| request.starts_with("get secrets")), "a heartbeat was reconciled: {new:?}");
        Ok(())
    }

    fn writes(&self) -> Result<usize> {
        let writes = self.installation.management.writes_of(USER)?;
        Ok(writes.iter().filter(|request| request.resource != "leases" || request.name != "keyplane").count())
    }

    fn one_that_lost_its_credential_begins_anew(&mut self) -> Result<()> {
        self.agent.kill();
        // With the ServiceAccount every token of it is gone.
        self.admin.run(&["delete", "serviceaccount", "kept-cp1-agent"])?;
        self.admin.run(&["delete", "lease", "kept-cp1"])?;
        self.agent = self.machine.start_agent(&self.admin, CLUSTER)?;
        eventually("report with a credential of its own", PATIENCE, || {
            let report = self.report()?;
            ensure!(report["credential"] == "Renewed", "{report}");
            Ok(())
        })?;
        self.holds_both().map(drop)
    }

    fn no_secret_is_shown(&mut self, first_token: &str) -> Result<()> {
        let own = String::from_utf8(self.machine.read_file("/etc/keyplane/token")?)?;
        let secret = self.admin.json(&["get", "secret", SECRET])?;
        let key = BASE64_STANDARD.decode(secret["data"]["ca.key"].as_str().context("no key")?)?;
        let line = String::from_utf8(key)?.lines().nth(1).context("no line")?.to_owned();
        let lease = self.admin.run(&["get", "lease", "kept-cp1", "-o", "yaml"])?;
        for (what, text) in [
            ("the agent's log", fs::read_to_string(self.machine.agent_log())?),
            ("the operator's log", fs::read_to_string(self.installation.operator.log())?),
            ("the Lease", lease),
        ] {
            for word in ["PRIVATE KEY", first_token.trim(), own.trim(), &line] {
                ensure!(!text.contains(word), "{what} shows a secret");
            }
        }
        Ok(())
    }
}
