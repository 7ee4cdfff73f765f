//! Real kubelets and their certificates: Keyplane approves what a machine may have and nothing else, and the
//! controller-manager signs what Keyplane approves.
//!
//! Certificates live for two minutes in these clusters, so that kubelets renew them while the tests look on.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::slice;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use keyplane_e2e::boot::{owners_kubectl, start_node};
use keyplane_e2e::installation::{Installation, PATIENCE, bootable_cluster_spec};
use keyplane_e2e::join::join;
use keyplane_e2e::kubectl::documents;
use keyplane_e2e::machine::{MachineOptions, lab_kubelet_settings};
use keyplane_e2e::{Kubectl, Lab, Machine, command, eventually, image, operator};
use serde_json::{Value, json};

const CLUSTER: &str = "kubelets";
const POLICY: &str = "short-lived";
const SERVING: &str = "kubernetes.io/kubelet-serving";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// The shortest life that no kubelet finds overdue: certificates begin five minutes before they are signed
/// (`signer.go`), and kubelets renew after 70 to 90 % of the whole (`certificate_manager.go`), so within 1 to 87 seconds.
const LIFETIME: &str = "130s";

/// The worker's address, where it moves to, and what is not its own. The pool has .32 to .47.
const WORKER: u8 = 33;
const MOVES_TO: u8 = 40;
const ANOTHERS: u8 = 50;
const NOBODYS: u8 = 60;

fn objects(lab: &Lab, control_plane: &Machine) -> String {
    let kubelet = lab_kubelet_settings(control_plane);
    let subnet = lab.site().subnet;
    let policy = json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "CertificatePolicy", "metadata": {"name": POLICY},
        "spec": {"kubeletServing": {"dryRun": true}},
    });
    let mut cluster = bootable_cluster_spec(CLUSTER, &control_plane.address(), slice::from_ref(control_plane));
    cluster["spec"]["controlPlane"]["controllerManager"] =
        json!({"extraArgs": [{"name": "cluster-signing-duration", "value": LIFETIME}]});
    cluster["spec"]["certificatePolicyRef"] = json!({"name": POLICY});
    let workers = json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "NodePool", "metadata": {"name": "workers"},
        "spec": {
            "clusterRef": {"name": CLUSTER},
            "selector": {"namePattern": "worker-*", "addressCIDRs": [format!("{}/28", subnet.address(32))]},
            "kubelet": kubelet,
        },
    });
    let racks = json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "NodePool", "metadata": {"name": "racks"},
        "spec": {"clusterRef": {"name": CLUSTER}, "machines": [{"name": "rack1", "addresses": [subnet.address(ANOTHERS)]}]},
    });
    documents(&[policy, cluster, workers, racks])
}

/// A pod on each node, whose log is read through that node's kubelet.
pub(crate) fn pod(node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": node, "namespace": "default"},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "talker", "image": image::TOOLBOX, "imagePullPolicy": "Never",
                "command": ["sh", "-c", format!("echo hello from {node}; sleep 3600")]}],
        },
    })
}

/// Everything that the scenarios look at.
struct Kubelets<'a> {
    lab: &'a Lab,
    installation: Installation,
    control_plane: Machine,
    worker: Machine,
    target: Kubectl,
    /// The requests that the controller-manager has approved by kubeadm's bindings, while they were there.
    unseen: BTreeSet<String>,
}

