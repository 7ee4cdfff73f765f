//! The layout `Systemd`: the components as units, with their files where Kubernetes the Hard Way has them.

mod control_plane;
mod node;
mod pod_network;
mod unit;

pub use pod_network::{POD_NETWORK_FILES, PodRanges, pod_network, pod_ranges};

use super::File;
use crate::cluster::{Cluster, Node};

/// Where the programs lie that a person or an agent has put on the machine.
const PROGRAMS: &str = "/usr/local/bin";

/// Mode of units and configuration: there is nothing secret in them.
const PUBLIC: u32 = 0o644;

/// Every file of a machine that isn't secret and that the ClusterSpec alone decides.
#[must_use]
pub fn files(cluster: &Cluster, machine: &Node) -> Vec<File> {
    let mut files = vec![];
    if cluster.is_control_plane(machine) {
        files.extend(control_plane::files(cluster, machine));
    }
    if cluster.has_kubelet(machine) {
        files.extend(node::files(cluster, machine));
    }
    files
}

/// A file that everybody on the machine may read.
pub(crate) fn file(key: &'static str, path: &'static str, content: String) -> File {
    File { key, path, mode: PUBLIC, content }
}

/// A component's command, with the path of its program.
fn program(mut command: Vec<String>) -> String {
    if let Some(name) = command.first_mut() {
        *name = format!("{PROGRAMS}/{name}");
    }
    unit::command_line(&command)
}

fn setting(name: &'static str, value: &str) -> (&'static str, String) {
    (name, value.to_owned())
}

/// A service that fails is started again after five seconds, as often as it takes.
fn restart() -> Vec<(&'static str, String)> {
    vec![setting("Restart", "on-failure"), setting("RestartSec", "5")]
}
