//! The options of the API server that kubeadm has no fields for: their files, flags and mounts. Without these options
//! every file is the same as in kubeadm.
//!
//! Each option has a directory, which is mounted as a whole: a mount of a single file would still show the old file
//! after an atomic rename.

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

/// The files, flags and mounts of an option.
#[derive(Debug, Default)]
struct ApiServerOption {
    files: Vec<File>,
    arguments: Vec<(&'static str, String)>,
    mounts: Vec<HostPathMount>,
    /// A name and the content that the API server reads only at startup.
    read_at_start: Option<(&'static str, String)>,
}

fn of(cluster: &Cluster) -> impl Iterator<Item = ApiServerOption> {
    let events = events::option(cluster);
    let encryption = encryption::option(cluster);
    [audit::option(cluster), authentication::option(cluster), pod_security::option(cluster), events, encryption]
        .into_iter()
        .flatten()
}

/// Returns the non-secret files of the options on a control-plane node.
pub(super) fn files(cluster: &Cluster) -> Vec<File> {
    of(cluster).flat_map(|option| option.files).collect()
}

/// Returns the mounts of the options in the container of the API server.
pub(super) fn mounts(cluster: &Cluster) -> Vec<HostPathMount> {
    of(cluster).flat_map(|option| option.mounts).collect()
}

/// Returns the flags of the options and of the user for kubeadm's configuration, from which `kubeadm upgrade` renders
/// the manifest.
pub(super) fn extra_arguments(cluster: &Cluster) -> Vec<Argument> {
    let ours =
        of(cluster).flat_map(|option| option.arguments).map(|(name, value)| Argument { name: name.to_owned(), value });
    ours.chain(cluster.api_server_arguments()).collect()
}

/// Returns the volumes of the options and of the user for kubeadm's configuration.
pub(super) fn extra_volumes(cluster: &Cluster) -> Vec<HostPathMount> {
    let mut volumes = mounts(cluster);
    volumes.extend(cluster.spec.control_plane.api_server.extra_volumes.iter().cloned());
    volumes
}

/// Returns the annotation with the checksum of the content that the API server reads only at startup. A change of the
/// annotation restarts the static pod.
pub(super) fn annotation(cluster: &Cluster) -> Option<(&'static str, String)> {
    let read: Vec<_> = of(cluster).filter_map(|option| option.read_at_start).collect();
    let entries = read.iter().map(|(name, text)| (*name, text.as_bytes()));
    (!read.is_empty()).then(|| (keys::CONFIG_CHECKSUM_ANNOTATION, checksum(entries)))
}

fn file(key: &'static str, path: &'static str, content: String) -> File {
    // Only the API server reads these files, as root. The CIS Kubernetes Benchmark requires that only root can read its
    // configuration.
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
