//! A control plane goes from one minor version to the next, node by node, while its API answers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use keyplane_e2e::boot::owners_kubectl;
use keyplane_e2e::installation::{Installation, PATIENCE};
use keyplane_e2e::load_balancer::{Backend, LoadBalancer};
use keyplane_e2e::machine::lab_kubelet_settings;
use keyplane_e2e::{Kubectl, Lab, Machine, distribute, eventually, image};
use serde_json::{Value, json};

const CLUSTER: &str = "rising";
const NODES: [&str; 2] = ["cp1", "cp2"];
/// What an upgrade of Kubernetes changes, in kubeadm's order; etcd is of the same version for both.
const COMPONENTS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Carries to the machines what Keyplane writes, as somebody or an agent would, and notes what changed.
struct Carrier<'a> {
    management: Kubectl,
    target: Kubectl,
    machines: &'a [Machine],
    /// The manifests on each machine.
    there: BTreeMap<String, String>,
    /// What was carried, in order: machine and component.
    history: Vec<(String, String)>,
}

impl Carrier<'_> {
    /// Looks once at each node's ConfigMap. Each new manifest must be the only one, and what came before must run.
    fn look(&mut self) -> Result<()> {
        for machine in self.machines {
            let name = machine.name();
            let config = self.management.json(&["get", "configmap", &format!("{CLUSTER}-{name}-config")])?;
            let mut new = vec![];
            for component in ["etcd"].into_iter().chain(COMPONENTS) {
                let text = config["data"][&format!("{component}.yaml")].as_str().context("no manifest")?.to_owned();
                let before = self.there.insert(format!("{name} {component}"), text.clone());
                if before.is_some_and(|before| before != text) {
                    new.push(component);
                }
            }
            for component in &new {
                if let Some((node, before)) = self.history.last() {
                    self.runs(node, before).with_context(|| format!("{name} {component} came too early"))?;
                }
                self.history.push((name.to_owned(), (*component).to_owned()));
                eprintln!("{name}: {component}");
            }
            ensure!(new.len() < 2, "several at once on {name}: {new:?}");
            if !new.is_empty() {
                distribute::apply_files(&self.management, "default", CLUSTER, machine)?;
            }
        }
        Ok(())
    }

    /// Whether the machine runs what was carried to it last, and is Ready.
    fn runs(&self, node: &str, component: &str) -> Result<()> {
        let pod = format!("{component}-{node}");
        self.target.check_condition(&["pod", "-n", "kube-system", &pod], "Ready")?;
        let pod = self.target.json(&["get", "pod", "-n", "kube-system", &pod])?;
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
        let written = &self.there[&format!("{node} {component}")];
        ensure!(written.contains(&format!("image: {image}\n")), "{node} {component} runs {image}");
        Ok(())
    }

    /// Carries until `done` is content.
    fn until(&mut self, what: &str, mut done: impl FnMut() -> Result<()>) -> Result<()> {
        let (began, patience) = (Instant::now(), Duration::from_mins(8));
        loop {
            self.look()?;
            let Err(error) = done() else { return Ok(()) };
            if began.elapsed() > patience {
                bail!("no {what} after {} s: {error:#}", patience.as_secs());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

fn cluster_spec(version: &str, endpoint: &str, machines: &[Machine]) -> Value {
    let node = |machine: &Machine| json!({"name": machine.name(), "addresses": [machine.address()]});
    let nodes: Vec<_> = machines.iter().map(node).collect();
    json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "ClusterSpec", "metadata": {"name": CLUSTER},
        "spec": {
            "kubernetesVersion": version,
            "controlPlaneEndpoint": {"host": endpoint},
            "controlPlane": {"nodes": nodes, "kubelet": lab_kubelet_settings(&machines[0])},
            "network": {"podCIDRs": ["10.244.0.0/16"]},
        },
    })
}

pub(crate) fn a_minor_upgrade_goes_node_by_node_and_a_bad_flag_stops_at_the_first() -> Result<()> {
    let lab = Lab::start()?;
    let older = lab.parts().version("v1.36")?;
    let (before, after) = (older.kubernetes_version()?, lab.parts().kubernetes_version()?);
    ensure!(before.starts_with("v1.36.") && after.starts_with("v1.37."), "{before} {after}");
    let mut images = image::all(lab.parts())?;
    images.extend(image::for_control_plane(&older)?);
    let mut machines = NODES.iter().map(|name| lab.machine(name)).collect::<Result<Vec<_>>>()?;
    let backends: Vec<_> = machines.iter().map(Backend::from).collect();
    let balancer = lab.load_balancer("lb", &backends)?;
    let mut installation = Installation::start(&lab)?;
    let admin = installation.admin().clone();
    admin.apply(&cluster_spec(&before, &balancer.address(), &machines).to_string())?;
    installation.wait_for(CLUSTER, "Rendered")?;
    for (index, machine) in machines.iter_mut().enumerate() {
        distribute::apply_files(&admin, "default", CLUSTER, machine)?;
        machine.put_pod_network(&format!("10.244.{index}.0/24"))?;
        machine.start_containerd()?;
        machine.import_images(&images)?;
        machine.start_kubelet_of(&older)?;
    }
    installation.wait_for(CLUSTER, "Ready")?;
    let target = owners_kubectl(&lab, &admin, CLUSTER)?;
    let status = || Ok::<_, anyhow::Error>(admin.json(&["get", "clusterspec", CLUSTER])?["status"].clone());
    eventually("both nodes at the version before", PATIENCE, || {
        let status = status()?;
        ensure!(
            status["kubernetesVersion"] == before.as_str() && status["readyNodes"] == 2 && status["desiredNodes"] == 2,
            "{status}"
        );
        Ok(())
    })?;
    admin.check_condition(&["clusterspec", CLUSTER], "KubeletVersionsMatch")?;
    eprintln!("the cluster runs {before}");

    let mut carrier = Carrier {
        management: admin.clone(),
        target: target.clone(),
        machines: &machines,
        there: BTreeMap::new(),
        history: vec![],
    };
    carrier.look()?;
    let began = Instant::now();
    admin.apply(&cluster_spec(&after, &balancer.address(), &machines).to_string())?;
    carrier.until("upgraded cluster", || {
        let status = status()?;
        ensure!(status["kubernetesVersion"] == after.as_str(), "{}", status["conditions"]);
        Ok(())
    })?;
    eprintln!("upgraded after {} s", began.elapsed().as_secs());
    let expected: Vec<_> =
        NODES.iter().flat_map(|node| COMPONENTS.map(|component| ((*node).to_owned(), component.to_owned()))).collect();
    ensure!(carrier.history == expected, "{:?}", carrier.history);
    for machine in &machines {
        // Each API server at its own address.
        let server = format!("--server=https://{}:6443", machine.address());
        let said =
            machine.run(&["kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", &server, "version", "-o", "json"])?;
        let said: Value = serde_json::from_str(&said)?;
        ensure!(said["serverVersion"]["gitVersion"] == after.as_str(), "{said}");
    }
    eventually("kubeadm-config of the new version", PATIENCE, || {
        let config = target.json(&["get", "configmap", "-n", "kube-system", "kubeadm-config"])?;
        let text = config["data"]["ClusterConfiguration"].as_str().unwrap_or_default();
        ensure!(text.contains(&format!("kubernetesVersion: {after}")), "{text}");
        Ok(())
    })?;
    the_steps_are_told(&admin, &before, &after)?;
    installation.wait_for(CLUSTER, "Ready")?;

    a_bad_flag_stops_at_the_first_machine(&admin, &mut carrier, &target, &balancer)?;
    eprintln!("the bad flag has reached one machine and was taken back");
    the_kubelets_are_upgraded_by_their_owner(&admin, &before, &mut machines)
}

fn the_steps_are_told(admin: &Kubectl, before: &str, after: &str) -> Result<()> {
    let events = admin.run(&["get", "events", "--field-selector", "involvedObject.kind=ClusterSpec"])?;
    for node in NODES {
        for component in COMPONENTS {
            let step = format!("ConfigMap {CLUSTER}-{node}-config: {component} {before} -> {after}");
            ensure!(events.contains(&step), "no Event {step:?} in:\n{events}");
        }
    }
    ensure!(events.contains("Upgraded"), "no Event Upgraded in:\n{events}");
    Ok(())
}

/// The second API server keeps the cluster up, and the spec can be put right.
fn a_bad_flag_stops_at_the_first_machine(
    admin: &Kubectl,
    carrier: &mut Carrier,
    target: &Kubectl,
    balancer: &LoadBalancer,
) -> Result<()> {
    let set = |arguments: Value| {
        let patch = json!({"spec": {"controlPlane": {"apiServer": {"extraArgs": arguments}}}}).to_string();
        admin.run(&["patch", "clusterspec", CLUSTER, "--type=merge", "-p", &patch])
    };
    carrier.history.clear();
    set(json!([{"name": "no-such-flag", "value": "1"}]))?;
    carrier.until("API server that does not start", || {
        let complaint = admin.complaint(&["clusterspec", CLUSTER], "RolledOut")?;
        ensure!(complaint.contains("waits for cp1 to run kube-apiserver with its current manifest"), "{complaint}");
        ensure!(balancer.ready_backends()? == ["cp2"], "cp1 serves");
        Ok(())
    })?;
    // It never starts. Nothing follows, and the other one answers.
    for _ in 0..40 {
        carrier.look()?;
        std::thread::sleep(Duration::from_millis(500));
    }
    ensure!(carrier.history == [("cp1".to_owned(), "kube-apiserver".to_owned())], "{:?}", carrier.history);
    eventually("API of the other machine", PATIENCE, || target.run(&["get", "--raw", "/readyz"]))?;
    carrier.history.clear();
    set(json!([]))?;
    carrier.until("cluster that is put right", || {
        ensure!(balancer.ready_backends()?.len() == 2, "one API server is still down");
        admin.check_condition(&["clusterspec", CLUSTER], "Ready")
    })?;
    ensure!(carrier.history == [("cp1".to_owned(), "kube-apiserver".to_owned())], "{:?}", carrier.history);
    Ok(())
}

/// Keyplane has no hand on the machines' packages; it says what is to be done, and when it is done.
fn the_kubelets_are_upgraded_by_their_owner(admin: &Kubectl, before: &str, machines: &mut [Machine]) -> Result<()> {
    let complaint = admin.complaint(&["clusterspec", CLUSTER], "KubeletVersionsMatch")?;
    ensure!(complaint.contains(&format!("kubelet {before} on cp1, cp2")), "{complaint}");
    for machine in machines {
        machine.stop_kubelet()?;
        machine.start_kubelet()?;
    }
    eventually("kubelets of the new version", PATIENCE, || {
        admin.check_condition(&["clusterspec", CLUSTER], "KubeletVersionsMatch")
    })
}
