//! A ClusterSpec is applied, and a real cluster boots from what Keyplane wrote and stays up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::slice;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use keyplane_e2e::boot::boot;
use keyplane_e2e::installation::{FIRST_REPLICA, Installation, PATIENCE, bootable_cluster_spec};
use keyplane_e2e::kubectl::documents;
use keyplane_e2e::{Kubectl, Lab, Machine, Operator, distribute, eventually, image};
use serde_json::{Value, json};

const CLUSTER: &str = "light";

/// What a user would apply: a policy, a cluster on this machine, and a pool for workers.
fn objects(machine: &Machine) -> String {
    let policy = json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "CertificatePolicy", "metadata": {"name": "standard"},
        "spec": {"leaf": {"validity": "8760h"}},
    });
    // Add-ons have tests of their own, and images that this machine does not get.
    let mut cluster = bootable_cluster_spec(CLUSTER, &machine.address(), slice::from_ref(machine));
    cluster["spec"]["certificatePolicyRef"] = json!({"name": "standard"});
    let pool = json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "NodePool", "metadata": {"name": "workers"},
        "spec": {"clusterRef": {"name": CLUSTER}, "machines": [{"name": "worker1", "addresses": ["192.0.2.21"]}]},
    });
    documents(&[policy, cluster, pool])
}

/// Everything that the checks below look at.
struct Light<'a> {
    lab: &'a Lab,
    installation: Installation,
    machine: Machine,
    target: Kubectl,
}

pub(crate) fn a_cluster_boots_from_what_keyplane_wrote_and_its_keys_do_what_they_are_for() -> Result<()> {
    let began = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());
    let lab = Lab::start()?;
    let images = image::all(lab.parts())?;
    let mut machine = lab.machine("cp1")?;
    let mut installation = Installation::start(&lab)?;
    let admin = installation.admin().clone();
    admin.apply(&objects(&machine))?;
    // Three crashes in the middle of the first reconciliation: the cluster that boots is the one that they left.
    for delay in [300, 700, 500] {
        sleep(Duration::from_millis(delay));
        installation.operator.kill();
        installation.operator = Operator::start(&lab, &installation.user, FIRST_REPLICA)?;
    }
    installation.wait_for(CLUSTER, "Rendered")?;
    tell("rendered");
    let before_boot = secret(&admin, "light-cp1-pki")?;
    let target = boot(&lab, &mut installation, CLUSTER, &mut machine, &images, "10.244.0.0/24", &tell)?;
    let mut light = Light { lab: &lab, installation, machine, target };

    light.the_table_shows_what_a_person_wants()?;
    tell("the table is right");
    light.keyplane_has_approved_the_serving_request()?;
    light.a_request_for_another_address_is_denied()?;
    tell("requests are judged");
    light.every_certificate_is_listed_as_openssl_sees_it()?;
    light.every_leaf_is_verified_by_its_authority()?;
    tell("openssl agrees");
    light.every_client_certificate_opens_its_door_and_no_other(&before_boot)?;
    tell("clients are let in and kept out");
    light.keyplanes_own_user_is_narrow()?;
    light.kubeadm_finds_in_the_target_what_it_would_have_put_there()?;
    tell("kubeadm finds its objects");
    light.the_kubelet_starts_with_the_kubeconfig_that_refers_to_its_own_certificate()?;
    tell("the kubelet has started anew");
    light.what_is_taken_away_in_the_target_comes_back()?;
    tell("the target was mended");
    light.a_lost_control_plane_is_told()?;
    tell("the loss was told");
    Ok(())
}

fn secret(admin: &Kubectl, name: &str) -> Result<BTreeMap<String, String>> {
    let object = admin.json(&["get", "secret", name])?;
    let data = object["data"].as_object().context("a Secret without data")?;
    data.iter()
        .map(|(key, value)| {
            let bytes = BASE64_STANDARD.decode(value.as_str().unwrap_or_default())?;
            Ok((key.clone(), String::from_utf8(bytes)?))
        })
        .collect()
}

