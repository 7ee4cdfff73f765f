//! A cluster whose authorities are intermediate ones below a root of the user's.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::slice;

use anyhow::{Context, Result, ensure};
use keyplane_e2e::boot::boot;
use keyplane_e2e::installation::{Installation, PATIENCE, bootable_cluster_spec, cluster_spec};
use keyplane_e2e::kubectl::{base64, documents};
use keyplane_e2e::{Kubectl, Lab, Machine, Parts, command, eventually, image, operator, preflight};
use serde_json::{Value, json};

const CLUSTER: &str = "below";

/// As docs/user-provided-ca.md has it.
const EXTENSIONS: &str = "basicConstraints=critical,CA:TRUE,pathlen:1
keyUsage=critical,keyCertSign,cRLSign,digitalSignature
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
";

fn openssl(folder: &Path, line: &str) -> Result<String> {
    command::run(Command::new("openssl").args(line.split(' ')).current_dir(folder))
}

/// A root, and below it the cluster's three authorities and one of another department.
fn company(folder: &Path) -> Result<()> {
    let ec = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";
    fs::write(folder.join("ca.ext"), EXTENSIONS)?;
    fs::write(folder.join("client.ext"), "extendedKeyUsage=clientAuth\n")?;
    let usage = "-addext keyUsage=critical,keyCertSign";
    openssl(folder, &format!("req -x509 {ec} -nodes -keyout root.key -out root.crt -days 30 -subj /CN=Root {usage}"))?;
    for (name, key) in [("cluster", "-newkey rsa:2048"), ("etcd", ec), ("proxy", ec), ("sibling", ec)] {
        // Two attributes of a kind, as directories have them.
        let subject = format!("/DC=example/DC=corp/O=Corp/CN={name}");
        openssl(folder, &format!("req -new {key} -nodes -keyout {name}.key -out {name}.csr -subj {subject}"))?;
        sign(folder, name, "root", "ca.ext")?;
    }
    // Whoever has the other department's authority can make this.
    openssl(folder, &format!("req -new {ec} -nodes -keyout boss.key -out boss.csr -subj /O=system:masters/CN=boss"))?;
    sign(folder, "boss", "sibling", "client.ext")?;
    let chain = fs::read_to_string(folder.join("boss.crt"))? + &fs::read_to_string(folder.join("sibling.crt"))?;
    fs::write(folder.join("boss-chain.crt"), chain)?;
    Ok(())
}

fn sign(folder: &Path, name: &str, authority: &str, extensions: &str) -> Result<()> {
    let pair = format!("-CA {authority}.crt -CAkey {authority}.key -CAcreateserial");
    openssl(folder, &format!("x509 -req -in {name}.csr {pair} -out {name}.crt -extfile {extensions} -days 20"))?;
    Ok(())
}

/// The cluster with references to the Secrets, and these.
fn objects(folder: &Path, mut cluster: Value) -> Result<Vec<Value>> {
    let reference = |name: &str| json!({"secretRef": {"name": name}});
    cluster["spec"]["certificateAuthorities"] =
        json!({"cluster": reference("cluster"), "etcd": reference("etcd"), "frontProxy": reference("proxy")});
    let read = |file: String| Ok::<_, anyhow::Error>(base64(&fs::read(folder.join(file))?));
    let mut objects = vec![cluster];
    for name in ["cluster", "etcd", "proxy"] {
        objects.push(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "kubernetes.io/tls",
            "data": {"tls.crt": read(format!("{name}.crt"))?, "tls.key": read(format!("{name}.key"))?,
                "ca.crt": read("root.crt".to_owned())?},
        }));
    }
    Ok(objects)
}

/// kubeadm verifies each certificate that it finds with the authority that it finds, and makes none that is there.
pub(crate) fn kubeadm_and_openssl_take_what_is_rendered_below_a_root_of_the_users() -> Result<()> {
    preflight::check()?;
    let parts = Parts::build()?;
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    company(folder)?;
    let input = folder.join("input.yaml");
    fs::write(&input, documents(&objects(folder, cluster_spec(CLUSTER, "10.0.0.1"))?))?;
    let output = folder.join("output");
    command::run(Command::new(operator::binary()?).arg("render").arg("-f").arg(&input).arg("-o").arg(&output))?;
    let pki = output.join("cp1/etc/kubernetes/pki");
    let configuration = format!(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nlocalAPIEndpoint: {{advertiseAddress: 10.0.0.1}}\n\
         nodeRegistration: {{name: cp1, criSocket: 'unix:///var/run/containerd/containerd.sock'}}\n---\n\
         apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.37.2\n\
         controlPlaneEndpoint: 10.0.0.1:6443\ncertificatesDir: {}\n",
        pki.display()
    );
    let file = folder.join("kubeadm.yaml");
    fs::write(&file, configuration)?;
    let mut kubeadm = parts.command("kubeadm");
    let said = command::run(kubeadm.args(["init", "phase", "certs", "all", "--config"]).arg(&file))?;
    ensure!(said.matches("Using existing").count() == 10 && !said.contains("Generating"), "{said}");
    for server in ["apiserver", "etcd/server", "etcd/peer"] {
        let presented = fs::read_to_string(pki.join(format!("{server}.crt")))?;
        let (_, chain) = presented.split_once("-----END CERTIFICATE-----\n").context("no certificate")?;
        fs::write(folder.join("chain.crt"), chain)?;
        let line =
            format!("verify -x509_strict -purpose sslserver -CAfile root.crt -untrusted chain.crt {}", pki.display());
        openssl(folder, &format!("{line}/{server}.crt"))?;
    }
    Ok(())
}

