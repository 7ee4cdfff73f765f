//! The worker nodes that NodePools list by name.

use std::collections::BTreeSet;
use std::net::IpAddr;

use keyplane_crds::{NodePoolRole, NodePoolSpec};

use super::{Node, is_dns_name};

/// A worker node with a Secret and a ConfigMap of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// The node.
    pub node: Node,
    /// The NodePool that lists the node.
    pub pool: String,
}

/// The nodes that the pools list, each once. An invalid entry is skipped: admission refuses it, and another user's pool
/// must not block the cluster. A worker node can't have the name of a control-plane node.
pub(super) fn listed<'a>(
    control_plane: &[Node],
    pools: impl IntoIterator<Item = (String, &'a NodePoolSpec)>,
) -> Vec<Worker> {
    let mut names: BTreeSet<_> = control_plane.iter().map(|node| node.name.clone()).collect();
    let mut workers = vec![];
    for (pool, spec) in pools.into_iter().filter(|(_, spec)| spec.role == NodePoolRole::Worker) {
        for machine in spec.machines.iter().filter(|machine| is_dns_name(&machine.name)) {
            let addresses: Vec<IpAddr> = machine.addresses.iter().filter_map(|text| text.parse().ok()).collect();
            let Some(advertise_address) = addresses.first().copied() else { continue };
            if names.insert(machine.name.clone()) {
                let node = Node { name: machine.name.clone(), addresses, advertise_address, failure_domain: None };
                workers.push(Worker { node, pool: pool.clone() });
            }
        }
    }
    workers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_each_node_once_and_no_control_plane_name() {
        let pool = |yaml: &str| serde_saphyr::from_str::<NodePoolSpec>(yaml).unwrap();
        let pools = [
            pool(
                "{clusterRef: {name: a}, machines: [{name: w1, addresses: [10.0.0.21, 'fd00::15']}, {name: cp1, addresses: [10.0.0.22]}]}",
            ),
            pool(
                "{clusterRef: {name: a}, machines: [{name: w1, addresses: [10.0.0.23]}, {name: w2, addresses: [x]}, {name: A b, addresses: [10.0.0.24]}]}",
            ),
            pool("{clusterRef: {name: a}, role: ControlPlane, machines: [{name: w3, addresses: [10.0.0.25]}]}"),
        ];
        let advertise_address = "10.0.0.11".parse().unwrap();
        let nodes = [Node {
            name: "cp1".to_owned(),
            addresses: vec![advertise_address],
            advertise_address,
            failure_domain: None,
        }];
        let workers =
            listed(&nodes, [("a".to_owned(), &pools[0]), ("b".to_owned(), &pools[1]), ("c".to_owned(), &pools[2])]);
        let names: Vec<_> = workers
            .iter()
            .map(|worker| (worker.node.name.as_str(), worker.node.advertise_address.to_string()))
            .collect();
        assert_eq!(names, [("w1", "10.0.0.21".to_owned())]);
        assert_eq!(workers[0].pool, "a");
    }
}
