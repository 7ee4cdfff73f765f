//! The cluster that the smoke test is about.

use anyhow::{Context, Result};
use serde_json::json;

use super::report::Report;
use crate::boot::owners_kubectl;
use crate::installation::{Installation, PATIENCE};
use crate::kubectl::{Kubectl, documents};
use crate::lab::Lab;
use crate::load_balancer::{Backend, LoadBalancer, PORT};
use crate::machine::{Machine, lab_kubelet_settings};
use crate::wait::eventually;
use crate::{distribute, image, join};

/// The ClusterSpec.
pub(super) const CLUSTER: &str = "smoke";

/// Its pool of workers.
const POOL: &str = "workers";

const CONTROL_PLANE: [&str; 3] = ["cp1", "cp2", "cp3"];
const WORKER: &str = "worker1";

/// The management cluster with Keyplane, and the cluster that it made.
pub(super) struct Scene {
    target: Kubectl,
    installation: Installation,
    control_plane: Vec<Machine>,
    worker: Machine,
    lost: Option<String>,
    _balancer: LoadBalancer,
    // Last: everything else lives in it.
    lab: Lab,
}

impl Scene {
    /// Brings everything up.
    pub(super) fn set_up(report: &Report) -> Result<Self> {
        let lab = Lab::start()?;
        let images = image::for_whole_cluster(lab.parts())?;
        let worker_images = image::for_worker(lab.parts())?;
        let mut control_plane = CONTROL_PLANE.iter().map(|name| lab.machine(name)).collect::<Result<Vec<_>>>()?;
        let mut worker = lab.machine(WORKER)?;
        let backends: Vec<_> = control_plane.iter().map(Backend::from).collect();
        let balancer = lab.load_balancer("lb", &backends)?;
        report.tell("four machines and a load balancer are there; starting a management cluster and Keyplane in it");
        let mut installation = Installation::start(&lab)?;
        let admin = installation.admin().clone();
        admin.apply(&objects(&control_plane, &worker, &balancer.address()))?;
        installation.wait_for(CLUSTER, "Rendered")?;
        let target = owners_kubectl(&lab, &admin, CLUSTER)?;
        for machine in &mut control_plane {
            report.tell(&format!("carrying its files to {} and starting containerd and the kubelet", machine.name()));
            distribute::apply_files(&admin, "default", CLUSTER, machine)?;
            machine.start_containerd()?;
            machine.import_images(&images)?;
            machine.start_kubelet()?;
            let name = machine.name().to_owned();
            eventually(&format!("{name} that is Ready"), PATIENCE, || {
                installation.operator.check_running()?;
                machine.check_kubelet()?;
                target.check_condition(&["node", &name], "Ready")
            })?;
        }
        report.tell("the control plane is up; the worker joins with its pool's join data");
        let script =
            eventually("join data", PATIENCE, || admin.secret_text(&format!("{CLUSTER}-{POOL}-bootstrap"), "value"))?;
        join::join(&mut worker, &script, &worker_images)?;
        eventually("worker that is Ready", PATIENCE, || {
            worker.check_kubelet()?;
            target.check_condition(&["node", WORKER], "Ready")
        })?;
        installation.wait_for(CLUSTER, "Ready")?;
        report.tell("everything is up");
        Ok(Self { target, installation, control_plane, worker, lost: None, _balancer: balancer, lab })
    }

    /// kubectl as the cluster's owner.
    pub(super) fn target(&self) -> &Kubectl {
        &self.target
    }

    /// What `kubectl` prints, as the cluster's owner.
    pub(super) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.target.run(arguments)
    }

    /// kubectl as an administrator of the management cluster.
    pub(super) fn management(&self) -> &Kubectl {
        self.installation.admin()
    }

    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The control-plane machines that are there.
    pub(super) fn control_plane(&self) -> &[Machine] {
        &self.control_plane
    }

    pub(super) fn any_control_plane(&self) -> Result<&Machine> {
        self.control_plane.first().context("no control-plane machine is left")
    }

    pub(super) fn worker(&self) -> &Machine {
        &self.worker
    }

    /// The Nodes of the machines that are there.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.control_plane.iter().chain([&self.worker]).map(Machine::name)
    }

    /// The machine that was destroyed.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// Pulls the plug of the first machine, on which the cluster began.
    pub(super) fn lose_a_control_plane_machine(&mut self, report: &mut Report) {
        let machine = self.control_plane.remove(0);
        let name = machine.name().to_owned();
        report.step(&format!("{name} is destroyed"), || {
            machine.destroy()?;
            Ok("its processes, its disk and its cable are gone".to_owned())
        });
        self.lost = Some(name);
    }
}

/// What the user applies.
fn objects(control_plane: &[Machine], worker: &Machine, endpoint: &str) -> String {
    let nodes: Vec<_> = control_plane
        .iter()
        .zip(["a", "b", "c"])
        .map(|(machine, zone)| json!({"name": machine.name(), "addresses": [machine.address()], "failureDomain": zone}))
        .collect();
    let kubelet = lab_kubelet_settings(worker);
    let cluster = json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "ClusterSpec", "metadata": {"name": CLUSTER},
        "spec": {
            "kubernetesVersion": "v1.37.2",
            "controlPlaneEndpoint": {"host": endpoint, "port": PORT},
            "controlPlane": {"nodes": nodes, "kubelet": kubelet},
            "network": {"podCIDRs": ["10.244.0.0/16"]},
            "addons": {
                // The number of tracked connections belongs to the kernel that all machines share.
                "kubeProxy": {"mode": "nftables", "config": {"conntrack": {"maxPerCore": 0}}},
                "flannel": {"enabled": true},
            },
        },
    });
    let pool = json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "NodePool", "metadata": {"name": POOL},
        "spec": {
            "clusterRef": {"name": CLUSTER},
            "machines": [{"name": worker.name(), "addresses": [worker.address()]}],
            "kubelet": kubelet,
        },
    });
    documents(&[cluster, pool])
}