impl Light<'_> {
    fn admin(&self) -> &Kubectl {
        self.installation.admin()
    }

    fn cluster_spec(&self) -> Result<Value> {
        self.admin().json(&["get", "clusterspec", CLUSTER])
    }

    fn the_table_shows_what_a_person_wants(&self) -> Result<()> {
        let table = self.admin().run(&["get", "kcs"])?;
        let mut lines = table.lines();
        let columns: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
        let wanted =
            ["NAME", "VERSION", "ENDPOINT", "READY", "REASON", "NODES", "DESIRED", "CERTS-EXPIRE", "ROTATION", "AGE"];
        ensure!(columns == wanted, "{table}");
        let row: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
        let endpoint = format!("{}:6443", self.machine.address());
        ensure!(row[..7] == [CLUSTER, "v1.37.2", &endpoint, "True", "Ready", "1", "1"], "{table}");
        // kstatus, which GitOps tools wait with, and kubectl agree.
        self.admin().run(&["wait", "clusterspec", CLUSTER, "--for=condition=Ready", "--timeout=5s"])?;
        self.admin().check_condition(&["nodepool", "workers"], "Ready")?;
        self.admin().check_condition(&["certificatepolicy", "standard"], "Ready")?;
        let node = self.target.json(&["get", "node", "cp1"])?;
        ensure!(node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"] == "", "the Node is not marked");
        ensure!(node["spec"]["taints"][0]["key"] == "node-role.kubernetes.io/control-plane", "{}", node["spec"]);
        let events = self.admin().run(&["get", "events", "--field-selector", "involvedObject.kind=ClusterSpec"])?;
        for reason in ["Issued", "Written", "TargetBootstrapped", "NodeLabelled", "Ready"] {
            ensure!(events.contains(reason), "no Event {reason} in:\n{events}");
        }
        Ok(())
    }

    fn keyplane_has_approved_the_serving_request(&self) -> Result<()> {
        let requests = self.target.json(&["get", "csr"])?;
        let serving: Vec<_> = requests["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|request| request["spec"]["signerName"] == "kubernetes.io/kubelet-serving")
            .collect();
        ensure!(!serving.is_empty(), "the kubelet has asked for nothing");
        for request in serving {
            let condition = &request["status"]["conditions"][0];
            ensure!(condition["type"] == "Approved" && condition["reason"] == "AllRulesPassed", "{request}");
            ensure!(request["status"]["certificate"].is_string(), "approved but not issued: {request}");
        }
        Ok(())
    }

    /// The node itself, with its own credential, asks for an address that is not its own.
    fn a_request_for_another_address_is_denied(&self) -> Result<()> {
        let script = "cd /tmp && openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout forged.key \
             -subj /O=system:nodes/CN=system:node:cp1 -addext 'subjectAltName=DNS:cp1,IP:192.0.2.21' 2>/dev/null";
        let request = self.machine.run(&["sh", "-c", script])?;
        let object = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "forged"},
            "spec": {"signerName": "kubernetes.io/kubelet-serving", "usages": ["digital signature", "server auth"],
                "request": BASE64_STANDARD.encode(request)},
        });
        self.machine.put_file("/tmp/forged.json", object.to_string().as_bytes(), 0o600)?;
        self.machine.run(&[
            "kubectl",
            "--kubeconfig=/etc/kubernetes/kubelet.conf",
            "create",
            "-f",
            "/tmp/forged.json",
        ])?;
        eventually("verdict", PATIENCE, || {
            let forged = self.target.json(&["get", "csr", "forged"])?;
            let condition = &forged["status"]["conditions"][0];
            ensure!(condition["type"] == "Denied", "{forged}");
            ensure!(condition["reason"] == "AnotherNodesAddress", "{condition}");
            ensure!(condition["message"].as_str().is_some_and(|message| message.contains("192.0.2.21")), "{condition}");
            Ok(())
        })?;
        let metrics = self.installation.operator.get("/metrics")?;
        let counted = |reason: &str| {
            metrics.lines().any(|line| line.starts_with("keyplane_csr_decisions_total") && line.contains(reason))
        };
        ensure!(counted("AnotherNodesAddress"), "{metrics}");
        Ok(())
    }

    fn every_certificate_is_listed_as_openssl_sees_it(&self) -> Result<()> {
        let status = self.cluster_spec()?["status"].clone();
        let listed = status["certificates"].as_array().context("no list")?;
        let names: BTreeSet<_> = listed.iter().filter_map(|row| row["name"].as_str()).collect();
        let expected = BTreeSet::from([
            "admin.conf",
            "apiserver",
            "apiserver-etcd-client",
            "apiserver-kubelet-client",
            "ca",
            "controller-manager.conf",
            "etcd-ca",
            "etcd-healthcheck-client",
            "etcd-peer",
            "etcd-server",
            "front-proxy-ca",
            "front-proxy-client",
            "kubeconfig",
            "scheduler.conf",
            "super-admin.conf",
        ]);
        ensure!(names == expected, "{names:?}");
        let file = |name: &str| match name {
            "ca"
            | "apiserver"
            | "apiserver-etcd-client"
            | "apiserver-kubelet-client"
            | "front-proxy-ca"
            | "front-proxy-client" => Some(format!("/etc/kubernetes/pki/{name}.crt")),
            _ => name.strip_prefix("etcd-").map(|rest| format!("/etc/kubernetes/pki/etcd/{rest}.crt")),
        };
        for row in listed {
            ensure!(row["renewalTime"].as_str() < row["notAfter"].as_str(), "{row}");
            let Some(path) = row["name"].as_str().and_then(file) else { continue };
            let said = self
                .machine
                .run(&["openssl", "x509", "-noout", "-serial", "-enddate", "-dateopt", "iso_8601", "-in", &path])?;
            let serial = row["serial"].as_str().unwrap_or_default();
            let end = row["notAfter"].as_str().unwrap_or_default().replace('T', " ");
            ensure!(
                said.contains(&format!("serial={serial}\n")) && said.contains(&format!("notAfter={end}")),
                "{row}\n{said}"
            );
        }
        Ok(())
    }

    fn every_leaf_is_verified_by_its_authority(&self) -> Result<()> {
        let verify = |authority: &str, leaf: &str, purpose: &str| {
            let pki = |file: &str| format!("/etc/kubernetes/pki/{file}.crt");
            self.machine.run(&[
                "openssl",
                "verify",
                "-x509_strict",
                "-purpose",
                purpose,
                "-CAfile",
                &pki(authority),
                &pki(leaf),
            ])
        };
        for (authority, leaf, purpose) in [
            ("ca", "apiserver", "sslserver"),
            ("ca", "apiserver-kubelet-client", "sslclient"),
            ("etcd/ca", "apiserver-etcd-client", "sslclient"),
            ("etcd/ca", "etcd/server", "sslserver"),
            ("etcd/ca", "etcd/server", "sslclient"),
            ("etcd/ca", "etcd/peer", "sslserver"),
            ("etcd/ca", "etcd/peer", "sslclient"),
            ("etcd/ca", "etcd/healthcheck-client", "sslclient"),
            ("front-proxy-ca", "front-proxy-client", "sslclient"),
        ] {
            verify(authority, leaf, purpose).with_context(|| format!("{leaf} below {authority}"))?;
            let other = if authority == "ca" { "etcd/ca" } else { "ca" };
            ensure!(verify(other, leaf, purpose).is_err(), "{other} verifies {leaf}");
        }
        ensure!(verify("ca", "apiserver", "sslclient").is_err(), "the API server's certificate is a client's too");
        ensure!(
            verify("ca", "apiserver-kubelet-client", "sslserver").is_err(),
            "a client's certificate is a server's too"
        );
        Ok(())
    }

    fn every_client_certificate_opens_its_door_and_no_other(
        &self,
        before_boot: &BTreeMap<String, String>,
    ) -> Result<()> {
        // kubectl, with each kubeconfig.
        self.machine.put_file("/tmp/first-kubelet.conf", before_boot["kubelet.conf"].as_bytes(), 0o600)?;
        let kubectl = |kubeconfig: &str, arguments: &[&str]| {
            let flag = format!("--kubeconfig={kubeconfig}");
            self.machine.run(&[&["kubectl", &flag], arguments].concat())
        };
        for (kubeconfig, user, group, secrets) in [
            ("/etc/kubernetes/admin.conf", "kubernetes-admin", "kubeadm:cluster-admins", true),
            ("/etc/kubernetes/super-admin.conf", "kubernetes-super-admin", "system:masters", true),
            ("/etc/kubernetes/controller-manager.conf", "system:kube-controller-manager", "system:authenticated", true),
            ("/etc/kubernetes/scheduler.conf", "system:kube-scheduler", "system:authenticated", false),
            ("/etc/kubernetes/kubelet.conf", "system:node:cp1", "system:nodes", false),
            ("/tmp/first-kubelet.conf", "system:node:cp1", "system:nodes", false),
        ] {
            let who = kubectl(kubeconfig, &["auth", "whoami", "-o", "json"])?;
            let who: Value = serde_json::from_str(&who)?;
            let info = &who["status"]["userInfo"];
            ensure!(info["username"] == user, "{kubeconfig}: {info}");
            ensure!(
                info["groups"].as_array().is_some_and(|groups| groups.contains(&json!(group))),
                "{kubeconfig}: {info}"
            );
            let listed = kubectl(kubeconfig, &["get", "secrets", "-n", "kube-system"]);
            ensure!(listed.is_ok() == secrets, "{kubeconfig}: {listed:?}");
        }
        // etcdctl, with each pair.
        let etcdctl = |authority: &str, pair: Option<&str>| {
            let mut line = vec![
                "etcdctl".to_owned(),
                "--endpoints=https://127.0.0.1:2379".to_owned(),
                "--dial-timeout=3s".to_owned(),
                "--command-timeout=5s".to_owned(),
                format!("--cacert=/etc/kubernetes/pki/{authority}.crt"),
            ];
            if let Some(pair) = pair {
                line.push(format!("--cert=/etc/kubernetes/pki/{pair}.crt"));
                line.push(format!("--key=/etc/kubernetes/pki/{pair}.key"));
            }
            line.extend(["get", "/registry/namespaces/default", "--keys-only"].map(str::to_owned));
            self.machine.run(&line)
        };
        for pair in ["apiserver-etcd-client", "etcd/healthcheck-client", "etcd/server", "etcd/peer"] {
            ensure!(etcdctl("etcd/ca", Some(pair))?.contains("/registry/namespaces/default"), "{pair}");
        }
        for pair in [None, Some("front-proxy-client"), Some("apiserver-kubelet-client"), Some("apiserver")] {
            ensure!(etcdctl("etcd/ca", pair).is_err(), "etcd lets {pair:?} in");
        }
        ensure!(
            etcdctl("ca", Some("apiserver-etcd-client")).is_err(),
            "etcd's certificate is verified by the cluster's authority"
        );
        // curl, to the API server and to the kubelet.
        let curl = |url: &str, pair: Option<&str>, more: &[&str]| -> Result<String> {
            let mut line: Vec<String> =
                ["curl", "-sS", "-o", "/tmp/answer", "-w", "%{http_code}", "--cacert", "/etc/kubernetes/pki/ca.crt"]
                    .map(str::to_owned)
                    .to_vec();
            if let Some(pair) = pair {
                line.extend(["--cert".to_owned(), format!("/etc/kubernetes/pki/{pair}.crt")]);
                line.extend(["--key".to_owned(), format!("/etc/kubernetes/pki/{pair}.key")]);
            }
            line.extend(more.iter().map(|&word| word.to_owned()));
            line.push(url.to_owned());
            self.machine.run(&line)
        };
        let api = format!("https://{}:6443/api/v1/namespaces/kube-system/secrets", self.machine.address());
        let kubelet = format!("https://{}:10250/pods", self.machine.address());
        let as_admin = ["-H", "X-Remote-User: someone", "-H", "X-Remote-Group: system:masters"];
        ensure!(curl(&api, Some("front-proxy-client"), &as_admin)? == "200", "the front proxy is not believed");
        ensure!(
            curl(&api, Some("apiserver-kubelet-client"), &as_admin)? == "403",
            "anybody is believed to be a front proxy"
        );
        ensure!(
            curl(&api, Some("front-proxy-client"), &[])? == "401",
            "the front proxy is somebody without its headers"
        );
        ensure!(curl(&api, Some("etcd/peer"), &[])? == "401", "etcd's authority makes users");
        ensure!(curl(&api, None, &[])? == "403", "nobody may read Secrets");
        ensure!(
            curl(&kubelet, Some("apiserver-kubelet-client"), &[])? == "200",
            "the API server may not ask the kubelet"
        );
        ensure!(curl(&kubelet, Some("etcd/peer"), &[]).is_err() || curl(&kubelet, Some("etcd/peer"), &[])? == "401");
        ensure!(curl(&kubelet, None, &[])? == "401", "the kubelet answers anybody");
        Ok(())
    }

    fn keyplanes_own_user_is_narrow(&self) -> Result<()> {
        let may = |(verb, group, resource, name, namespace): (&str, &str, &str, &str, &str)| -> Result<bool> {
            let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
                "user": "keyplane:controller", "groups": ["system:authenticated"],
                "resourceAttributes": {"verb": verb, "group": group, "resource": resource, "name": name, "namespace": namespace},
            }});
            let file = self.lab.folder().join("review.json");
            fs::write(&file, review.to_string())?;
            let answer = self.target.json(&["create", "-f", &file.to_string_lossy()])?;
            Ok(answer["status"]["allowed"] == true)
        };
        let (certificates, rbac) = ("certificates.k8s.io", "rbac.authorization.k8s.io");
        for allowed in [
            ("watch", certificates, "certificatesigningrequests", "", ""),
            ("approve", certificates, "signers", "kubernetes.io/kubelet-serving", ""),
            ("patch", "", "nodes", "cp1", ""),
            ("patch", "", "configmaps", "cluster-info", "kube-public"),
        ] {
            ensure!(may(allowed)?, "may not {allowed:?}");
        }
        for forbidden in [
            ("get", "", "secrets", "", "kube-system"),
            ("list", "", "secrets", "", ""),
            ("create", rbac, "clusterrolebindings", "", ""),
            ("escalate", rbac, "clusterroles", "", ""),
            ("patch", "", "nodes", "worker1", ""),
            ("delete", "", "nodes", "cp1", ""),
            ("create", "", "pods", "", "default"),
            ("get", "", "configmaps", "", "default"),
            ("create", certificates, "certificatesigningrequests", "", ""),
            ("approve", certificates, "signers", "kubernetes.io/kube-apiserver-client", ""),
            ("approve", certificates, "signers", "kubernetes.io/kube-apiserver-client-kubelet", ""),
            ("sign", certificates, "signers", "kubernetes.io/kubelet-serving", ""),
        ] {
            ensure!(!may(forbidden)?, "may {forbidden:?}");
        }
        Ok(())
    }

    /// kubeadm's own phases run against the cluster, and change nothing but what is documented.
    fn kubeadm_finds_in_the_target_what_it_would_have_put_there(&self) -> Result<()> {
        const KINDS: &str = "clusterroles,clusterrolebindings,roles,rolebindings,configmaps";
        let versions = || -> Result<BTreeMap<String, (String, Value)>> {
            let all = self.target.json(&["get", KINDS, "-A"])?;
            let of_interest =
                |name: &str| name.starts_with("kubeadm") || ["kubelet-config", "cluster-info"].contains(&name);
            Ok(all["items"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|object| of_interest(object["metadata"]["name"].as_str().unwrap_or_default()))
                .map(|object| {
                    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    let name = format!(
                        "{} {}/{}",
                        word(&object["kind"]),
                        word(&object["metadata"]["namespace"]),
                        word(&object["metadata"]["name"])
                    );
                    (name, (word(&object["metadata"]["resourceVersion"]), object.clone()))
                })
                .collect())
        };
        let before = versions()?;
        let config = self.installation.admin().json(&["get", "configmap", "light-cp1-config"])?;
        let cluster = config["data"]["kubeadm-config.yaml"].as_str().context("no kubeadm-config.yaml")?;
        let init = format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nlocalAPIEndpoint: {{advertiseAddress: {}}}\n\
             nodeRegistration: {{name: cp1, criSocket: 'unix:///var/run/containerd/containerd.sock'}}\n---\n{cluster}",
            self.machine.address()
        );
        self.machine.put_file("/tmp/kubeadm.yaml", init.as_bytes(), 0o600)?;
        for phase in [&["upload-config", "all"][..], &["bootstrap-token"], &["mark-control-plane"]] {
            let more = ["--config=/tmp/kubeadm.yaml"];
            self.machine.run(&[&["kubeadm", "init", "phase"], phase, &more].concat())?;
        }
        let after = versions()?;
        ensure!(
            before.keys().eq(after.keys()),
            "kubeadm made {:?}",
            after.keys().filter(|key| !before.contains_key(*key)).collect::<Vec<_>>()
        );
        let yaml = |object: &Value| -> Result<BTreeMap<String, Value>> {
            // The signatures of bootstrap tokens are text of another kind.
            object["data"]
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(key, _)| !key.starts_with("jws-"))
                .map(|(key, value)| Ok((key.clone(), serde_saphyr::from_str(value.as_str().unwrap_or_default())?)))
                .collect()
        };
        for (name, (version, object)) in &before {
            let (new_version, new_object) = &after[name];
            if name.starts_with("ConfigMap") {
                // kubeadm's YAML has other quotes; what it says is the same, save serverTLSBootstrap.
                let (mut ours, theirs) = (yaml(object)?, yaml(new_object)?);
                if let Some(kubelet) = ours.get_mut("kubelet").and_then(Value::as_object_mut) {
                    ensure!(kubelet.remove("serverTLSBootstrap") == Some(json!(true)));
                }
                ensure!(ours == theirs, "{name}:\nKeyplane {ours:?}\nkubeadm {theirs:?}");
            } else {
                ensure!(version == new_version, "kubeadm has changed {name}:\n{object}\n{new_object}");
            }
        }
        Ok(())
    }

    fn the_kubelet_starts_with_the_kubeconfig_that_refers_to_its_own_certificate(&mut self) -> Result<()> {
        let admin = self.admin().clone();
        eventually("kubelet.conf that refers to the kubelet's own certificate", PATIENCE, || {
            let stored = secret(&admin, "light-cp1-pki")?;
            ensure!(stored["kubelet.conf"].contains("/var/lib/kubelet/pki/kubelet-client-current.pem"));
            ensure!(!stored["kubelet.conf"].contains("client-key-data"));
            Ok(())
        })?;
        distribute::apply_files(&admin, "default", CLUSTER, &self.machine)?;
        self.machine.stop_kubelet()?;
        self.machine.start_kubelet()?;
        let node = || self.target.json(&["get", "lease", "cp1", "-n", "kube-node-lease"]);
        let renewed = |lease: &Value| lease["spec"]["renewTime"].as_str().unwrap_or_default().to_owned();
        sleep(Duration::from_secs(2));
        let before = renewed(&node()?);
        eventually("heartbeat of the kubelet", PATIENCE, || {
            self.machine.check_kubelet()?;
            ensure!(renewed(&node()?) > before);
            Ok(())
        })?;
        eventually("log after the restart", PATIENCE, || self.target.run(&["logs", "hello", "--tail=1"]))?;
        Ok(())
    }

    fn what_is_taken_away_in_the_target_comes_back(&mut self) -> Result<()> {
        // Rights, which only the super-admin can grant, and a ConfigMap, which the narrow user puts right.
        self.target.run(&["delete", "clusterrolebinding", "kubeadm:get-nodes"])?;
        self.target.run(&[
            "patch",
            "configmap",
            "cluster-info",
            "-n",
            "kube-public",
            "--type=merge",
            "-p",
            r#"{"data":{"kubeconfig":"x"}}"#,
        ])?;
        // A session looks at once when it begins.
        self.installation.operator.stop()?;
        self.installation.operator = Operator::start(self.lab, &self.installation.user, FIRST_REPLICA)?;
        eventually("mended target", PATIENCE, || {
            self.target.run(&["get", "clusterrolebinding", "kubeadm:get-nodes"])?;
            let info = self.target.json(&["get", "configmap", "cluster-info", "-n", "kube-public"])?;
            ensure!(
                info["data"]["kubeconfig"].as_str().is_some_and(|text| text.contains("certificate-authority-data"))
            );
            Ok(())
        })?;
        self.installation.wait_for(CLUSTER, "Ready")
    }

    fn a_lost_control_plane_is_told(self) -> Result<()> {
        let admin = self.installation.admin().clone();
        let logs = self.installation.operator.log().to_owned();
        let keys = secret(&admin, "light-cp1-pki")?;
        self.machine.destroy()?;
        eventually("condition of a control plane that is gone", PATIENCE, || {
            let told = admin.complaint(&["clusterspec", CLUSTER], "ControlPlaneAvailable")?;
            ensure!(told.contains("Unreachable"), "{told}");
            ensure!(admin.check_condition(&["clusterspec", CLUSTER], "Ready").is_err());
            Ok(())
        })?;
        no_key_is_shown(&admin, &logs, &keys)
    }
}

/// Neither the log nor an Event nor a status nor a ConfigMap has a line of a private key.
fn no_key_is_shown(admin: &Kubectl, log: &Path, keys: &BTreeMap<String, String>) -> Result<()> {
    let shown = [
        fs::read_to_string(log)?,
        admin.run(&["get", "events,clusterspecs,nodepools,certificatepolicies,configmaps", "-A", "-o", "yaml"])?,
    ];
    let mut looked_for = 0;
    for (name, content) in
        keys.iter().filter(|(name, _)| Path::new(name).extension().is_some_and(|ending| ending == "key"))
    {
        for line in content.lines().filter(|line| line.len() > 40) {
            looked_for += 1;
            let encoded = BASE64_STANDARD.encode(line);
            // Base64 of base64 depends on where the line stands; its middle does not.
            ensure!(
                !shown.iter().any(|text| text.contains(line) || text.contains(&encoded[8..encoded.len() - 8])),
                "{name} is shown"
            );
        }
    }
    ensure!(looked_for > 50, "no key was looked for");
    ensure!(!shown.iter().any(|text| text.contains("PRIVATE KEY") || text.contains("client-key-data")));
    Ok(())
}
