//! kube-scheduler as a static pod (kubeadm's `phases/controlplane/manifests.go`).

use super::Image;
use super::arguments::{Arguments, value_of};
use super::static_pod::{Component, Mounts, ProbeTarget, probe_host};
use crate::cluster::Cluster;

const KUBECONFIG: &str = "/etc/kubernetes/scheduler.conf";
/// `KubeSchedulerPort` of Kubernetes.
const PORT: i32 = 10259;

pub(super) fn manifest(cluster: &Cluster) -> String {
    let written = &cluster.spec.control_plane.scheduler;
    let address = value_of(&written.extra_args, "bind-address").unwrap_or("127.0.0.1");
    Component {
        image: Image::Scheduler,
        command: Arguments::default()
            .with("bind-address", "127.0.0.1")
            .with("leader-elect", "true")
            .with("kubeconfig", KUBECONFIG)
            .with("authentication-kubeconfig", KUBECONFIG)
            .with("authorization-kubeconfig", KUBECONFIG)
            .command("kube-scheduler", &cluster.scheduler_arguments()),
        annotation: None,
        mounts: Mounts::default().file("kubeconfig", KUBECONFIG).extra(&written.extra_volumes),
        requests: &[("cpu", "100m")],
        resources: written.resources.clone(),
        probe: ProbeTarget { host: probe_host(address), port: PORT, scheme: "HTTPS" },
        liveness_path: "/livez",
        readiness_path: Some("/readyz"),
        startup_path: "/livez",
    }
    .manifest(cluster)
}