pub(crate) fn real_kubelets_get_the_certificates_that_they_may_have_and_no_others() -> Result<()> {
    let began = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());
    let lab = Lab::start()?;
    let images = image::all(lab.parts())?;
    let mut control_plane = lab.machine("cp1")?;
    let options = MachineOptions { host_number: Some(WORKER), ..MachineOptions::default() };
    let worker = lab.machine_with("worker-1", &options)?;
    let mut installation = Installation::start(&lab)?;
    installation.admin().apply(&objects(&lab, &control_plane))?;
    installation.wait_for(CLUSTER, "Rendered")?;
    start_node(&installation, CLUSTER, &mut control_plane, &images, "10.244.0.0/24", &tell)?;
    let target = owners_kubectl(&lab, installation.admin(), CLUSTER)?;
    let mut kubelets = Kubelets { lab: &lab, installation, control_plane, worker, target, unseen: BTreeSet::new() };

    kubelets.a_dry_run_tells_and_approves_nothing()?;
    tell("a dry run tells, and approves nothing: no log can be read");
    kubelets.once_the_operator_judges_a_fresh_node_serves()?;
    tell("once the operator judges, the fresh node serves");
    let mut serials = BTreeSet::from([served_serial(&kubelets.control_plane.address())?]);
    kubelets.bindings_that_approve_unseen_are_removed()?;
    tell("the bindings that approve client certificates unseen are removed");
    let script = kubelets.a_token_is_good_for_its_pools_machines_only()?;
    tell("a pool's token is good for that pool's machines only");
    kubelets.a_worker_joins_by_keyplanes_approval(&script)?;
    tell("a worker has joined by Keyplane's approval");
    kubelets.a_node_that_lies_about_its_addresses_is_refused()?;
    tell("a node that lies about its addresses is refused");
    kubelets.a_node_that_moves_waits_for_the_address_and_then_serves_with_it()?;
    tell("a node that moves has waited for the address, and serves with it");
    kubelets.certificates_of_live_kubelets_are_renewed(&mut serials)?;
    tell(&format!("live kubelets have renewed their certificates; cp1 has served with {}", serials.len()));
    kubelets.what_is_approved_is_signed_and_nothing_else()?;
    tell("what is approved is signed as asked, and nothing else");
    Ok(())
}

/// What `keyplane csr explain` answers.
#[derive(Debug)]
pub(crate) struct Explained {
    /// The exit status.
    pub(crate) status: Option<i32>,
    /// As JSON.
    pub(crate) answer: Value,
}

impl Explained {
    /// The verdict of a rule.
    pub(crate) fn rule(&self, name: &str) -> &Value {
        let rules = self.answer["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
        rules.iter().find(|rule| rule["name"] == name).map_or(&Value::Null, |rule| &rule["verdict"])
    }
}

/// Runs `keyplane csr explain` with a kubeconfig, as a person would; `keyplane` is how the program is run.
pub(crate) fn explain_with(mut keyplane: Command, kubeconfig: &Kubectl, arguments: &[&str]) -> Result<Explained> {
    keyplane.args(["csr", "explain", "-o", "json"]).args(arguments).env("KUBECONFIG", kubeconfig.kubeconfig());
    let output = keyplane.output()?;
    let answer = serde_json::from_slice(&output.stdout);
    let answer = answer.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok(Explained { status: output.status.code(), answer })
}

/// A request as somebody with openssl makes it, on a machine. `names` is openssl's list of subject alternative names.
pub(crate) fn request(machine: &Machine, name: &str, node: &str, names: Option<&str>) -> Result<Value> {
    let mut line = format!(
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout /dev/null \
         -subj /O=system:nodes/CN=system:node:{node}"
    );
    if let Some(names) = names {
        let _ = write!(line, " -addext subjectAltName={names}");
    }
    line.push_str(" 2>/dev/null");
    let pem = machine.run(&["sh", "-c", &line])?;
    let (signer, purpose) = if names.is_some() { (SERVING, "server auth") } else { (CLIENT, "client auth") };
    Ok(json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {"signerName": signer, "usages": ["digital signature", purpose], "request": BASE64_STANDARD.encode(pem)},
    }))
}

/// Writes into a Node's status with a kubelet's own credential. kubectl would read it first, which a kubelet may not.
fn patch_status_as_node(machine: &Machine, api_server: &str, node: &str, patch: &Value) -> Result<()> {
    let url = format!("https://{api_server}:6443/api/v1/nodes/{node}/status");
    let pair = "/var/lib/kubelet/pki/kubelet-client-current.pem";
    let line =
        ["curl", "-sS", "--fail-with-body", "--cacert", "/etc/kubernetes/pki/ca.crt", "--cert", pair, "--key", pair];
    let what = ["-X", "PATCH", "-H", "Content-Type: application/merge-patch+json", "-d", &patch.to_string(), &url];
    machine.run(&[&line[..], &what].concat()).map(|_| ())
}

/// Makes these requests on a machine, with a credential that kubectl's flags give.
pub(crate) fn submit(machine: &Machine, credential: &[&str], requests: &[Value]) -> Result<()> {
    machine.put_file("/tmp/requests.yaml", documents(requests).as_bytes(), 0o600)?;
    let create = ["create", "--validate=false", "-f", "/tmp/requests.yaml"];
    machine.run(&[&["kubectl"], credential, &create].concat()).map(|_| ())
}

