//! What administrators do with kubeadm on the machines of a cluster that Keyplane made.

use std::slice;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use keyplane_e2e::boot::boot;
use keyplane_e2e::installation::{FIRST_REPLICA, Installation, PATIENCE, bootable_cluster_spec};
use keyplane_e2e::kubectl::documents;
use keyplane_e2e::machine::lab_kubelet_settings;
use keyplane_e2e::{Kubectl, Lab, Machine, Operator, eventually, image};
use serde_json::{Value, json};

const CLUSTER: &str = "stock";

/// Where kubeadm looks for patches of what it writes; a user of this lab needs some for the kubelet.
const PATCHES: &str = "/etc/kubeadm/patches";

/// What a user would apply: one control-plane machine, and a pool that declares the worker.
fn objects(machine: &Machine, worker: &Machine) -> String {
    let mut cluster = bootable_cluster_spec(CLUSTER, &machine.address(), slice::from_ref(machine));
    // Those that kubeadm installs too.
    cluster["spec"]["addons"] = json!({});
    let pool = json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "NodePool", "metadata": {"name": "workers"},
        "spec": {"clusterRef": {"name": CLUSTER}, "machines": [{"name": worker.name(), "addresses": [worker.address()]}]},
    });
    documents(&[cluster, pool])
}

pub(crate) fn kubeadm_works_on_the_machines_as_if_it_had_made_the_cluster() -> Result<()> {
    let lab = Lab::start()?;
    let images = image::all(lab.parts())?;
    let mut machine = lab.machine("cp1")?;
    let mut worker = lab.machine("worker1")?;
    let mut installation = Installation::start(&lab)?;
    let admin = installation.admin().clone();
    admin.apply(&objects(&machine, &worker))?;
    installation.wait_for(CLUSTER, "Rendered")?;
    let target = boot(&lab, &mut installation, CLUSTER, &mut machine, &images, "10.244.0.0/24", &|what| {
        eprintln!("{what}");
    })?;

    check_expiration_finds_every_authority_key(&machine)?;
    eprintln!("check-expiration is right");
    admin.check_condition(&["clusterspec", CLUSTER], "NodesInSync")?;
    let serial = renew_the_api_servers_certificate(&machine)?;
    eprintln!("renewed, serial {serial}");
    a_stock_worker_joins(&machine, &mut worker, &target)?;
    worker.import_images(&image::for_any_node(lab.parts())?)?;
    eprintln!("the worker has joined");
    upgrade_plan_finds_a_healthy_cluster(&machine, &target)?;
    eprintln!("upgrade plan is content");
    the_renewed_certificate_is_told(&admin, &serial)?;
    eprintln!("the renewed certificate was told");
    an_upgrade_by_hand_is_told_and_not_fought(&admin, &target, &mut installation, &lab)?;
    eprintln!("the upgrade by hand was told");
    Ok(())
}

/// kubeadm calls certificates externally managed whose authority's key it does not find.
fn check_expiration_finds_every_authority_key(machine: &Machine) -> Result<()> {
    let said = machine.run(&["kubeadm", "certs", "check-expiration", "-o", "json"])?;
    let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    let rows = |list: &str| said[list].as_array().cloned().unwrap_or_default();
    let names: Vec<_> = rows("certificates").iter().filter_map(|row| row["name"].as_str().map(str::to_owned)).collect();
    for name in ["admin.conf", "apiserver", "etcd-server", "front-proxy-client", "scheduler.conf", "super-admin.conf"] {
        ensure!(names.iter().any(|found| found == name), "kubeadm does not list {name}: {said}");
    }
    for row in rows("certificates").iter().chain(&rows("certificateAuthorities")) {
        ensure!(row["missing"] == false && row["externallyManaged"] == false, "{row}");
    }
    ensure!(rows("certificateAuthorities").len() == 3, "{said}");
    Ok(())
}

/// With the command that kubeadm prints, and a worker that has nothing but what its packages bring.
fn a_stock_worker_joins(machine: &Machine, worker: &mut Machine, target: &Kubectl) -> Result<()> {
    let command = machine.run(&["kubeadm", "token", "create", "--print-join-command"])?;
    eprintln!("{command}");
    worker.put_pod_network("10.244.1.0/24")?;
    worker.start_containerd()?;
    // The lab's machines have no cgroup driver but this one; everywhere else the stock settings serve.
    let settings = lab_kubelet_settings(worker);
    worker.put_file(&format!("{PATCHES}/kubeletconfiguration+merge.json"), settings.to_string().as_bytes(), 0o644)?;
    let mut line: Vec<_> = command.split_whitespace().collect();
    // The lab has no registry to pull from.
    let patches = format!("--patches={PATCHES}");
    line.extend(["--skip-phases=preflight", "--v=5", &patches]);
    let mut join = worker.spawn("kubeadm-join", &line)?;
    // Here is no systemd that would start the kubelet when its configuration comes.
    eventually("kubelet configuration of the worker", PATIENCE, || {
        if !join.is_running() {
            bail!("kubeadm join has ended: {}", join.log_tail());
        }
        worker.read_file("/var/lib/kubelet/config.yaml")
    })?;
    worker.start_kubelet()?;
    let joined = eventually("worker that is Ready", PATIENCE, || target.check_condition(&["node", "worker1"], "Ready"));
    joined.with_context(|| join.log_tail())?;
    eventually("end of kubeadm join", Duration::from_mins(1), || {
        ensure!(!join.is_running(), "kubeadm join still runs");
        ensure!(join.log_tail().contains("This node has joined the cluster"), "{}", join.log_tail());
        Ok(())
    })?;
    // Its serving certificate is approved because the pool declares it.
    eventually("approved request of the worker", PATIENCE, || {
        let requests = target.json(&["get", "csr"])?;
        let approved = |request: &Value| {
            request["spec"]["username"] == "system:node:worker1"
                && request["spec"]["signerName"] == "kubernetes.io/kubelet-serving"
                && request["status"]["conditions"][0]["reason"] == "AllRulesPassed"
        };
        ensure!(requests["items"].as_array().is_some_and(|items| items.iter().any(approved)), "{requests}");
        Ok(())
    })
}

