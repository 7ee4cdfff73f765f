//! The lab can carry a whole cluster: kubeadm's own, with a load balancer, a worker, and the add-ons of upstream's
//! manifests. What fails in the tests of whole clusters is then Keyplane's fault and not the lab's.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use keyplane_e2e::image::{self, Image, TOOLBOX, WEB};
use keyplane_e2e::kubectl::documents;
use keyplane_e2e::load_balancer::{Backend, PORT};
use keyplane_e2e::machine::lab_kubelet_settings;
use keyplane_e2e::process::Process;
use keyplane_e2e::{Kubectl, Lab, Machine, Parts, eventually};
use serde_json::{Value, json};

/// A busy computer gets this long.
const PATIENCE: Duration = Duration::from_mins(3);

/// kubeadm's configuration file on each machine.
const CONFIG: &str = "/etc/kubeadm.yaml";

/// Two web servers behind a Service with a port on each node, and a pod to ask them from.
const WORKLOAD: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: web, image: @WEB@, ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: asker}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: asker, image: @TOOLBOX@, command: [sleep, '100000']}]
";

pub(crate) fn a_cluster_of_kubeadm_with_every_add_on_runs_in_the_lab() -> Result<()> {
    run_cluster("v1.37", "nftables")
}

pub(crate) fn the_older_minor_runs_in_the_lab_too_and_with_iptables() -> Result<()> {
    run_cluster("v1.36", "iptables")
}

fn run_cluster(minor: &str, proxy_mode: &str) -> Result<()> {
    let lab = Lab::start()?;
    let parts = if minor == "v1.37" { lab.parts().clone() } else { lab.parts().version(minor)? };
    let began = Instant::now();
    let told = |what: &str| eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());
    let (for_control_plane, for_worker) = (image::for_whole_cluster(&parts)?, image::for_worker(&parts)?);
    told("images made");
    let mut first = lab.machine("cp1")?;
    let mut worker = lab.machine("w1")?;
    let balancer = lab.load_balancer("lb", &[Backend::from(&first)])?;
    thread::scope(|scope| {
        let other = scope.spawn(|| prepare(&mut worker, &for_worker));
        prepare(&mut first, &for_control_plane)?;
        other.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
    })?;
    told("containerd has its images");

    let settings = lab_kubelet_settings(&first);
    init(&parts, &mut first, &format!("{}:{PORT}", balancer.address()), proxy_mode, settings)?;
    told("kubeadm init is done");
    eventually("API server behind the load balancer", PATIENCE, || {
        ensure!(balancer.ready_backends()? == ["cp1"], "not ready");
        Ok(())
    })?;
    let kubeconfig = lab.folder().join("target.kubeconfig");
    fs::write(&kubeconfig, first.read_file("/etc/kubernetes/admin.conf")?)?;
    let target = Kubectl::new(lab.parts(), &kubeconfig);
    target.apply(&fs::read_to_string(parts.set("flannel")?.join("kube-flannel.yml"))?)?;
    join(&parts, &first, &mut worker)?;
    told("kubeadm join is done");
    for node in ["cp1", "w1"] {
        eventually(&format!("{node} that is Ready"), PATIENCE, || target.check_condition(&["node", node], "Ready"))?;
    }
    told("both nodes are Ready");
    for (namespace, what) in [
        ("kube-system", "daemonset/kube-proxy"),
        ("kube-flannel", "daemonset/kube-flannel-ds"),
        ("kube-system", "deployment/coredns"),
    ] {
        target.run(&["rollout", "status", "-n", namespace, what, "--timeout=120s"])?;
    }
    told("the add-ons run");
    let versions = target.run(&["get", "nodes", "-o", "jsonpath={.items[*].status.nodeInfo.kubeletVersion}"])?;
    let version = parts.kubernetes_version()?;
    ensure!(versions == format!("{version} {version}"), "{versions}");

    target.apply(&WORKLOAD.replace("@WEB@", WEB).replace("@TOOLBOX@", TOOLBOX))?;
    target.run(&["rollout", "status", "deployment/web", "--timeout=120s"])?;
    eventually("asker", PATIENCE, || target.check_condition(&["pod", "asker"], "Ready"))?;
    told("the pods run");
    the_service_answers(&lab, &target, &[&first, &worker])?;
    told("DNS and the NodePort answer");
    Ok(())
}

