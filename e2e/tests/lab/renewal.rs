//! Certificates are renewed under a cluster that runs: what reloads by itself does so, nothing is restarted, and nobody who
//! asks meanwhile is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use keyplane_e2e::boot::{boot, owners_kubectl};
use keyplane_e2e::installation::{Installation, PATIENCE, bootable_cluster_spec};
use keyplane_e2e::kubectl::documents;
use keyplane_e2e::node_files::{NodeFile, files};
use keyplane_e2e::{Kubectl, Lab, Machine, eventually, image, operator};
use serde_json::{Value, json};

const CLUSTER: &str = "renewed";
const SECRET: &str = "renewed-cp1-pki";
/// The API server looks at its serving pair every minute (`dynamiccertificates`).
const RELOAD: Duration = Duration::from_mins(3);

/// The API server's own certificate is renewed two minutes after it was issued, and the others next year.
fn objects(machine: &Machine) -> String {
    let policy = json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "CertificatePolicy", "metadata": {"name": "short"},
        "spec": {"overrides": [{"certificate": "apiserver", "validity": "20m", "renewBefore": "18m"}]},
    });
    let mut cluster = bootable_cluster_spec(CLUSTER, &machine.address(), slice::from_ref(machine));
    cluster["spec"]["certificatePolicyRef"] = json!({"name": "short"});
    documents(&[policy, cluster])
}

pub(crate) fn certificates_are_renewed_under_a_running_cluster_and_nothing_restarts() -> Result<()> {
    let began = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());
    let lab = Lab::start()?;
    let images = image::all(lab.parts())?;
    let mut machine = lab.machine("cp1")?;
    let mut installation = Installation::start(&lab)?;
    let admin = installation.admin().clone();
    admin.apply(&objects(&machine))?;
    installation.wait_for(CLUSTER, "Rendered")?;
    let target = boot(&lab, &mut installation, CLUSTER, &mut machine, &images, "10.244.0.0/24", &tell)?;
    let load = Load::start(target.clone());
    let pods = containers(&target)?;

    kubeadm_sees_the_same_ends(&machine, &admin)?;
    tell("the table is kubeadm's");
    it_is_renewed_by_the_clock(&admin, &machine)?;
    tell("the API server's certificate was renewed by the clock, and it presents the new one");
    every_certificate_gets_a_new_key_on_request(&lab, &admin, &machine, &target)?;
    tell("every certificate has a new key, and the API server and etcd present theirs");

    ensure!(containers(&target)? == pods, "something was restarted: {pods:?}");
    let (asked, failed) = load.stop();
    tell(&format!("{asked} requests, {failed} failed"));
    ensure!(asked > 50 && failed == 0, "{failed} of {asked} requests failed");
    Ok(())
}

/// Somebody who asks the API server all the time, on a new connection each time.
struct Load {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicUsize>,
    thread: JoinHandle<usize>,
}

impl Load {
    fn start(target: Kubectl) -> Self {
        let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (until, failures) = (Arc::clone(&stop), Arc::clone(&failed));
        let thread = thread::spawn(move || {
            let mut asked = 0;
            while !until.load(Ordering::Relaxed) {
                asked += 1;
                if let Err(error) = target.run(&["get", "--raw", "/api/v1/nodes"]) {
                    eprintln!("request {asked}: {error:#}");
                    failures.fetch_add(1, Ordering::Relaxed);
                }
                sleep(Duration::from_millis(100));
            }
            asked
        });
        Self { stop, failed, thread }
    }

    fn stop(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let asked = self.thread.join().unwrap_or_default();
        (asked, self.failed.load(Ordering::Relaxed))
    }
}

/// The containers of the control plane: another one means a restart.
fn containers(target: &Kubectl) -> Result<BTreeMap<String, String>> {
    let pods = target.json(&["get", "pods", "-n", "kube-system", "-l", "tier=control-plane"])?;
    let pods: BTreeMap<_, _> = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|pod| {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            (name, pod["status"]["containerStatuses"][0]["containerID"].to_string())
        })
        .collect();
    ensure!(pods.len() == 4 && pods.values().all(|id| id.contains("containerd://")), "{pods:?}");
    Ok(pods)
}

