//! A cluster of which no authority's key is anywhere but with a person who has openssl and kubectl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use keyplane_e2e::boot::boot;
use keyplane_e2e::installation::{Installation, PATIENCE, bootable_cluster_spec};
use keyplane_e2e::kubectl::{base64, documents};
use keyplane_e2e::{Kubectl, Lab, Machine, eventually, image};
use serde_json::{Value, json};

const CLUSTER: &str = "outside";
/// By its name in a request, and the field and Secret of the ClusterSpec.
const AUTHORITIES: [(&str, &str); 3] = [("ca", "cluster"), ("etcd-ca", "etcd"), ("front-proxy-ca", "frontProxy")];

pub(crate) fn a_cluster_boots_of_which_somebody_outside_signs_every_certificate() -> Result<()> {
    let began = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());
    let lab = Lab::start()?;
    let images = image::all(lab.parts())?;
    let mut machine = lab.machine("cp1")?;
    let mut installation = Installation::start(&lab)?;
    let admin = installation.admin().clone();
    let folder = tempfile::tempdir()?;
    admin.apply(&objects(folder.path(), &machine)?)?;
    let signer = Signer::start(admin.clone(), folder.path().to_owned());
    installation.wait_for(CLUSTER, "Rendered")?;
    tell("all certificates of the machine are signed");
    // The log of a pod can be read only with the kubelet's serving certificate.
    let target = boot(&lab, &mut installation, CLUSTER, &mut machine, &images, "10.244.0.0/24", &tell)?;
    eventually("both certificates of the kubelet", PATIENCE, || kubelets_have_certificates(&target, folder.path()))?;
    installation.wait_for(CLUSTER, "CertificatesSigned")?;
    let signed = signer.stop()?;
    tell(&format!("{signed} requests were signed"));
    no_authoritys_key_is_anywhere(folder.path(), &admin, &machine)
}

fn openssl(arguments: &[&str]) -> Result<String> {
    let output = Command::new("openssl").args(arguments).output()?;
    ensure!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The authorities are made in the folder, and their certificates alone go to the cluster.
fn objects(folder: &Path, machine: &Machine) -> Result<String> {
    let mut cluster = bootable_cluster_spec(CLUSTER, &machine.address(), slice::from_ref(machine));
    let mut objects = vec![];
    for (name, field) in AUTHORITIES {
        let path = |ending: &str| folder.join(format!("{name}.{ending}")).display().to_string();
        let (certificate, key, secret) = (path("crt"), path("key"), format!("corp-{name}"));
        let subject = format!("/O=Corp/CN={name}");
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "900",
            "-subj",
            &subject,
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ])?;
        let data = json!({"tls.crt": base64(&fs::read(&certificate)?)});
        objects.push(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}, "data": data}));
        cluster["spec"]["certificateAuthorities"][field] = json!({"secretRef": {"name": secret}});
    }
    objects.push(cluster);
    Ok(documents(&objects))
}

/// Somebody who does what docs/external-ca.md says, again and again.
struct Signer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<usize>>,
}

impl Signer {
    fn start(admin: Kubectl, folder: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut signed = 0;
            while !until.load(Ordering::Relaxed) {
                let requests = admin.json(&["get", "configmaps", "-l", "keyplane.io/signing-request"])?;
                for request in requests["items"].as_array().into_iter().flatten() {
                    if request["data"]["tls.crt"].is_null() {
                        // It may be withdrawn meanwhile.
                        match answer(&admin, &folder, request) {
                            Ok(()) => signed += 1,
                            Err(error) => eprintln!("{}: {error:#}", request["metadata"]["name"]),
                        }
                    }
                }
                sleep(Duration::from_secs(1));
            }
            Ok(signed)
        });
        Self { stop, thread }
    }

    fn stop(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the signer's thread")?
    }
}

fn answer(admin: &Kubectl, folder: &Path, request: &Value) -> Result<()> {
    let text = |key: &str| request["data"][key].as_str().with_context(|| key.to_owned());
    let path = |name: &str| folder.join(name).display().to_string();
    let (asked, extensions, authority) = (path("request.csr"), path("extensions.cnf"), text("authority")?);
    fs::write(&asked, text("request.csr")?)?;
    fs::write(&extensions, text("extensions.cnf")?)?;
    let hours: u32 = text("duration")?.split('h').next().unwrap_or_default().parse()?;
    let (days, certificate, key) =
        ((hours / 24).to_string(), path(&format!("{authority}.crt")), path(&format!("{authority}.key")));
    let signed = openssl(&[
        "x509",
        "-req",
        "-in",
        &asked,
        "-CA",
        &certificate,
        "-CAkey",
        &key,
        "-days",
        &days,
        "-extfile",
        &extensions,
    ])?;
    let patch = json!({"data": {"tls.crt": signed}}).to_string();
    let name = request["metadata"]["name"].as_str().unwrap_or_default();
    admin.run(&["patch", "configmap", name, "--type", "merge", "-p", &patch])?;
    Ok(())
}

/// Both of the kubelet's certificates are there, and are the authority's.
fn kubelets_have_certificates(target: &Kubectl, folder: &Path) -> Result<()> {
    let requests = target.json(&["get", "certificatesigningrequests"])?;
    let requests = requests["items"].as_array().context("no list")?;
    let mut signers = vec![];
    for request in requests.iter().filter(|request| !request["status"]["certificate"].is_null()) {
        let name = request["metadata"]["name"].as_str().unwrap_or_default();
        let certificate =
            target.run(&["get", "csr", name, "-o", "go-template={{.status.certificate | base64decode}}"])?;
        let file = folder.join("issued.crt");
        fs::write(&file, certificate)?;
        let authority = folder.join("ca.crt").display().to_string();
        openssl(&["verify", "-x509_strict", "-CAfile", &authority, &file.display().to_string()])?;
        signers.extend(request["spec"]["signerName"].as_str().map(str::to_owned));
    }
    signers.sort();
    signers.dedup();
    let both = ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"];
    ensure!(signers == both, "{signers:?}");
    Ok(())
}

fn no_authoritys_key_is_anywhere(folder: &Path, admin: &Kubectl, machine: &Machine) -> Result<()> {
    let secrets = admin.run(&[
        "get",
        "secrets",
        "-o",
        "go-template={{range .items}}{{range $key, $value := .data}}{{$value | base64decode}}{{end}}{{end}}",
    ])?;
    for (name, _) in AUTHORITIES {
        let key = fs::read_to_string(folder.join(format!("{name}.key")))?;
        ensure!(!secrets.contains(key.trim()), "the key of {name} is in a Secret");
    }
    let files = machine.run(&["find", "/etc/kubernetes", "-name", "*ca.key"])?;
    ensure!(files.is_empty(), "{files}");
    eventually("requests that are all withdrawn", PATIENCE, || {
        let waiting = admin.run(&["get", "configmaps,secrets", "-o", "name"])?;
        ensure!(!waiting.contains("-requests") && !waiting.contains("-csr"), "{waiting}");
        Ok(())
    })
}
