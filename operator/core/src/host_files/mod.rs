//! What every machine needs before its kubelet starts: kernel modules and parameters, containerd, and the kubelet's
//! units as kubeadm's packages have them. Control-plane machines and workers have the same files.
//!
//! Swap is not a file: the join data turns it off on workers; see `docs/node-pools.md` for machines of the control plane.

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

/// Where the kubelet finds containerd: kubeadm's `criSocket` default on Linux.
pub const CONTAINER_RUNTIME_ENDPOINT: &str = "unix:///var/run/containerd/containerd.sock";

/// Where kubeadm's packages put the kubelet.
pub const PACKAGED_KUBELET: &str = "/usr/bin/kubelet";

/// Mode of what everybody on the machine may read.
const PUBLIC: u32 = 0o644;

/// The files. `kubelet` is the configuration of the machine's kubelet, `sysctls` are the user's, `kubelet_program` is
/// where the kubelet is.
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

/// Those that are the same wherever the kubelet's files are.
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