/// What Keyplane has for the machine, by path.
fn written(admin: &Kubectl) -> Result<BTreeMap<String, NodeFile>> {
    let secret = admin.json(&["get", "secret", SECRET])?;
    Ok(files(&secret)?.into_iter().map(|file| (file.path.clone(), file)).collect())
}

/// Puts a file in the old one's place in one step: a component that looks at half a certificate may serve another one.
fn replace(machine: &Machine, file: &NodeFile) -> Result<()> {
    let beside = format!("{}.new", file.path);
    machine.put_file(&beside, &file.content, file.mode)?;
    machine.run(&["mv", &beside, &file.path])?;
    Ok(())
}

/// Carries what differs from `before` to the machine, as its owner does.
fn carry(machine: &Machine, before: &BTreeMap<String, NodeFile>, now: &BTreeMap<String, NodeFile>) -> Result<()> {
    for (_, file) in now.iter().filter(|(path, file)| before[*path].content != file.content) {
        replace(machine, file)?;
    }
    Ok(())
}

fn text<'a>(files: &'a BTreeMap<String, NodeFile>, path: &str) -> Result<&'a str> {
    Ok(std::str::from_utf8(&files.get(path).with_context(|| path.to_owned())?.content)?)
}

/// The certificate that is presented at a port, as openssl prints it.
fn presented(machine: &Machine, port: u16, client: Option<&str>) -> Result<String> {
    let client = client.map(|file| format!("-cert {file}.crt -key {file}.key")).unwrap_or_default();
    let connect = format!("openssl s_client -connect {}:{port} {client} </dev/null 2>/dev/null", machine.address());
    machine.run(&["sh", "-c", &format!("{connect} | openssl x509")])
}

/// Waits until what is presented is what the file on the machine says.
fn is_presented(machine: &Machine, port: u16, client: Option<&str>, file: &str) -> Result<()> {
    let wanted = machine.run(&["openssl", "x509", "-in", file])?;
    eventually(&format!("{file} at port {port}"), RELOAD, || {
        ensure!(presented(machine, port, client)? == wanted, "another certificate is presented");
        Ok(())
    })
}

fn check_expiration(admin: &Kubectl, arguments: &[&str]) -> Result<Output> {
    let mut keyplane = Command::new(operator::binary()?);
    keyplane.args(["certs", "check-expiration"]).args(arguments).env("KUBECONFIG", admin.kubeconfig());
    Ok(keyplane.output()?)
}

fn kubeadm_sees_the_same_ends(machine: &Machine, admin: &Kubectl) -> Result<()> {
    let answer: Value = serde_json::from_slice(&check_expiration(admin, &["-A", "-o", "json"])?.stdout)?;
    let rows = answer["clusters"][0]["certificates"].as_array().cloned().unwrap_or_default();
    let pairs = |rows: &[Value], end: &str| -> BTreeSet<_> {
        let pair = |row: &Value| (row["name"].to_string(), row[end].to_string());
        // kubeadm knows no kubeconfig but those of the machine; the API server's own may have been renewed by now.
        rows.iter().map(pair).filter(|(name, _)| name != "\"kubeconfig\"" && name != "\"apiserver\"").collect()
    };
    let said = machine.run(&["kubeadm", "certs", "check-expiration", "-o", "json"])?;
    let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    let list = |key: &str| said[key].as_array().cloned().unwrap_or_default();
    let theirs = pairs(&[list("certificates"), list("certificateAuthorities")].concat(), "expirationDate");
    ensure!(theirs.len() > 10 && pairs(&rows, "notAfter") == theirs, "{rows:?}\n{theirs:?}");
    let table = check_expiration(admin, &["renewed"])?;
    let words = String::from_utf8_lossy(&table.stdout).into_owned();
    ensure!(words.contains("etcd-healthcheck-client") && words.contains("front-proxy-ca"), "{words}");
    let nothing = check_expiration(admin, &["-n", "kube-public"])?;
    ensure!(nothing.status.code() == Some(2), "{nothing:?}");
    let unknown = check_expiration(admin, &["nobodys"])?;
    ensure!(unknown.status.code() == Some(2), "{unknown:?}");
    Ok(())
}

