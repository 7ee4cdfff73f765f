//! The non-secret files of control-plane nodes: static pod manifests and the kubelet's configuration as kubeadm 1.37
//! writes them, or the same components as systemd units.
//!
//! `docs/kubeadm-differences.md` lists every difference from kubeadm with its reason, and the oracle test compares this
//! module with kubeadm. The flags of a component are the same in both layouts, except for paths.

mod apiserver;
mod arguments;
mod cluster_configuration;
mod controller_manager;
mod etcd;
mod kube_proxy;
mod kubelet;
mod options;
mod scheduler;
mod static_pod;
pub mod systemd;

use std::collections::BTreeMap;

pub use cluster_configuration::cluster_configuration;
pub use kube_proxy::{DIRECTORY as KUBE_PROXY_DIRECTORY, kube_proxy_configuration};
pub use kubelet::{
    flags_env, instance_configuration, kubelet_configuration, node_kubelet_configuration, shared_kubelet_configuration,
};

pub use apiserver::{ETCD_CLIENT_CERTIFICATE, ETCD_CLIENT_KEY, ETCD_TRUST};
pub use options::{WEBHOOK_KUBECONFIG, encryption_configuration};

use keyplane_crds::Layout;

use crate::etcd::InitialCluster;
use crate::host_files::{self, File};
use crate::model::{Cluster, Node};

/// Renders the non-secret files of a control-plane node that depend only on the ClusterSpec. `initial_cluster` is for
/// the first start of etcd.
#[must_use]
pub fn files(cluster: &Cluster, node: &Node, initial_cluster: &InitialCluster) -> Vec<File> {
    if cluster.layout() == Layout::Systemd {
        return systemd::files(cluster, node, initial_cluster);
    }
    let file = |key: &'static str, path: &'static str, mode, content| File::new(key, path, mode, content);
    // Modes are kubeadm's: staticpod.WriteStaticPodToDisk 0600, kubelet.writeConfigBytesToDisk 0644.
    let etcd = cluster.external_etcd().is_none().then(|| {
        let manifest = etcd::manifest(cluster, node, initial_cluster);
        file("etcd.yaml", "/etc/kubernetes/manifests/etcd.yaml", 0o600, manifest)
    });
    let components = vec![
        file(
            "kube-apiserver.yaml",
            "/etc/kubernetes/manifests/kube-apiserver.yaml",
            0o600,
            apiserver::manifest(cluster, node),
        ),
        file(
            "kube-controller-manager.yaml",
            "/etc/kubernetes/manifests/kube-controller-manager.yaml",
            0o600,
            controller_manager::manifest(cluster),
        ),
        file(
            "kube-scheduler.yaml",
            "/etc/kubernetes/manifests/kube-scheduler.yaml",
            0o600,
            scheduler::manifest(cluster),
        ),
        file("kubelet-config.yaml", "/var/lib/kubelet/config.yaml", 0o644, kubelet_configuration(cluster)),
        file("kubelet-instance-config.yaml", "/var/lib/kubelet/instance-config.yaml", 0o644, instance_configuration()),
        file("kubeadm-flags.env", "/var/lib/kubelet/kubeadm-flags.env", 0o644, flags_env(cluster, node)),
    ];
    // The files that an API server reads at startup come before the manifest that starts it.
    let mut files = options::files(cluster);
    files.extend(etcd);
    files.extend(components);
    let kubelet = node_kubelet_configuration(cluster, cluster.spec.control_plane.kubelet.as_ref());
    files.extend(host_files::files(cluster, &kubelet, &BTreeMap::new(), host_files::PACKAGED_KUBELET));
    files
}
