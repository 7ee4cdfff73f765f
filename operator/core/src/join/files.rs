//! The files of a worker.

use keyplane_crds::Layout;

use crate::host_files::File;
use crate::manifests::{instance_configuration, systemd};
use crate::model::Cluster;
use crate::pki::places::PKI_DIRECTORY;
use crate::{host_files, yaml};

use super::pool::{Machine, Pool};

/// Mode of what everybody on the machine may read.
const PUBLIC: u32 = 0o644;

/// Every file of a declared machine that isn't secret. In kubeadm's layout none is: a worker's only secret is the key
/// that its kubelet makes.
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

/// Where kubeadm writes a kubelet's flags.
pub(super) const FLAGS_FILE: &str = "/var/lib/kubelet/kubeadm-flags.env";

/// The files that all machines of a pool have.
pub(super) fn pool_files(cluster: &Cluster, pool: &Pool, trust: &str, kubelet_program: &str) -> Vec<File> {
    let kubelet = pool.kubelet_configuration(cluster);
    let mut files = host_files::files(cluster, &kubelet, &pool.sysctls, kubelet_program);
    let authority = format!("{PKI_DIRECTORY}/ca.crt");
    files.extend([
        File::new("ca.crt", authority, PUBLIC, trust.to_owned()),
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

/// A worker's kubelet's flags. They are told apart by a blank, and no value has one.
pub(super) fn flags(name: &str, addresses: &str, provider_id: &str, labels: &str) -> String {
    let mut flags = format!("--hostname-override={name} --node-ip={addresses}");
    for (flag, value) in [("provider-id", provider_id), ("node-labels", labels)] {
        if !value.is_empty() {
            flags = format!("{flags} --{flag}={value}");
        }
    }
    flags
}
