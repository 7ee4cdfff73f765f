//! The layout `Systemd`: the components as systemd units, with the paths of Kubernetes the Hard Way.

mod control_plane;
mod node;
mod pod_network;
mod unit;

pub use node::node_files;
pub use pod_network::{POD_NETWORK_FILES, PodRanges, pod_network, pod_ranges};

use std::collections::BTreeMap;

use super::kubelet::{node_flags, node_kubelet_configuration};
use crate::etcd::InitialCluster;
use crate::host_files::File;
use crate::model::{Cluster, Node};

/// The directory of the programs, which the administrator installs.
const PROGRAMS: &str = "/usr/local/bin";

/// The mode of units and configuration files, which contain no secrets.
const PUBLIC: u32 = 0o644;

/// Renders the non-secret files of a control-plane node that depend only on the ClusterSpec.
pub(super) fn files(cluster: &Cluster, node: &Node, initial_cluster: &InitialCluster) -> Vec<File> {
    let mut files = control_plane::files(cluster, node, initial_cluster);
    if cluster.has_kubelet(node) {
        let kubelet = node_kubelet_configuration(cluster, cluster.spec.control_plane.kubelet.as_ref());
        let flags = node_flags(cluster, node).into();
        files.extend(node_files(cluster, &node.name, &kubelet, &BTreeMap::new(), flags));
    }
    files
}

/// Creates a file that every user on the host may read.
fn file(key: &'static str, path: &'static str, content: String) -> File {
    File::new(key, path, PUBLIC, content)
}

/// Returns the command line of a component, with the path of its program.
fn program(mut command: Vec<String>) -> String {
    if let Some(name) = command.first_mut() {
        *name = format!("{PROGRAMS}/{name}");
    }
    unit::command_line(&command)
}

fn setting(name: &'static str, value: &str) -> (&'static str, String) {
    (name, value.to_owned())
}

/// Returns the restart settings: five seconds after a failure, without a limit.
fn restart() -> Vec<(&'static str, String)> {
    vec![setting("Restart", "on-failure"), setting("RestartSec", "5")]
}