/// kubeadm asks for the version of CoreDNS first, so the add-on is put there, with kubeadm too.
fn upgrade_plan_finds_a_healthy_cluster(machine: &Machine, target: &Kubectl) -> Result<()> {
    let current = target.json(&["get", "configmap", "-n", "kube-system", "kubeadm-config"])?;
    let configuration = current["data"]["ClusterConfiguration"].as_str().context("no ClusterConfiguration")?;
    machine.put_file("/tmp/kubeadm.yaml", configuration.as_bytes(), 0o600)?;
    machine.run(&["kubeadm", "init", "phase", "addon", "coredns", "--config=/tmp/kubeadm.yaml"])?;
    // With the version nobody has to be asked on the Internet.
    let said = machine.run(&["kubeadm", "upgrade", "plan", "v1.37.3"])?;
    for words in [
        "Running cluster health checks",
        "kube-apiserver            cp1       v1.37.2   v1.37.3",
        "kube-controller-manager   cp1       v1.37.2   v1.37.3",
        "kubelet     worker1   v1.37.2   v1.37.3",
        "kubeadm upgrade apply v1.37.3",
        "kubelet.config.k8s.io     v1beta1           v1beta1             no",
    ] {
        ensure!(said.contains(words), "no {words:?} in:\n{said}");
    }
    Ok(())
}

/// Gives back the serial number of the new certificate.
fn renew_the_api_servers_certificate(machine: &Machine) -> Result<String> {
    let serial = || {
        let said =
            machine.run(&["openssl", "x509", "-noout", "-serial", "-in", "/etc/kubernetes/pki/apiserver.crt"])?;
        Ok::<_, anyhow::Error>(said.trim().trim_start_matches("serial=").to_owned())
    };
    let before = serial()?;
    let said = machine.run(&["kubeadm", "certs", "renew", "apiserver"])?;
    let after = serial()?;
    ensure!(before != after, "kubeadm renewed nothing: {said}");
    Ok(after)
}

/// The API server loads its certificate anew by itself, and Keyplane looks every five minutes.
fn the_renewed_certificate_is_told(admin: &Kubectl, serial: &str) -> Result<()> {
    eventually("word of the renewed certificate", Duration::from_mins(7), || {
        let complaint = admin.complaint(&["clusterspec", CLUSTER], "NodesInSync")?;
        for words in ["CertificateDiffers", "cp1", "kubeadm certs renew", serial] {
            ensure!(complaint.contains(words), "{complaint}");
        }
        Ok(())
    })?;
    eventually("Event about it", PATIENCE, || {
        let events = admin.run(&["get", "events", "--field-selector", "reason=CertificateDiffers"])?;
        ensure!(events.contains(serial), "{events}");
        Ok(())
    })?;
    // It is told, and nothing is fought: the cluster is Ready, and the Secret was not written again.
    admin.check_condition(&["clusterspec", CLUSTER], "Ready")
}

/// What `kubeadm upgrade apply` writes into kubeadm-config stays, and somebody hears of it.
fn an_upgrade_by_hand_is_told_and_not_fought(
    admin: &Kubectl,
    target: &Kubectl,
    installation: &mut Installation,
    lab: &Lab,
) -> Result<()> {
    let read = || {
        let current = target.json(&["get", "configmap", "-n", "kube-system", "kubeadm-config"])?;
        let text = current["data"]["ClusterConfiguration"].as_str().context("no ClusterConfiguration")?;
        Ok::<_, anyhow::Error>(text.to_owned())
    };
    let newer = read()?.replace("v1.37.2", "v1.37.3");
    let patch = json!({"data": {"ClusterConfiguration": newer}}).to_string();
    target.run(&["patch", "configmap", "-n", "kube-system", "kubeadm-config", "--type=merge", "-p", &patch])?;
    // Objects in the target are looked at when Keyplane starts, and every ten minutes.
    installation.operator.stop()?;
    installation.operator = Operator::start(lab, &installation.user, FIRST_REPLICA)?;
    eventually("word of the upgrade", PATIENCE, || {
        let complaint = admin.complaint(&["clusterspec", CLUSTER], "NodesInSync")?;
        ensure!(
            complaint.contains("VersionDiffers") && complaint.contains("kubeadm-config has version v1.37.3"),
            "{complaint}"
        );
        Ok(())
    })?;
    ensure!(read()? == newer, "kubeadm-config was written over");
    // The spec follows, which says the same.
    let patch = r#"{"spec": {"kubernetesVersion": "v1.37.3"}}"#;
    admin.run(&["patch", "clusterspec", CLUSTER, "--type=merge", "-p", patch])?;
    eventually("end of the complaint about kubeadm-config", PATIENCE, || {
        if let Ok(complaint) = admin.complaint(&["clusterspec", CLUSTER], "NodesInSync") {
            ensure!(!complaint.contains("kubeadm-config"), "{complaint}");
        }
        Ok(())
    })
}
