//! The files of a worker node.

use keyplane_crds::Layout;

use crate::host_files::{self, File};
use crate::manifests::{instance_configuration, systemd};
use crate::model::Cluster;
use crate::pki::places::PKI_DIRECTORY;
use crate::yaml;

use super::pool::{Machine, Pool};

/// The mode of files that every user on the host may read.
const PUBLIC: u32 = 0o644;

/// Renders all non-secret files of a listed node. With the layout `StaticPod` these are all files: the only secret of a
/// worker node is the key that its kubelet generates.
#[must_use]
pub fn worker_files(cluster: &Cluster, pool: &Pool, machine: &Machine, trust: &str) -> Vec<File> {
    let addresses: Vec<_> = machine.node_ips(cluster).iter().map(ToString::to_string).collect();
    let labels = pool.kubelet_labels(Some(machine));
    let flags = flags(&machine.name, &addresses.join(","), machine.provider_id.as_deref().unwrap_or_default(), &labels);
    if cluster.layout() == Layout::Systemd {
        let kubelet = pool.kubelet_configuration(cluster);
        let flags = flags.split(' ').map(str::to_owned).collect();
        return systemd::node_files(cluster, &machine.name, &kubelet, &pool.sysctls, flags);
    }
    let mut files = pool_files(cluster, pool, trust, host_files::PACKAGED_KUBELET);
    files.push(File::new("kubeadm-flags.env", FLAGS_FILE, PUBLIC, format!("KUBELET_KUBEADM_ARGS=\"{flags}\"\n")));
    files
}

/// The path of kubeadm for the flags of the kubelet.
pub(super) const FLAGS_FILE: &str = "/var/lib/kubelet/kubeadm-flags.env";

/// Renders the files that are the same on all nodes of a pool.
pub(super) fn pool_files(cluster: &Cluster, pool: &Pool, trust: &str, kubelet_program: &str) -> Vec<File> {
    let kubelet = pool.kubelet_configuration(cluster);
    let mut files = host_files::files(cluster, &kubelet, &pool.sysctls, kubelet_program);
    let ca = format!("{PKI_DIRECTORY}/ca.crt");
    files.extend([
        File::new("ca.crt", ca, PUBLIC, trust.to_owned()),
        File::new("kubelet-config.yaml", "/var/lib/kubelet/config.yaml", PUBLIC, yaml::write(&kubelet)),
        File::new(
            "kubelet-instance-config.yaml",
            "/var/lib/kubelet/instance-config.yaml",
            PUBLIC,
            instance_configuration(),
        ),
    ]);
    files
}

/// Returns the kubelet flags of a worker node, separated by spaces. No value contains a space.
pub(super) fn flags(name: &str, addresses: &str, provider_id: &str, labels: &str) -> String {
    let mut flags = format!("--hostname-override={name} --node-ip={addresses}");
    for (flag, value) in [("provider-id", provider_id), ("node-labels", labels)] {
        if !value.is_empty() {
            flags = format!("{flags} --{flag}={value}");
        }
    }
    flags
}
