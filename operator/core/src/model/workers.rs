//! The workers that are declared by name.

use std::collections::BTreeSet;
use std::net::IpAddr;

use keyplane_crds::{NodePoolRole, NodePoolSpec};

use super::{Node, is_dns_name};

/// A worker whose files Keyplane writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// The machine.
    pub node: Node,
    /// The NodePool that lists it.
    pub pool: String,
}

/// The machines that the pools list, each once. One that makes no sense is left out: admission refuses it, and a pool
/// of somebody else's must not hold up the cluster. The name of a control-plane machine is not a worker's to have.
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
    fn a_machine_is_taken_once_and_never_under_the_name_of_a_control_plane_machine() {
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