fn it_is_renewed_by_the_clock(admin: &Kubectl, machine: &Machine) -> Result<()> {
    const CERTIFICATE: &str = "/etc/kubernetes/pki/apiserver.crt";
    const KEY: &str = "/etc/kubernetes/pki/apiserver.key";
    let on_machine = machine.run(&["cat", CERTIFICATE])?;
    let before = written(admin)?;
    let now = eventually("renewal", PATIENCE, || {
        let now = written(admin)?;
        ensure!(text(&now, CERTIFICATE)? != on_machine, "not renewed yet");
        Ok(now)
    })?;
    ensure!(text(&now, KEY)? == machine.run(&["cat", KEY])?, "another key");
    let others = |files: &BTreeMap<String, NodeFile>| -> BTreeMap<String, Vec<u8>> {
        let others = files.iter().filter(|(path, _)| *path != CERTIFICATE);
        others.map(|(path, file)| (path.clone(), file.content.clone())).collect()
    };
    ensure!(others(&before) == others(&now), "more than the one certificate was renewed");
    replace(machine, &now[CERTIFICATE])?;
    is_presented(machine, 6443, None, CERTIFICATE)?;
    let events = admin.run(&["get", "events"])?;
    ensure!(events.contains("Renewed") && events.contains("apiserver (RenewalDue)"), "{events}");
    Ok(())
}

fn every_certificate_gets_a_new_key_on_request(
    lab: &Lab,
    admin: &Kubectl,
    machine: &Machine,
    target: &Kubectl,
) -> Result<()> {
    let before = written(admin)?;
    let owners = admin.secret_text("renewed-kubeconfig", "value")?;
    admin.run(&["annotate", "clusterspec", CLUSTER, "keyplane.io/rotate-certificates=at once"])?;
    let now = eventually("new keys", PATIENCE, || {
        let now = written(admin)?;
        ensure!(
            now["/etc/kubernetes/pki/apiserver.key"].content != before["/etc/kubernetes/pki/apiserver.key"].content
        );
        ensure!(admin.secret_text("renewed-kubeconfig", "value")? != owners, "the owner's kubeconfig is the old one");
        Ok(now)
    })?;
    let kept: BTreeSet<_> = before.keys().filter(|path| before[*path].content == now[*path].content).collect();
    let is_authoritys = |path: &&&String| {
        let file = path.rsplit('/').next().unwrap_or_default();
        file.contains("ca.") || file.starts_with("sa.") || file == "kubelet.conf"
    };
    ensure!(kept.iter().all(|path| is_authoritys(&path)) && kept.len() == 10, "{kept:?}");
    carry(machine, &before, &now)?;
    let client = Some("/etc/kubernetes/pki/apiserver-etcd-client");
    is_presented(machine, 2379, client, "/etc/kubernetes/pki/etcd/server.crt")?;
    is_presented(machine, 6443, None, "/etc/kubernetes/pki/apiserver.crt")?;
    // The new kubeconfigs open the same doors, and the old ones still do.
    owners_kubectl(lab, admin, CLUSTER)?.run(&["get", "secrets", "-n", "kube-system"])?;
    target.run(&["get", "secrets", "-n", "kube-system"])?;
    for file in ["admin", "super-admin", "controller-manager", "scheduler"] {
        let flag = format!("--kubeconfig=/etc/kubernetes/{file}.conf");
        machine.run(&["kubectl", &flag, "auth", "whoami"])?;
    }
    // At the moment when the API server sees its new client certificate it closes its connections to kubelets, also one
    // on which a request has just begun (client-go, `cert_rotation.go`).
    eventually("log", PATIENCE, || target.run(&["logs", "hello", "--tail=1"]).map(drop))
}