pub(crate) fn a_cluster_boots_below_a_root_of_the_users_who_needs_nothing_but_the_root() -> Result<()> {
    let lab = Lab::start()?;
    let images = image::all(lab.parts())?;
    let mut machine = lab.machine("cp1")?;
    let mut installation = Installation::start(&lab)?;
    let admin = installation.admin().clone();
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    company(folder)?;
    // The ClusterSpec comes first, as it may: it waits for the Secrets.
    let cluster = bootable_cluster_spec(CLUSTER, &machine.address(), slice::from_ref(&machine));
    let objects = objects(folder, cluster)?;
    for (number, object) in objects.iter().enumerate() {
        admin.apply(&object.to_string())?;
        if number == 0 {
            eventually("word of the missing Secret", PATIENCE, || {
                let complaint = admin.complaint(&["clusterspec", CLUSTER], "Rendered")?;
                ensure!(complaint.contains("SecretNotFound") && complaint.contains("cluster.secretRef"), "{complaint}");
                Ok(())
            })?;
        }
    }
    installation.wait_for(CLUSTER, "Rendered")?;
    admin.check_condition(&["clusterspec", CLUSTER], "CertificateAuthoritiesInSync")?;
    let tell = |what: &str| eprintln!("{what}");
    let target = boot(&lab, &mut installation, CLUSTER, &mut machine, &images, "10.244.0.0/24", &tell)?;

    let root = folder.join("root.crt").display().to_string();
    let nodes = target.run(&["--certificate-authority", &root, "get", "nodes"])?;
    ensure!(nodes.contains("cp1"), "{nodes}");
    let strange = format!("{}/sibling.crt", folder.display());
    ensure!(target.run(&["--certificate-authority", &strange, "get", "nodes"]).is_err(), "any authority would do");
    eprintln!("kubectl is content with the root");
    machine.put_file("/tmp/root.crt", &fs::read(&root)?, 0o644)?;
    for (port, more) in
        [(6443, ""), (2379, "-cert /etc/kubernetes/pki/etcd/server.crt -key /etc/kubernetes/pki/etcd/server.key")]
    {
        let address = machine.address();
        let line = format!(
            "openssl s_client -connect {address}:{port} -CAfile /tmp/root.crt -verify_return_error -verify_ip {address} {more} </dev/null"
        );
        let said = machine.run(&["sh", "-c", &line])?;
        ensure!(said.contains("Verify return code: 0 (ok)"), "{said}");
    }
    eprintln!("openssl is content with the root");
    the_root_lets_nobody_in(&lab, folder, &machine, &target)?;
    eprintln!("the root lets nobody in");
    let said = machine.run(&["kubeadm", "certs", "check-expiration", "-o", "json"])?;
    let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    let rows = |list: &str| said[list].as_array().cloned().unwrap_or_default();
    ensure!(rows("certificateAuthorities").len() == 3, "{said}");
    for row in rows("certificates").iter().chain(&rows("certificateAuthorities")) {
        ensure!(row["missing"] == false && row["externallyManaged"] == false, "{row}");
    }
    Ok(())
}

/// A certificate of `system:masters` from another authority below the root is nobody's, and the root is not on the machine.
fn the_root_lets_nobody_in(lab: &Lab, folder: &Path, machine: &Machine, target: &Kubectl) -> Result<()> {
    let given = fs::read_to_string(folder.join("cluster.crt"))?;
    let there = String::from_utf8(machine.read_file("/etc/kubernetes/pki/ca.crt")?)?;
    ensure!(there == given, "{there}");
    let published = target.json(&["get", "configmap", "kube-root-ca.crt"])?;
    ensure!(published["data"]["ca.crt"] == given.as_str(), "{published}");
    let path = |file: &str| folder.join(file).display().to_string();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": format!("https://{}:6443", machine.address()),
            "certificate-authority": path("root.crt")}}],
        "users": [{"name": "a", "user": {"client-certificate": path("boss-chain.crt"), "client-key": path("boss.key")}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
    });
    fs::write(folder.join("boss.conf"), kubeconfig.to_string())?;
    let boss = Kubectl::new(lab.parts(), &folder.join("boss.conf"));
    let refused = boss.run(&["get", "nodes"]).err().context("another authority below the root lets in")?;
    let refused = format!("{refused:#}");
    ensure!(refused.contains("must be logged in") || refused.contains("Unauthorized"), "{refused}");
    Ok(())
}