fn the_service_answers(lab: &Lab, target: &Kubectl, nodes: &[&Machine]) -> Result<()> {
    let asked =
        ["exec", "asker", "--", "timeout", "5", "wget", "-q", "-O", "-", "http://web.default.svc.cluster.local"];
    let name = eventually("answer by name", PATIENCE, || target.run(&asked))?;
    ensure!(name.starts_with("web-"), "{name}");
    let service = target.json(&["get", "service", "web"])?;
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().context("no node port")?;
    let outsider = lab.machine("outsider")?;
    for node in nodes {
        let url = format!("http://{}:{port}", node.address());
        let wget = ["timeout", "5", "busybox", "wget", "-q", "-O", "-", &url];
        let name = eventually("answer of the node port", PATIENCE, || outsider.run(&wget))?;
        ensure!(name.starts_with("web-"), "{name}");
    }
    let logs = target.run(&["logs", "-l", "app=web", "--tail=-1"])?;
    ensure!(logs.contains("response:200"), "{logs}");
    let pod = target.run(&["get", "pod", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"])?;
    let version = target.run(&["exec", &pod, "--", "web", "-v"])?;
    ensure!(version.starts_with("BusyBox v"), "{version}");
    Ok(())
}

/// Starts containerd with these images.
pub(crate) fn prepare(machine: &mut Machine, images: &[Image]) -> Result<()> {
    machine.start_containerd()?;
    machine.import_images(images)
}

/// All of `kubeadm init`. It waits for a kubelet, which systemd would start.
pub(crate) fn init(
    parts: &Parts,
    machine: &mut Machine,
    endpoint: &str,
    proxy_mode: &str,
    mut kubelet: Value,
) -> Result<()> {
    kubelet["apiVersion"] = json!("kubelet.config.k8s.io/v1beta1");
    kubelet["kind"] = json!("KubeletConfiguration");
    let config = [
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "InitConfiguration",
            "localAPIEndpoint": {"advertiseAddress": machine.address()},
            "nodeRegistration": {"criSocket": "unix:///run/containerd/containerd.sock"},
        }),
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "ClusterConfiguration",
            "kubernetesVersion": parts.kubernetes_version()?,
            "controlPlaneEndpoint": endpoint,
            "networking": {"podSubnet": "10.244.0.0/16"},
        }),
        kubelet,
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": proxy_mode,
            // That sysctl is the host's alone.
            "conntrack": {"maxPerCore": 0},
        }),
    ];
    machine.put_file(CONFIG, documents(&config).as_bytes(), 0o600)?;
    let kubeadm = parts.program_on_machine("kubeadm");
    let line = [&kubeadm, "init", "--config", CONFIG, "--ignore-preflight-errors=all"];
    let kubeadm = machine.spawn("kubeadm-init", &line)?;
    with_kubelet(parts, machine, kubeadm)
}

/// All of `kubeadm join`.
fn join(parts: &Parts, first: &Machine, machine: &mut Machine) -> Result<()> {
    let kubeadm = parts.program_on_machine("kubeadm");
    let said = first.run(&[&kubeadm, "token", "create", "--print-join-command"])?;
    let said = said.trim().strip_prefix("kubeadm").context("no join command")?;
    let mut line = vec![kubeadm.as_str()];
    line.extend(said.split_whitespace());
    line.extend(["--ignore-preflight-errors=all", "--cri-socket=unix:///run/containerd/containerd.sock"]);
    let kubeadm = machine.spawn("kubeadm-join", &line)?;
    with_kubelet(parts, machine, kubeadm)
}

fn with_kubelet(parts: &Parts, machine: &mut Machine, mut kubeadm: Process) -> Result<()> {
    eventually("kubelet's files", PATIENCE, || {
        kubeadm.check_running()?;
        // The last of them that kubeadm writes.
        machine.read_file("/var/lib/kubelet/kubeadm-flags.env")?;
        machine.read_file("/var/lib/kubelet/config.yaml")
    })?;
    machine.start_kubelet_of(parts)?;
    kubeadm.wait_for_success()
}