/// What openssl says of the certificate that a kubelet serves with.
fn served(address: &str, flags: &str) -> Result<String> {
    let line =
        format!("openssl s_client -connect {address}:10250 </dev/null 2>/dev/null | openssl x509 -noout {flags}");
    command::run(Command::new("sh").args(["-c", &line]))
}

fn served_serial(address: &str) -> Result<String> {
    served(address, "-serial")
}

/// What is in a list.
pub(crate) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// The verdict on a request, once it has one.
pub(crate) fn verdict(target: &Kubectl, name: &str) -> Result<Value> {
    eventually(&format!("verdict on {name}"), PATIENCE, || {
        let found = target.json(&["get", "csr", name])?;
        let condition = found["status"]["conditions"][0].clone();
        ensure!(condition.is_object(), "{found}");
        Ok(condition)
    })
}

impl Kubelets<'_> {
    fn admin(&self) -> &Kubectl {
        self.installation.admin()
    }

    fn patch_policy(&self, spec: &Value) -> Result<()> {
        let patch = json!({"spec": spec}).to_string();
        self.admin().run(&["patch", "certificatepolicy", POLICY, "--type=merge", "-p", &patch]).map(|_| ())
    }

    fn log_of(&self, node: &str) -> Result<()> {
        let log = self.target.run(&["logs", node])?;
        ensure!(log.contains(&format!("hello from {node}")), "{log}");
        Ok(())
    }

    fn explain(&self, name: &str) -> Result<Explained> {
        explain_with(
            Command::new(operator::binary()?),
            self.admin(),
            &[name, "--cluster", &format!("default/{CLUSTER}")],
        )
    }

    /// Whether the operator has counted such a decision.
    fn counted(&self, labels: &[String]) -> Result<()> {
        let metrics = self.installation.operator.get("/metrics")?;
        let mut lines = metrics.lines().filter(|line| line.starts_with("keyplane_csr_decisions_total"));
        ensure!(lines.any(|line| labels.iter().all(|label| line.contains(label.as_str()))), "{labels:?}: {metrics}");
        Ok(())
    }

    /// Whether there is an Event with this reason on the ClusterSpec that names the request.
    fn told(&self, reason: &str, request: &str) -> Result<String> {
        let events =
            self.admin().json(&["get", "events.events.k8s.io", "--field-selector", &format!("reason={reason}")])?;
        let about = |event: &&Value| {
            event["regarding"]["name"] == CLUSTER
                && event["related"]["name"] == request
                && event["note"].as_str().is_some_and(|note| note.contains(request))
        };
        let event =
            items(&events).find(about).with_context(|| format!("no Event {reason} about {request}: {events}"))?;
        Ok(event["note"].as_str().unwrap_or_default().to_owned())
    }

    /// The request is denied, and the reason is told wherever a person may look.
    fn is_denied(&self, name: &str, signer: &str, reason: &str, rule: &str, word: &str) -> Result<()> {
        let condition = verdict(&self.target, name)?;
        ensure!(condition["type"] == "Denied" && condition["reason"] == reason, "{name}: {condition}");
        let message = condition["message"].as_str().unwrap_or_default();
        let source = format!("(rule {rule}, CertificatePolicy {POLICY})");
        ensure!(message.contains(word) && message.ends_with(&source), "{name}: {condition}");
        eventually("Event of the denial", PATIENCE, || self.told(reason, name))?;
        let label = |key: &str, value: &str| format!("{key}=\"{value}\"");
        self.counted(&[
            label("signer", signer),
            label("verdict", "deny"),
            label("reason", reason),
            label("dry_run", "false"),
        ])?;
        let explained = self.explain(name)?;
        ensure!(explained.status == Some(2) && explained.answer["verdict"] == "Deny", "{explained:?}");
        ensure!(explained.answer["reason"] == reason && explained.rule(rule) == "Deny", "{explained:?}");
        ensure!(explained.answer["settled"].as_str().is_some_and(|settled| settled.contains(message)), "{explained:?}");
        let described = self.target.run(&["describe", "csr", name])?;
        ensure!(described.lines().any(|line| line.split_whitespace().eq(["Status:", "Denied"])), "{described}");
        Ok(())
    }

    /// The request has no verdict, and `explain` says what it waits for.
    fn waits(&self, name: &str, reason: &str) -> Result<()> {
        let explained = self.explain(name)?;
        ensure!(explained.status == Some(3) && explained.answer["verdict"] == "Wait", "{explained:?}");
        ensure!(explained.answer["reason"] == reason, "{explained:?}");
        let label = |key: &str, value: &str| format!("{key}=\"{value}\"");
        eventually("judgement", PATIENCE, || self.counted(&[label("verdict", "wait"), label("reason", reason)]))?;
        let found = self.target.json(&["get", "csr", name])?;
        ensure!(found["status"]["conditions"].is_null(), "{found}");
        Ok(())
    }

    /// The newest request of a requester that has no verdict.
    fn pending_of(&self, user: &str, signer: &str) -> Result<String> {
        let requests = self.target.json(&["get", "csr"])?;
        let mut pending = items(&requests).filter(|request| {
            request["spec"]["username"] == user
                && request["spec"]["signerName"] == signer
                && request["status"]["conditions"].is_null()
        });
        let found = pending.next().with_context(|| format!("no request of {user} is pending"))?;
        Ok(found["metadata"]["name"].as_str().unwrap_or_default().to_owned())
    }

    fn a_dry_run_tells_and_approves_nothing(&mut self) -> Result<()> {
        eventually("API server", PATIENCE, || {
            self.control_plane.check_kubelet()?;
            self.target.run(&["get", "serviceaccount", "default"])
        })?;
        self.target.apply(&pod("cp1").to_string())?;
        eventually("pod on cp1", PATIENCE, || self.target.check_condition(&["pod", "cp1"], "Ready"))?;
        let request = eventually("request of cp1", PATIENCE, || self.pending_of("system:node:cp1", SERVING))?;
        let told = eventually("Event of the dry run", PATIENCE, || self.told("AllRulesPassed", &request))?;
        ensure!(told.contains("dry run: all ") && told.contains("rules passed"), "{told}");
        self.counted(&[r#"verdict="approve""#.to_owned(), r#"dry_run="true""#.to_owned()])?;
        let explained = self.explain(&request)?;
        ensure!(explained.status == Some(0) && explained.answer["dryRun"] == true, "{explained:?}");
        let found = self.target.json(&["get", "csr", &request])?;
        ensure!(found["status"]["conditions"].is_null(), "{found}");
        let refused = self.log_of("cp1").err().context("a kubelet without a certificate shows a log")?;
        ensure!(format!("{refused:#}").contains("tls: internal error"), "{refused:#}");
        Ok(())
    }

    fn once_the_operator_judges_a_fresh_node_serves(&self) -> Result<()> {
        let request = self.pending_of("system:node:cp1", SERVING)?;
        self.patch_policy(&json!({"kubeletServing": {"dryRun": false}}))?;
        let condition = verdict(&self.target, &request)?;
        ensure!(condition["type"] == "Approved" && condition["reason"] == "AllRulesPassed", "{condition}");
        let message = condition["message"].as_str().unwrap_or_default();
        ensure!(message.contains(&format!("CertificatePolicy {POLICY}")), "{condition}");
        eventually("log of the pod on cp1", PATIENCE, || self.log_of("cp1"))?;
        let names = served(&self.control_plane.address(), "-subject -nameopt RFC2253 -ext subjectAltName")?;
        ensure!(names.contains("subject=CN=system:node:cp1,O=system:nodes"), "{names}");
        ensure!(names.contains(&format!("DNS:cp1, IP Address:{}\n", self.control_plane.address())), "{names}");
        Ok(())
    }

    fn bindings_that_approve_unseen_are_removed(&mut self) -> Result<()> {
        let bindings = ["kubeadm:node-autoapprove-bootstrap", "kubeadm:node-autoapprove-certificate-rotation"];
        let there = |name: &&str| self.target.run(&["get", "clusterrolebinding", name]).is_ok();
        ensure!(
            bindings.iter().all(there),
            "a cluster without a policy for client certificates needs kubeadm's bindings"
        );
        self.patch_policy(&json!({"kubeletClient": {"enabled": true}}))?;
        eventually("end of the bindings", PATIENCE, || {
            ensure!(!bindings.iter().any(there), "a binding is still there");
            Ok(())
        })?;
        let requests = self.target.json(&["get", "csr"])?;
        let unseen = items(&requests).filter(|request| request["status"]["conditions"][0]["reason"] == "AutoApproved");
        self.unseen = unseen.filter_map(|request| request["metadata"]["name"].as_str().map(str::to_owned)).collect();
        Ok(())
    }

    fn a_token_is_good_for_its_pools_machines_only(&self) -> Result<String> {
        let secret = format!("{CLUSTER}-workers-bootstrap");
        let script = eventually("join data", PATIENCE, || self.admin().secret_text(&secret, "value"))?;
        let token = script.lines().find_map(|line| line.trim().strip_prefix("token: ")).context("no token in it")?;
        let server = format!("--server=https://{}:6443", self.control_plane.address());
        let token = format!("--token={token}");
        let credential = [&server, "--certificate-authority=/etc/kubernetes/pki/ca.crt", &token];
        let machine = &self.control_plane;
        let requests = [
            request(machine, "token-rack", "rack1", None)?,
            request(machine, "token-control-plane", "cp1", None)?,
            request(machine, "token-stranger", "stranger", None)?,
            request(machine, "token-serving", "worker-7", Some("DNS:worker-7"))?,
        ];
        submit(machine, &credential, &requests)?;
        self.is_denied("token-rack", CLIENT, "AnotherPoolsNode", "declared-by-pool", "rack1")?;
        self.is_denied("token-control-plane", CLIENT, "AnotherPoolsNode", "declared-by-pool", "cp1")?;
        self.is_denied("token-serving", SERVING, "RequesterNotANode", "requester", "system:bootstrap:")?;
        self.waits("token-stranger", "NodeNotDeclared")?;
        // The first one who asks in a name is let in, and no second one.
        submit(machine, &credential, &[request(machine, "token-first", "worker-5", None)?])?;
        ensure!(verdict(&self.target, "token-first")?["type"] == "Approved", "a token is of no use");
        submit(machine, &credential, &[request(machine, "token-second", "worker-5", None)?])?;
        self.waits("token-second", "NodeAlreadyAdmitted")?;
        // It would wait for as long as the policy lets it, and the pool say so.
        self.target.run(&["delete", "csr", "token-second"])?;
        Ok(script)
    }

    fn a_worker_joins_by_keyplanes_approval(&mut self, script: &str) -> Result<()> {
        self.worker.put_pod_network("10.244.1.0/24")?;
        join(&mut self.worker, script, &image::for_any_node(self.lab.parts())?)?;
        eventually("worker that is Ready", PATIENCE, || {
            self.worker.check_kubelet()?;
            self.target.check_condition(&["node", "worker-1"], "Ready")
        })?;
        let requests = self.target.json(&["get", "csr"])?;
        let mut joined = items(&requests).filter(|request| {
            let by_token =
                request["spec"]["username"].as_str().is_some_and(|user| user.starts_with("system:bootstrap:"));
            let condition = &request["status"]["conditions"][0];
            by_token && request["metadata"]["name"] != "token-first" && condition["type"] == "Approved"
        });
        let approved = joined.next().context("no request of a token is approved")?;
        ensure!(approved["status"]["conditions"][0]["reason"] == "AllRulesPassed", "{approved}");
        ensure!(joined.next().is_none(), "more than the worker's request is approved: {requests}");
        self.target.apply(&pod("worker-1").to_string())?;
        eventually("log of the pod on the worker", PATIENCE, || self.log_of("worker-1"))
    }

    /// The node itself, with its own credential, which lets it write what it likes into its own status.
    fn a_node_that_lies_about_its_addresses_is_refused(&self) -> Result<()> {
        let subnet = self.lab.site().subnet;
        let (endpoint, anothers, nobodys) =
            (self.control_plane.address(), subnet.address(ANOTHERS), subnet.address(NOBODYS));
        let own = self.worker.address();
        let names = |address: &str| format!("DNS:worker-1,IP:{own},IP:{address}");
        let machine = &self.worker;
        let requests = [
            request(machine, "lie-endpoint", "worker-1", Some(&names(&endpoint)))?,
            request(machine, "lie-anothers", "worker-1", Some(&names(&anothers)))?,
            request(machine, "lie-nobodys", "worker-1", Some(&names(&nobodys)))?,
        ];
        let claimed: Vec<_> = [&own, &endpoint, &anothers, &nobodys]
            .map(|address| json!({"type": "InternalIP", "address": address}))
            .into_iter()
            .chain([json!({"type": "Hostname", "address": "worker-1"})])
            .collect();
        let claim = json!({"status": {"addresses": claimed}});
        let refused = patch_status_as_node(machine, &endpoint, "cp1", &claim);
        let refused = refused.err().context("NodeRestriction is off")?;
        ensure!(format!("{refused:#}").contains("not allowed to modify node"), "{refused:#}");
        patch_status_as_node(machine, &endpoint, "worker-1", &claim)?;
        // The kubelet would put its status right within ten seconds.
        let node = self.target.run(&["get", "node", "worker-1", "-o", "jsonpath={.status.addresses}"])?;
        ensure!(node.contains(&nobodys), "the Node does not claim the addresses: {node}");
        let credential = ["--kubeconfig=/etc/kubernetes/kubelet.conf"];
        submit(machine, &credential, &requests)?;
        // The API server itself asks who it is that says so.
        let another = request(machine, "lie-another-node", "cp1", Some("DNS:cp1"))?;
        let refused =
            submit(machine, &credential, &[another]).err().context("a node may ask in the name of another")?;
        ensure!(format!("{refused:#}").contains("CN=system:node:worker-1"), "{refused:#}");
        self.is_denied("lie-endpoint", SERVING, "ReservedAddress", "reserved-addresses", &endpoint)?;
        self.is_denied("lie-anothers", SERVING, "AnotherNodesAddress", "reserved-addresses", "rack1")?;
        self.is_denied("lie-nobodys", SERVING, "AddressNotDeclared", "declared-addresses", &nobodys)
    }

    /// The machine gets the address of one that is gone, whose Node is still there.
    fn a_node_that_moves_waits_for_the_address_and_then_serves_with_it(&mut self) -> Result<()> {
        let (from, to) = (self.worker.address(), self.lab.site().subnet.address(MOVES_TO));
        let gone = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-9"}});
        self.target.apply(&gone.to_string())?;
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": to}]}}).to_string();
        self.target.run(&["patch", "node", "worker-9", "--subresource=status", "--type=merge", "-p", &status])?;
        self.worker.run(&["ip", "addr", "add", &format!("{to}/24"), "dev", "eth0"])?;
        let change = format!("s/--node-ip={from}/--node-ip={to}/");
        self.worker.run(&["sed", "-i", &change, "/var/lib/kubelet/kubeadm-flags.env"])?;
        self.worker.stop_kubelet()?;
        self.worker.start_kubelet()?;
        let request = eventually("request for the new address", PATIENCE, || {
            self.worker.check_kubelet()?;
            let request = self.pending_of("system:node:worker-1", SERVING)?;
            self.waits(&request, "AddressInUse")?;
            Ok(request)
        })?;
        let refused = self.log_of("worker-1").err().context("a certificate for another address is taken")?;
        ensure!(format!("{refused:#}").contains("x509: certificate is valid for"), "{refused:#}");
        // It has lasted for half a minute then.
        eventually("condition of the NodePool", PATIENCE, || {
            let told = self.admin().complaint(&["nodepool", "workers"], "CertificatesApproved")?;
            ensure!(told.contains("AddressInUse") && told.contains(&request) && told.contains("worker-9"), "{told}");
            Ok(())
        })?;
        let told = eventually("Event of the wait", PATIENCE, || self.told("AddressInUse", &request))?;
        ensure!(told.contains(&to) && told.contains("rule reserved-addresses"), "{told}");
        self.target.run(&["delete", "node", "worker-9"])?;
        let condition = verdict(&self.target, &request)?;
        ensure!(condition["type"] == "Approved", "{condition}");
        eventually("log of the pod after the move", PATIENCE, || self.log_of("worker-1"))?;
        let names = served(&to, "-ext subjectAltName")?;
        ensure!(names.contains(&format!("DNS:worker-1, IP Address:{to}\n")), "{names}");
        eventually("end of the NodePool's complaint", PATIENCE, || {
            self.admin().check_condition(&["nodepool", "workers"], "CertificatesApproved")
        })
    }

    /// Two renewals in a row of the serving certificate of one kubelet, and one of a client certificate by the node itself.
    fn certificates_of_live_kubelets_are_renewed(&self, serials: &mut BTreeSet<String>) -> Result<()> {
        let began = Instant::now();
        while serials.len() < 3 {
            // Not once while it renews does it fail to serve.
            self.log_of("cp1").with_context(|| format!("after the serving certificates {serials:?}"))?;
            serials.insert(served_serial(&self.control_plane.address())?);
            ensure!(began.elapsed() < PATIENCE, "cp1 has served with {serials:?} only");
            sleep(Duration::from_millis(500));
        }
        eventually("renewed client certificate", PATIENCE, || {
            let requests = self.target.json(&["get", "csr"])?;
            let renewed = |request: &&Value| {
                request["spec"]["username"] == "system:node:worker-1"
                    && request["spec"]["signerName"] == CLIENT
                    && request["status"]["certificate"].is_string()
            };
            let renewed = items(&requests).find(renewed).context("the worker has not renewed it yet")?;
            ensure!(renewed["status"]["conditions"][0]["reason"] == "AllRulesPassed", "{renewed}");
            Ok(())
        })?;
        self.log_of("worker-1")
    }

    /// By the CA of the cluster, with the subject and the names of the request, for its one purpose.
    fn what_is_approved_is_signed_and_nothing_else(&self) -> Result<()> {
        let folder = self.lab.folder().join("issued");
        fs::create_dir_all(&folder)?;
        let authority = folder.join("ca.crt");
        fs::write(&authority, self.control_plane.read_file("/etc/kubernetes/pki/ca.crt")?)?;
        let mut counts = [0, 0];
        for request in items(&self.target.json(&["get", "csr"])?) {
            let (name, condition) = (&request["metadata"]["name"], &request["status"]["conditions"][0]);
            if condition["type"] != "Approved" {
                ensure!(request["status"]["certificate"].is_null(), "{name} is signed and not approved: {request}");
                continue;
            }
            if name.as_str().is_some_and(|name| self.unseen.contains(name)) {
                continue;
            }
            ensure!(condition["reason"] == "AllRulesPassed", "{name} is approved by somebody else: {request}");
            let issued = eventually("issued certificate", PATIENCE, || {
                let request = self.target.json(&["get", "csr", name.as_str().unwrap_or_default()])?;
                let issued = request["status"]["certificate"].as_str().context("approved but not issued")?;
                Ok(BASE64_STANDARD.decode(issued)?)
            })?;
            let certificate = folder.join("issued.crt");
            fs::write(&certificate, issued)?;
            let asked = folder.join("asked.csr");
            fs::write(&asked, BASE64_STANDARD.decode(request["spec"]["request"].as_str().unwrap_or_default())?)?;
            let serving = request["spec"]["signerName"] == SERVING;
            counts[usize::from(serving)] += 1;
            let openssl = |arguments: &[&str], file: &std::path::Path| {
                command::run(Command::new("openssl").args(arguments).arg(file)).with_context(|| format!("{name}"))
            };
            let purposes = if serving { ["sslserver", "sslclient"] } else { ["sslclient", "sslserver"] };
            let authority = authority.to_string_lossy();
            // Some have ended by now: they are verified as of their last second.
            let end = openssl(&["x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in"], &certificate)?;
            let end = end.trim().trim_start_matches("notAfter=").replacen(' ', "T", 1);
            let end = (end.parse::<jiff::Timestamp>()?.as_second() - 1).to_string();
            let verify = |purpose: &str| {
                let line = ["verify", "-x509_strict", "-attime", &end, "-purpose", purpose, "-CAfile", &authority];
                openssl(&line, &certificate)
            };
            verify(purposes[0])?;
            ensure!(verify(purposes[1]).is_err(), "{name} is good for {} too", purposes[1]);
            let subject = |kind: &str, file| openssl(&[kind, "-noout", "-subject", "-in"], file);
            ensure!(subject("x509", &certificate)? == subject("req", &asked)?, "{name} has another subject");
            let names = |kind: &str, file| {
                let text = openssl(&[kind, "-noout", "-text", "-in"], file)?;
                let mut lines = text.lines().skip_while(|line| !line.contains("Subject Alternative Name"));
                Ok::<_, anyhow::Error>(lines.nth(1).unwrap_or_default().trim().to_owned())
            };
            let (issued, asked) = (names("x509", &certificate)?, names("req", &asked)?);
            ensure!(issued == asked && issued.is_empty() != serving, "{name}: {issued:?}, asked was {asked:?}");
        }
        // cp1's three, the worker's two; the worker's first client certificate and a renewal.
        let [clients, serving] = counts;
        if clients < 2 || serving < 5 {
            bail!("{clients} client and {serving} serving certificates were issued");
        }
        Ok(())
    }
}
