//! The options of the API server that kubeadm has no fields for: their files, flags and mounts. Without an option
//! there is nothing of it, and every file is kubeadm's.
//!
//! Each option has a directory, which is mounted as a whole: the mount of a single file would stay with the old one
//! after a rename.

mod audit;
mod authentication;
mod encryption;
mod events;
mod pod_security;

use keyplane_crds::{Argument, HostPathMount, keys};

use crate::checksum::checksum;
use crate::host_files::File;
use crate::model::Cluster;

pub use audit::WEBHOOK_KUBECONFIG;
pub use encryption::encryption_configuration;

/// What an option is to the API server.
#[derive(Debug, Default)]
struct ApiServerOption {
    files: Vec<File>,
    arguments: Vec<(&'static str, String)>,
    mounts: Vec<HostPathMount>,
    /// What the API server reads only when it starts.
    read_at_start: Option<(&'static str, String)>,
}

fn of(cluster: &Cluster) -> impl Iterator<Item = ApiServerOption> {
    let etcd = events::option(cluster);
    let encryption = encryption::option(cluster);
    [audit::option(cluster), authentication::option(cluster), pod_security::option(cluster), etcd, encryption]
        .into_iter()
        .flatten()
}

/// Their files on a control-plane machine that aren't secret.
pub(super) fn files(cluster: &Cluster) -> Vec<File> {
    of(cluster).flat_map(|option| option.files).collect()
}

/// The directories that they need in the API server's container.
pub(super) fn mounts(cluster: &Cluster) -> Vec<HostPathMount> {
    of(cluster).flat_map(|option| option.mounts).collect()
}

/// The API server's flags as kubeadm has to know them: `kubeadm upgrade` writes its manifest from its configuration.
pub(super) fn extra_arguments(cluster: &Cluster) -> Vec<Argument> {
    let ours =
        of(cluster).flat_map(|option| option.arguments).map(|(name, value)| Argument { name: name.to_owned(), value });
    ours.chain(cluster.api_server_arguments()).collect()
}

/// The API server's directories as kubeadm has to know them.
pub(super) fn extra_volumes(cluster: &Cluster) -> Vec<HostPathMount> {
    let mut volumes = mounts(cluster);
    volumes.extend(cluster.spec.control_plane.api_server.extra_volumes.iter().cloned());
    volumes
}

/// The annotation of the API server's pod, where there is something that it reads only when it starts.
pub(super) fn annotation(cluster: &Cluster) -> Option<(&'static str, String)> {
    let read: Vec<_> = of(cluster).filter_map(|option| option.read_at_start).collect();
    let entries = read.iter().map(|(name, text)| (*name, text.as_bytes()));
    (!read.is_empty()).then(|| (keys::CONFIG_CHECKSUM_ANNOTATION, checksum(entries)))
}

fn file(key: &'static str, path: &'static str, content: String) -> File {
    // Only the API server reads them, as root; the CIS Kubernetes Benchmark wants its configuration to be root's alone.
    File { key: key.into(), path: path.into(), mode: 0o600, content }
}

fn mount(name: &str, path: &str, read_only: bool) -> HostPathMount {
    HostPathMount {
        name: name.to_owned(),
        host_path: path.to_owned(),
        mount_path: path.to_owned(),
        read_only,
        path_type: "DirectoryOrCreate".to_owned(),
    }
}
