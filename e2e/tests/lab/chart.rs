//! The chart: what it refuses, that its rights are used and enough, and a release of it on a real node.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use keyplane_e2e::audit::Request;
use keyplane_e2e::helm::{CHART, KINDS_CHART, Right, rights};
use keyplane_e2e::image::{Image, Profile};
use keyplane_e2e::installation::{PATIENCE, cluster_spec, install_kinds};
use keyplane_e2e::kubectl::documents;
use keyplane_e2e::machine::lab_kubelet_settings;
use keyplane_e2e::{Helm, Kubectl, Lab, Machine, Management, Operator, Parts, command, eventually, image, operator};
use serde_json::{Value, json};

const SERVING: &str = "kubernetes.io/kubelet-serving";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const BOTH_SIGNERS: &str = r#"signers=["kubernetes.io/kubelet-serving","kubernetes.io/kube-apiserver-client-kubelet"]"#;

pub(crate) fn the_charts_are_sound_and_values_that_make_no_sense_are_refused() -> Result<()> {
    let parts = Parts::build()?;
    let helm = Helm::new(&parts)?;
    helm.run(&["lint", "--strict", CHART, KINDS_CHART])?;
    for (values, told) in [
        (&[r#"mode="everything""#][..], "/mode"),
        (&[r#"mdoe="approver""#], "mdoe"),
        (&["replicas=0"], "/replicas"),
        (&[r#"mode="approver""#, "signers=[]"], "/signers"),
        (&[r#"signers=["kubernetes.io/kube-apiserver-client"]"#], "/signers/0"),
        (&[r#"image.digest="latest""#], "/image/digest"),
        (&[r#"policy={"aprover":{}}"#], "aprover"),
        (&["serviceAccount.create=false"], "serviceAccount.name"),
        (&["port=80"], "/port"),
    ] {
        let refused = helm.template("keyplane-system", values);
        let message = format!("{:#}", refused.err().with_context(|| format!("{values:?} was let through"))?);
        ensure!(message.contains(told), "{values:?}: {message}");
    }
    let kinds = |objects: &[Value]| objects.iter().map(|object| object["kind"].clone()).collect::<Vec<_>>();
    let rendered = helm.template("keyplane-system", &["replicas=1", "metrics.serviceMonitor.enabled=true"])?;
    ensure!(!kinds(&rendered).contains(&json!("PodDisruptionBudget")), "{:?}", kinds(&rendered));
    ensure!(kinds(&rendered).contains(&json!("ServiceMonitor")), "{:?}", kinds(&rendered));
    let digest = format!("sha256:{}", "0".repeat(64));
    let rendered = helm.template(
        "keyplane-system",
        &[
            &format!(r#"image={{"repository":"mirror.example/keyplane","digest":"{digest}"}}"#),
            r#"serviceAccount={"create":false,"name":"there"}"#,
            "hostNetwork=true",
        ],
    )?;
    let of_kind = |kind: &str| rendered.iter().find(|object| object["kind"] == kind);
    ensure!(of_kind("ServiceAccount").is_none(), "a ServiceAccount that is not wanted");
    let pod = &of_kind("Deployment").context("no Deployment")?["spec"]["template"]["spec"];
    ensure!(pod["containers"][0]["image"] == format!("mirror.example/keyplane@{digest}"), "{pod}");
    ensure!(pod["hostNetwork"] == true && pod["serviceAccountName"] == "there", "{pod}");
    ensure!(of_kind("RoleBinding").context("no RoleBinding")?["subjects"][0]["name"] == "there");
    Ok(())
}

/// A policy for this cluster's own kubelets, by which the workers may have a certificate of each kind.
fn own_policy(namespace: &str, dry_run: bool) -> Value {
    json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "CertificatePolicy",
        "metadata": {"name": "own", "namespace": namespace},
        "spec": {
            "approver": {
                "nodes": [{"namePattern": "worker-*", "addressCIDRs": ["192.0.2.0/24"]}],
                "reserved": {"serviceCIDRs": ["10.96.0.0/16"], "endpoints": ["127.0.0.1"]},
            },
            "kubeletServing": {"dryRun": dry_run},
            "kubeletClient": {"enabled": true},
        },
    })
}

/// How many workers there are: enough that their requests are not all judged in the same moment.
const WORKERS: u8 = 24;

/// The PKCS #10 requests of one worker.
struct Worker {
    name: String,
    address: String,
    serving: String,
    client: String,
}

impl Worker {
    fn new(folder: &Path, number: u8) -> Result<Self> {
        let (name, address) = (format!("worker-{number}"), format!("192.0.2.{number}"));
        let key = folder.join(format!("{name}.key")).to_string_lossy().into_owned();
        let subject = format!("/O=system:nodes/CN=system:node:{name}");
        command::run(Command::new("openssl").args([
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            &key,
        ]))?;
        let line = ["req", "-new", "-key", &key, "-subj", &subject];
        let names = format!("subjectAltName=DNS:{name},IP:{address}");
        let serving = command::run(Command::new("openssl").args(line).args(["-addext", &names]))?;
        let client = command::run(Command::new("openssl").args(line))?;
        Ok(Self { name, address, serving, client })
    }

    /// Makes the Node, and says its addresses as its kubelet would.
    fn join(&self, admin: &Kubectl) -> Result<()> {
        admin.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name}}).to_string())?;
        let addresses =
            json!([{"type": "InternalIP", "address": self.address}, {"type": "Hostname", "address": self.name}]);
        let patch = json!({"status": {"addresses": addresses}}).to_string();
        admin.run(&["patch", "node", &self.name, "--subresource=status", "--type=merge", "-p", &patch]).map(|_| ())
    }

    /// Sends a request as the node; an administrator may act as anybody.
    fn ask(&self, admin: &Kubectl, name: &str, signer: &str, round: u32) -> Result<()> {
        let (request, usage) =
            if signer == SERVING { (&self.serving, "server auth") } else { (&self.client, "client auth") };
        let request = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": name, "labels": {"round": round.to_string()}},
            "spec": {
                "signerName": signer, "usages": ["digital signature", usage], "request": BASE64_STANDARD.encode(request),
            },
        });
        let user = format!("--as=system:node:{}", self.name);
        let mut kubectl = admin.command(&["create", &user, "--as-group=system:nodes", "-f", "-"]);
        command::run_with_input(&mut kubectl, request.to_string().as_bytes()).map(|_| ())
    }
}

fn is_approved(admin: &Kubectl, request: &str) -> Result<()> {
    admin.check_condition(&["csr", request], "Approved")
}

/// The requests of a user so far, of which none was refused.
fn requests_of(management: &Management, user: &str) -> Result<Vec<Request>> {
    let mut requests = management.requests()?;
    requests.retain(|request| request.user == user);
    let refused: Vec<_> = requests.iter().filter(|request| request.code == 403).collect();
    ensure!(refused.is_empty(), "refused: {refused:?}");
    Ok(requests)
}

/// Which of the chart's rights the user has not used. The right to approve for a signer is asked for by the API server
/// itself: it was used where an approval of a request for that signer went through.
fn unused(rendered: &[Value], requests: &[Request], approved: &BTreeSet<&str>) -> Result<Vec<Right>> {
    let all = rights(rendered)?;
    ensure!(all.len() > 10, "{all:?}");
    let unused = all.into_iter().filter(|right| match right.resource.as_str() {
        "signers" => !approved.contains(right.name.as_str()),
        _ => !requests.iter().any(|request| right.was_used_by(request)),
    });
    Ok(unused.collect())
}

/// What an approver does in its life: it approves, tells, tells again, and is overtaken by a change of what it judges.
fn live_as_an_approver(
    admin: &Kubectl,
    workers: &[Worker],
    namespace: &str,
    was_overtaken: &dyn Fn() -> Result<bool>,
) -> Result<()> {
    admin.apply(&own_policy(namespace, true).to_string())?;
    let policy = ["certificatepolicy", "own", "-n", namespace];
    eventually("policy in force", PATIENCE, || admin.check_condition(&policy, "ApproverInForce"))?;
    let named = |name: &str| format!("{namespace}-{name}");
    let first = workers.first().context("no worker")?;
    first.ask(admin, &named("dry"), SERVING, 0)?;
    first.ask(admin, &named("client"), CLIENT, 0)?;
    let told = |times: u64| {
        eventually("Event about what it would do", PATIENCE, || {
            let events = admin.json(&["get", "events.v1.events.k8s.io", "-n", "default"])?;
            let of_dry = |event: &&Value| event["regarding"]["name"] == named("dry");
            let event = events["items"].as_array().into_iter().flatten().find(of_dry).context("no Event")?;
            ensure!(event["series"]["count"].as_u64().unwrap_or(1) >= times, "{event}");
            Ok(())
        })
    };
    told(1)?;
    eventually("client certificate", PATIENCE, || is_approved(admin, &named("client")))?;
    // Told anew after a change of the policy: the same Event, once more.
    let mut dry = own_policy(namespace, true);
    dry["spec"]["signingRequests"] = json!({"minRSABits": 3072});
    admin.apply(&dry.to_string())?;
    told(2)?;
    // Requests that change while they are judged: some verdict is about what is no longer there, and is judged again.
    for round in 1..10 {
        for worker in workers {
            worker.ask(admin, &named(&format!("{round}-{}", worker.name)), SERVING, round)?;
        }
        let judged = AtomicBool::new(false);
        let change = || -> Result<()> {
            for lap in 0.. {
                if judged.load(Ordering::Relaxed) {
                    break;
                }
                let (which, what) = (format!("round={round}"), format!("lap={lap}"));
                admin.run(&["annotate", "csr", "--overwrite", "-l", &which, &what])?;
            }
            Ok(())
        };
        thread::scope(|scope| -> Result<()> {
            let changes = [scope.spawn(change), scope.spawn(change)];
            let applied = admin.apply(&own_policy(namespace, false).to_string());
            let approved = eventually("approvals", PATIENCE, || {
                workers.iter().try_for_each(|worker| is_approved(admin, &named(&format!("{round}-{}", worker.name))))
            });
            judged.store(true, Ordering::Relaxed);
            for change in changes {
                // Two that write at the same time are in each other's way.
                let _ = change.join().map_err(|_| anyhow!("a thread has ended"))?;
            }
            applied.and(approved)
        })?;
        if was_overtaken()? {
            return Ok(());
        }
        admin.apply(&dry.to_string())?;
    }
    bail!("no verdict was overtaken")
}

pub(crate) fn every_right_of_the_chart_is_used_and_no_other_is_needed() -> Result<()> {
    let lab = Lab::start()?;
    // An API server that streams lists is asked for no other: the right to list is for those that do not.
    let management = Management::start_without_streamed_lists(&lab)?;
    let admin = management.admin().clone();
    install_kinds(&management)?;
    let helm = Helm::new(lab.parts())?;
    let workers = (1..=WORKERS).map(|number| Worker::new(lab.folder(), number)).collect::<Result<Vec<_>>>()?;
    workers.iter().try_for_each(|worker| worker.join(&admin))?;
    let both = BTreeSet::from([SERVING, CLIENT]);
    let was_overtaken = |user: &'static str| {
        let management = &management;
        move || {
            let requests = requests_of(management, user)?;
            Ok(requests.iter().any(|request| request.resource == "certificatesigningrequests" && request.verb == "get"))
        }
    };

    let rendered = helm.template("keyplane-system", &[r#"mode="approver""#, BOTH_SIGNERS])?;
    admin.run(&["create", "namespace", "keyplane-system"])?;
    let user = management.add_user_with("approver", &rendered)?;
    let mut approver = Operator::start_with(
        &lab,
        &user,
        "approver-0",
        &["--mode", "approver", "--lease-namespace", "keyplane-system"],
    )?;
    live_as_an_approver(&admin, &workers, "keyplane-system", &was_overtaken("approver"))?;
    approver.stop()?;
    let unused_rights = unused(&rendered, &requests_of(&management, "approver")?, &both)?;
    ensure!(unused_rights.is_empty(), "the approver has not used {unused_rights:#?}");

    let rendered = helm.template("default", &[BOTH_SIGNERS, "nodeAgents=true"])?;
    let user = management.add_user_with("operator", &rendered)?;
    let mut operator = Operator::start(&lab, &user, "operator-0")?;
    live_as_an_approver(&admin, &workers, "default", &was_overtaken("operator"))?;
    live_as_an_operator(&admin)?;
    operator.stop()?;
    let unused_rights = unused(&rendered, &requests_of(&management, "operator")?, &both)?;
    ensure!(unused_rights.is_empty(), "the operator has not used {unused_rights:#?}");
    Ok(())
}

/// A cluster and a pool come, are tampered with and mended, and go with their keys.
fn live_as_an_operator(admin: &Kubectl) -> Result<()> {
    let mut cluster = cluster_spec("demo", "192.0.2.1");
    cluster["spec"]["deletionPolicy"] = "Delete".into();
    cluster["spec"]["nodeAgent"] = json!({"managementServer": "https://192.0.2.9:6443"});
    let pool = json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "NodePool", "metadata": {"name": "workers"},
        "spec": {"clusterRef": {"name": "demo"}, "machines": [{"name": "worker1", "addresses": ["192.0.2.31"]}]},
    });
    admin.apply(&documents(&[cluster, pool]))?;
    eventually("cluster", PATIENCE, || admin.check_condition(&["clusterspec", "demo"], "Rendered"))?;
    let patch = |object: &[&str], patch: Value| {
        let patch = patch.to_string();
        admin.run(&[&["patch"], object, &["--type=merge", "-p", &patch]].concat())
    };
    patch(&["configmap", "demo-cp1-config"], json!({"data": {"etcd.yaml": "broken"}}))?;
    patch(&["secret", "demo-cp1-pki"], json!({"data": {"apiserver.crt": null, "apiserver.key": null}}))?;
    eventually("files put right", PATIENCE, || {
        ensure!(admin.json(&["get", "configmap", "demo-cp1-config"])?["data"]["etcd.yaml"] != "broken");
        ensure!(admin.json(&["get", "secret", "demo-cp1-pki"])?["data"]["apiserver.key"].is_string());
        Ok(())
    })?;
    the_agents_have_what_they_should(admin)?;
    eventually("pool that is held", PATIENCE, || {
        let pool = admin.json(&["get", "nodepool", "workers"])?;
        ensure!(
            pool["metadata"]["finalizers"][0] == "keyplane.io/nodepool-cleanup" && pool["status"].is_object(),
            "{pool}"
        );
        Ok(())
    })?;
    admin.run(&["delete", "nodepool", "workers", "--timeout=60s"])?;
    admin.run(&["annotate", "clusterspec", "demo", "keyplane.io/confirm-deletion=demo"])?;
    admin.run(&["delete", "clusterspec", "demo", "--timeout=60s"])?;
    let kinds = "serviceaccounts,roles,rolebindings,leases,secrets";
    let left = admin.run(&["get", kinds, "-l", "keyplane.io/cluster=demo", "-o", "name"])?;
    ensure!(left.is_empty(), "it has left {left}");
    Ok(())
}

/// What an agent has is put right; a machine that leaves takes it along.
fn the_agents_have_what_they_should(admin: &Kubectl) -> Result<()> {
    let token = || admin.secret_text("demo-cp1-agent-bootstrap", "token");
    eventually("token", PATIENCE, token)?;
    let patch = |kind: &str, name: &str, patch: Value| {
        admin.run(&["patch", kind, name, "--type=merge", "-p", &patch.to_string()])
    };
    patch("serviceaccount", "demo-cp1-agent", json!({"automountServiceAccountToken": true}))?;
    patch("role", "demo-cp1-agent", json!({"rules": []}))?;
    patch("rolebinding", "demo-cp1-agent", json!({"subjects": []}))?;
    eventually("rights put right", PATIENCE, || {
        let account = admin.json(&["get", "serviceaccount", "demo-cp1-agent"])?;
        ensure!(account["automountServiceAccountToken"] == false, "{account}");
        let role = admin.json(&["get", "role", "demo-cp1-agent"])?;
        ensure!(role["rules"].as_array().is_some_and(|rules| rules.len() == 4), "{role}");
        let binding = admin.json(&["get", "rolebinding", "demo-cp1-agent"])?;
        ensure!(binding["subjects"][0]["name"] == "demo-cp1-agent", "{binding}");
        Ok(())
    })?;
    // A ServiceAccount of somebody else is not touched.
    ensure!(admin.run(&["get", "serviceaccount", "default", "-o", "name"])?.contains("default"));
    Ok(())
}

const NAMESPACE: &str = "keyplane-system";

/// A cluster of one machine from what `keyplane render` wrote, in which nothing of Keyplane runs.
struct Site<'a> {
    lab: &'a Lab,
    machine: Machine,
    admin: Kubectl,
    helm: Helm,
}

pub(crate) fn a_release_approves_its_own_clusters_kubelets_and_becomes_an_operator() -> Result<()> {
    let began = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());
    let lab = Lab::start()?;
    let keyplane = image::keyplane(lab.parts(), Profile::Lab)?;
    tell("the image is made");
    let mut site = Site::boot(&lab, &keyplane)?;
    tell("the node waits for a pod network, and its kubelet for a serving certificate");
    site.install_the_approver()?;
    site.the_kubelet_has_its_certificate("of a node without a pod network")?;
    tell("the kubelet's certificate is approved, and logs can be read");
    site.with_a_pod_network_there_are_two()?;
    tell("both replicas are Ready, in a namespace that is restricted");
    site.the_approver_may_do_nothing_else()?;
    site.another_replica_takes_over()?;
    tell("the other replica has approved the next certificate");
    site.upgraded_it_is_an_operator()?;
    tell("a ClusterSpec is Rendered");
    site.uninstalled_it_leaves_nothing()?;
    tell("nothing is left");
    Ok(())
}

impl<'a> Site<'a> {
    fn boot(lab: &'a Lab, keyplane: &Image) -> Result<Self> {
        let mut machine = lab.machine("cp1")?;
        let (spec, out) = (lab.folder().join("cluster.json"), lab.folder().join("rendered"));
        let cluster = json!({
            "apiVersion": "keyplane.io/v1alpha1", "kind": "ClusterSpec", "metadata": {"name": "own", "namespace": "default"},
            "spec": {
                "kubernetesVersion": "v1.37.2",
                "controlPlaneEndpoint": {"host": machine.address()},
                "controlPlane": {
                    "nodes": [{"name": "cp1", "addresses": [machine.address()]}],
                    "taints": [],
                    "kubelet": lab_kubelet_settings(&machine),
                },
                "network": {"serviceCIDRs": ["10.96.0.0/16"], "podCIDRs": ["10.244.0.0/16"]},
                "addons": {
                    "coreDNS": {"enabled": false},
                    "kubeProxy": {"config": {"conntrack": {"maxPerCore": 0}}},
                },
            },
        });
        fs::write(&spec, cluster.to_string())?;
        command::run(Command::new(operator::binary()?).arg("render").arg("-f").arg(&spec).arg("-o").arg(&out))?;
        put_folder(&machine, &out.join("cp1"), Path::new("/"))?;
        machine.start_containerd()?;
        machine.import_images(&image::for_whole_cluster(lab.parts())?)?;
        machine.load_images(std::slice::from_ref(keyplane))?;
        machine.start_kubelet()?;
        let kubeconfig = lab.folder().join("own.kubeconfig");
        fs::copy(out.join("cp1/etc/kubernetes/super-admin.conf"), &kubeconfig)?;
        let admin = Kubectl::new(lab.parts(), &kubeconfig);
        eventually("API server", PATIENCE, || {
            machine.check_kubelet()?;
            admin.run(&["get", "--raw", "/readyz"])
        })?;
        for file in files_below(&out.join("objects/target"))? {
            admin.run(&["apply", "-f", &file.to_string_lossy()])?;
        }
        eventually("node", PATIENCE, || {
            machine.check_kubelet()?;
            let told = admin.complaint(&["node", "cp1"], "Ready")?;
            ensure!(told.contains("network"), "{told}");
            Ok(())
        })?;
        let helm = Helm::of(lab.parts(), &admin)?;
        Ok(Self { lab, machine, admin, helm })
    }

    /// In the machine's own network, with a policy for this one machine.
    fn install_the_approver(&self) -> Result<()> {
        self.helm.run(&["install", "keyplane-crds", KINDS_CHART, "-n", NAMESPACE, "--create-namespace"])?;
        let values = json!({
            "mode": "approver",
            "hostNetwork": true,
            "replicas": 1,
            "policy": {"approver": {
                "machines": [{"name": "cp1", "addresses": [self.machine.address()]}],
                "reserved": {
                    "serviceCIDRs": ["10.96.0.0/16"], "podCIDRs": ["10.244.0.0/16"], "endpoints": [self.machine.address()],
                },
            }},
        });
        let file = self.lab.folder().join("values.json");
        fs::write(&file, values.to_string())?;
        let line = ["install", "keyplane", CHART, "-n", NAMESPACE, "-f", &file.to_string_lossy()];
        let notes = self.helm.run(&[&line[..], &["--wait", "--timeout", "120s"]].concat())?;
        ensure!(notes.contains("runs as approver") && notes.contains("`privileged`"), "{notes}");
        let policy = ["certificatepolicy", "keyplane", "-n", NAMESPACE];
        eventually("policy in force", PATIENCE, || self.admin.check_condition(&policy, "ApproverInForce"))
    }

    fn with_a_pod_network_there_are_two(&mut self) -> Result<()> {
        self.machine.put_pod_network("10.244.0.0/24")?;
        eventually("node that is Ready", PATIENCE, || {
            self.machine.check_kubelet()?;
            self.admin.check_condition(&["node", "cp1"], "Ready")
        })?;
        self.admin.run(&["label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted"])?;
        self.upgrade("hostNetwork=false,replicas=2")?;
        let deployment = self.admin.json(&["get", "deployment", "keyplane", "-n", NAMESPACE])?;
        ensure!(deployment["status"]["readyReplicas"] == 2, "{}", deployment["status"]);
        ensure!(deployment["status"]["updatedReplicas"] == 2, "{}", deployment["status"]);
        eventually("leader", PATIENCE, || self.leader()).map(|_| ())
    }

    fn upgrade(&self, values: &str) -> Result<()> {
        let line = ["upgrade", "keyplane", CHART, "-n", NAMESPACE, "--reuse-values", "--set", values];
        self.helm.run(&[&line[..], &["--wait", "--timeout", "120s"]].concat()).map(|_| ())
    }

    fn pods(&self) -> Result<Vec<String>> {
        let pods = self.admin.json(&["get", "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=keyplane"])?;
        let running =
            pods["items"].as_array().into_iter().flatten().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        Ok(running.filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned())).collect())
    }

    fn leader(&self) -> Result<String> {
        let lease = self.admin.json(&["get", "lease", "keyplane", "-n", NAMESPACE])?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        ensure!(self.pods()?.contains(&holder), "the Lease is {holder}'s, which is no Pod");
        Ok(holder)
    }

    fn serving_requests(&self) -> Result<Vec<Value>> {
        let requests = self.admin.json(&["get", "csr", "--field-selector", &format!("spec.signerName={SERVING}")])?;
        Ok(requests["items"].as_array().cloned().unwrap_or_default())
    }

    fn the_kubelet_has_its_certificate(&self, whose: &str) -> Result<()> {
        eventually(&format!("certificate {whose}"), PATIENCE, || {
            let requests = self.serving_requests()?;
            let newest = requests
                .iter()
                .max_by_key(|request| request["metadata"]["creationTimestamp"].as_str().map(str::to_owned));
            let newest = newest.context("the kubelet has asked for nothing")?;
            let condition = &newest["status"]["conditions"][0];
            ensure!(condition["type"] == "Approved" && newest["status"]["certificate"].is_string(), "{newest}");
            let message = condition["message"].as_str().unwrap_or_default();
            ensure!(message.contains("CertificatePolicy keyplane"), "{message}");
            Ok(())
        })?;
        // The API server asks the kubelet, and trusts only what this cluster has signed.
        let leader = self.leader()?;
        eventually("log of the leader", PATIENCE, || {
            let log = self.admin.run(&["logs", "-n", NAMESPACE, &leader])?;
            ensure!(log.contains("CSR evaluated"), "{log}");
            Ok(())
        })
    }

    /// What the API server would answer to the release's ServiceAccount. The words are a verb, a resource with its group
    /// behind a dot and its subresource behind a slash, a namespace (`-` where there is none), and perhaps a name.
    fn may(&self, words: &str) -> Result<bool> {
        let words: Vec<_> = words.split(' ').collect();
        let (resource, subresource) = words[1].split_once('/').unwrap_or((words[1], ""));
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": format!("system:serviceaccount:{NAMESPACE}:keyplane"),
                "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{NAMESPACE}"), "system:authenticated"],
                "resourceAttributes": {
                    "verb": words[0], "group": group, "resource": resource, "subresource": subresource,
                    "namespace": words[2].trim_matches('-'), "name": words.get(3),
                },
            },
        });
        let mut kubectl = self.admin.command(&["create", "-o", "json", "-f", "-"]);
        let answer: Value =
            serde_json::from_str(&command::run_with_input(&mut kubectl, review.to_string().as_bytes())?)?;
        answer["status"]["allowed"].as_bool().context("no answer")
    }

    fn the_approver_may_do_nothing_else(&self) -> Result<()> {
        for words in [
            "list nodes -",
            "patch certificatesigningrequests.certificates.k8s.io/approval -",
            "approve signers.certificates.k8s.io - kubernetes.io/kubelet-serving",
            "update leases.coordination.k8s.io keyplane-system keyplane",
            "create events.events.k8s.io default",
        ] {
            ensure!(self.may(words)?, "the approver may not {words}");
        }
        for words in [
            "get secrets -",
            "get secrets keyplane-system",
            "list configmaps kube-system",
            "list pods keyplane-system",
            "patch nodes - cp1",
            "create certificatesigningrequests.certificates.k8s.io -",
            "patch certificatesigningrequests.certificates.k8s.io/status -",
            "approve signers.certificates.k8s.io - kubernetes.io/kube-apiserver-client-kubelet",
            "approve signers.certificates.k8s.io - kubernetes.io/kube-apiserver-client",
            "sign signers.certificates.k8s.io - kubernetes.io/kubelet-serving",
            "list clusterspecs.keyplane.io -",
            "patch certificatepolicies.keyplane.io keyplane-system keyplane",
            "list certificatepolicies.keyplane.io default",
            "update leases.coordination.k8s.io keyplane-system other",
            "create events.events.k8s.io kube-system",
            "create serviceaccounts/token keyplane-system keyplane",
            "impersonate users -",
        ] {
            ensure!(!self.may(words)?, "the approver may {words}");
        }
        Ok(())
    }

    fn another_replica_takes_over(&mut self) -> Result<()> {
        let first = self.leader()?;
        self.admin.run(&["delete", "pod", &first, "-n", NAMESPACE, "--wait=false"])?;
        let second = eventually("leader that takes over", Duration::from_secs(15), || {
            let leader = self.leader()?;
            ensure!(leader != first, "{leader} still leads");
            Ok(leader)
        })?;
        // A kubelet without its certificate asks for one.
        self.machine.stop_kubelet()?;
        self.machine.run(&["sh", "-c", "rm /var/lib/kubelet/pki/kubelet-server-*"])?;
        let before = self.serving_requests()?.len();
        self.machine.start_kubelet()?;
        eventually("next request", PATIENCE, || {
            self.machine.check_kubelet()?;
            ensure!(self.serving_requests()?.len() > before);
            Ok(())
        })?;
        self.the_kubelet_has_its_certificate("of the kubelet that has lost its own")?;
        ensure!(self.leader()? == second, "a third one leads");
        Ok(())
    }

    fn upgraded_it_is_an_operator(&self) -> Result<()> {
        self.upgrade("mode=operator")?;
        self.admin.apply(&cluster_spec("demo", "192.0.2.1").to_string())?;
        eventually("cluster", PATIENCE, || self.admin.check_condition(&["clusterspec", "demo"], "Rendered"))?;
        self.admin.run(&["get", "secret", "demo-ca"])?;
        Ok(())
    }

    fn uninstalled_it_leaves_nothing(&self) -> Result<()> {
        for release in ["keyplane", "keyplane-crds"] {
            self.helm.run(&["uninstall", release, "-n", NAMESPACE, "--wait", "--timeout", "60s"])?;
        }
        let kinds = self.admin.run(&["api-resources", "--verbs=list", "-o", "name"])?;
        ensure!(!kinds.contains("keyplane.io"), "{kinds}");
        let kinds: Vec<_> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
        eventually("end of everything", PATIENCE, || {
            let ours = self.admin.run(&[
                "get",
                &kinds.join(","),
                "-A",
                "-o",
                "name",
                "-l",
                "app.kubernetes.io/instance=keyplane",
            ])?;
            ensure!(ours.is_empty(), "{ours}");
            let leases = self.admin.run(&["get", "leases", "-n", NAMESPACE, "-o", "name"])?;
            ensure!(leases.is_empty(), "{leases}");
            Ok(())
        })?;
        // Keys are not the release's: they stay.
        self.admin.run(&["get", "secret", "demo-ca"])?;
        Ok(())
    }
}

/// Puts the files below a folder on a machine, with their modes.
fn put_folder(machine: &Machine, folder: &Path, place: &Path) -> Result<()> {
    for file in files_below(folder)? {
        let mode = fs::metadata(&file)?.permissions().mode() & 0o777;
        let path = place.join(file.strip_prefix(folder)?);
        if !path.starts_with("/etc/containerd") {
            machine.put_file(&path.to_string_lossy(), &fs::read(&file)?, mode)?;
        }
    }
    Ok(())
}

/// All files below a folder, by name.
fn files_below(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files_below(&path)?) } else { found.push(path) }
    }
    found.sort();
    Ok(found)
}
