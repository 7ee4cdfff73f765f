//! The flags and the static pod of kube-scheduler (kubeadm's `phases/controlplane/manifests.go`).

use keyplane_crds::Layout;
use serde_json::json;

use super::arguments::{Arguments, value_of};
use super::static_pod::{Component, Mounts, ProbeTarget, probe_host};
use crate::images::Image;
use crate::model::Cluster;
use crate::pki::places;
use crate::yaml;

const KUBECONFIG: &str = "scheduler.conf";
/// The path of the scheduler's configuration in Kubernetes the Hard Way.
pub(super) const CONFIGURATION_PATH: &str = "/etc/kubernetes/config/kube-scheduler.yaml";
/// `KubeSchedulerPort` of Kubernetes.
const PORT: i32 = 10259;

pub(super) fn manifest(cluster: &Cluster) -> String {
    let written = &cluster.spec.control_plane.scheduler;
    let address = value_of(&written.extra_args, "bind-address").unwrap_or("127.0.0.1");
    Component {
        image: Image::Scheduler,
        command: command(cluster),
        annotation: None,
        mounts: Mounts::default().file("kubeconfig", &kubeconfig(cluster)).extra(&written.extra_volumes),
        requests: &[("cpu", "100m")],
        resources: written.resources.clone(),
        probe: ProbeTarget { host: probe_host(address), port: PORT, scheme: "HTTPS" },
        liveness_path: "/livez",
        readiness_path: Some("/readyz"),
        startup_path: "/livez",
    }
    .manifest(cluster)
}

pub(super) fn command(cluster: &Cluster) -> Vec<String> {
    let kubeconfig = kubeconfig(cluster);
    let arguments = Arguments::default()
        .with("bind-address", "127.0.0.1")
        .with("authentication-kubeconfig", &kubeconfig)
        .with("authorization-kubeconfig", &kubeconfig);
    let arguments = match cluster.layout() {
        Layout::StaticPod => arguments.with("leader-elect", "true").with("kubeconfig", kubeconfig),
        Layout::Systemd => arguments.with("config", CONFIGURATION_PATH),
    };
    arguments.command("kube-scheduler", &cluster.scheduler_arguments())
}

/// Renders the configuration file that replaces some flags with the layout `Systemd`.
pub(super) fn configuration(cluster: &Cluster) -> String {
    yaml::write(&json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig(cluster)},
        "leaderElection": {"leaderElect": true},
    }))
}

fn kubeconfig(cluster: &Cluster) -> String {
    places::kubeconfig(cluster.layout(), KUBECONFIG)
}
