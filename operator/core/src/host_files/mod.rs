//! The host files that a node needs before its kubelet starts: kernel modules and parameters, containerd, and the
//! kubelet units of kubeadm's packages. Control-plane nodes and worker nodes have the same files.
//!
//! Swap is not a file: the join data disables it on worker nodes; see `docs/node-pools.md` for control-plane nodes.

mod containerd;
mod file;
mod kernel;
mod units;

use std::collections::BTreeMap;

use serde_json::Value;

pub use file::File;
pub use kernel::{KERNEL_MODULES, SYSCTL_FILE};
pub use units::{CONTAINERD_UNIT, containerd_unit};

use crate::model::Cluster;

/// The containerd endpoint for the kubelet: kubeadm's `criSocket` default on Linux.
pub const CONTAINER_RUNTIME_ENDPOINT: &str = "unix:///var/run/containerd/containerd.sock";

/// The path of the kubelet in kubeadm's packages.
pub const PACKAGED_KUBELET: &str = "/usr/bin/kubelet";

/// The mode of files that every user on the host may read.
const PUBLIC: u32 = 0o644;

/// Renders the files. `kubelet` is the KubeletConfiguration, `sysctls` are the user's kernel parameters,
/// `kubelet_program` is the path of the kubelet.
#[must_use]
pub fn files(
    cluster: &Cluster,
    kubelet: &Value,
    sysctls: &BTreeMap<String, String>,
    kubelet_program: &str,
) -> Vec<File> {
    let mut files = common_files(cluster, kubelet, sysctls);
    files.extend([
        File::new(
            "kubelet.service",
            "/usr/lib/systemd/system/kubelet.service",
            PUBLIC,
            units::kubelet_unit(kubelet_program),
        ),
        File::new(
            "10-kubeadm.conf",
            "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf",
            PUBLIC,
            units::kubeadm_drop_in(kubelet_program),
        ),
    ]);
    files
}

/// Renders the files that both layouts have in common.
#[must_use]
pub fn common_files(cluster: &Cluster, kubelet: &Value, sysctls: &BTreeMap<String, String>) -> Vec<File> {
    let mut files = vec![
        File::new("modules.conf", "/etc/modules-load.d/k8s.conf", PUBLIC, kernel::modules_file()),
        File::new("sysctl.conf", SYSCTL_FILE, PUBLIC, kernel::sysctl_file(cluster, sysctls)),
        File::new(
            "containerd-config.toml",
            "/etc/containerd/config.toml",
            PUBLIC,
            containerd::configuration(cluster, kubelet),
        ),
        File::new("crictl.yaml", "/etc/crictl.yaml", PUBLIC, containerd::crictl()),
    ];
    files.extend(containerd::mirrors(cluster));
    files
}
