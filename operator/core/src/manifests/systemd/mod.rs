//! The layout `Systemd`: the components as units, with their files where Kubernetes the Hard Way has them.

mod control_plane;
mod node;
mod pod_network;
mod unit;

pub use node::node_files;
pub use pod_network::{POD_NETWORK_FILES, PodRanges, pod_network, pod_ranges};

use std::collections::BTreeMap;

use super::kubelet::{configuration_of_machines, machine_flags};
use crate::etcd::InitialCluster;
use crate::host_files::File;
use crate::model::{Cluster, Node};

/// Where the programs lie that a person or an agent has put on the machine.
const PROGRAMS: &str = "/usr/local/bin";

/// Mode of units and configuration: there is nothing secret in them.
const PUBLIC: u32 = 0o644;

/// Every file of a control-plane machine that isn't secret and that the ClusterSpec alone decides.
pub(super) fn files(cluster: &Cluster, machine: &Node, initial_cluster: &InitialCluster) -> Vec<File> {
    let mut files = control_plane::files(cluster, machine, initial_cluster);
    if cluster.has_kubelet(machine) {
        let kubelet = configuration_of_machines(cluster, cluster.spec.control_plane.kubelet.as_ref());
        let flags = machine_flags(cluster, machine).into();
        files.extend(node_files(cluster, &machine.name, &kubelet, &BTreeMap::new(), flags));
    }
    files
}

/// A file that everybody on the machine may read.
fn file(key: &'static str, path: &'static str, content: String) -> File {
    File::new(key, path, PUBLIC, content)
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
