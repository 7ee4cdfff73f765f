//! What the `ClusterSpec` and the `NodePool`s say about the node that asks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use keyplane_crds::{ClusterSpecSpec, NodePoolRole, NodePoolSpec};

use super::names::{matches_pattern, parse_address};

/// What is declared about one node name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    node: String,
    declared: bool,
    addresses: BTreeSet<IpAddr>,
    ranges: Vec<IpNet>,
    unreadable: Vec<String>,
}

/// How an address is declared for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The address itself is listed for the node's name.
    Listed,
    /// A selector matches the node's name and has the address in one of its ranges.
    InRange,
}

impl Declaration {
    /// Collects what is declared about a node name. The pools must be those of this cluster.
    ///
    /// - A control-plane node is one that `controlPlane.nodes` names. Pools with the role `ControlPlane` add addresses to
    ///   it; `Worker` pools can't say anything about it, or who may write a `NodePool` could have a worker pass for it.
    ///   Where the control plane's machines are no Nodes, nothing is declared about them: whoever asks under such a name
    ///   is not that machine, and its certificate would pass for an API server's.
    /// - Any other node is declared by `Worker` pools. A machine that is listed by name has the addresses of its entries
    ///   and no others: a selector that matches its name as well would only make the list pointless.
    #[must_use]
    pub fn of(node: &str, cluster: &ClusterSpecSpec, pools: &[NodePoolSpec]) -> Self {
        let control_plane = is_control_plane(node, cluster);
        if control_plane && !cluster.control_plane.register_nodes {
            return Self {
                node: node.to_owned(),
                declared: false,
                addresses: BTreeSet::new(),
                ranges: vec![],
                unreadable: vec![],
            };
        }
        let listed = listed_addresses(cluster, pools).remove(node);
        let mut declaration = Self {
            node: node.to_owned(),
            declared: listed.is_some(),
            addresses: listed.clone().unwrap_or_default(),
            ranges: vec![],
            unreadable: vec![],
        };
        if listed.is_some() && !control_plane {
            return declaration;
        }
        let selectors = pools
            .iter()
            .filter(|pool| (pool.role == NodePoolRole::ControlPlane) == control_plane)
            .filter_map(|pool| pool.selector.as_ref())
            .filter(|selector| matches_pattern(&selector.name_pattern, node));
        for range in selectors.flat_map(|selector| &selector.address_cidrs) {
            declaration.declared = true;
            match range.parse() {
                Ok(range) => declaration.ranges.push(range),
                Err(_) => declaration.unreadable.push(range.clone()),
            }
        }
        declaration
    }

    /// The node name that this is about.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether anything is declared about the node.
    #[must_use]
    pub fn is_declared(&self) -> bool {
        self.declared
    }

    /// How the address is declared for the node, if it is.
    #[must_use]
    pub fn claim(&self, address: &IpAddr) -> Option<Claim> {
        if self.addresses.contains(address) {
            Some(Claim::Listed)
        } else if self.ranges.iter().any(|range| range.contains(address)) {
            Some(Claim::InRange)
        } else {
            None
        }
    }

    /// Ranges of the declaration that could not be read: until they are, nobody knows what is declared.
    #[must_use]
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }
}

/// Whether the `ClusterSpec` names the node as a machine of the control plane.
fn is_control_plane(node: &str, cluster: &ClusterSpecSpec) -> bool {
    cluster.control_plane.nodes.iter().any(|declared| declared.name == node)
}

/// The addresses that are listed for each machine by its name, as far as the one who lists them may.
pub fn listed_addresses(cluster: &ClusterSpecSpec, pools: &[NodePoolSpec]) -> BTreeMap<String, BTreeSet<IpAddr>> {
    let nodes = cluster.control_plane.nodes.iter().map(|node| (&node.name, &node.addresses));
    let machines = pools.iter().flat_map(|pool| {
        let control_plane = pool.role == NodePoolRole::ControlPlane;
        let theirs =
            pool.machines.iter().filter(move |machine| is_control_plane(&machine.name, cluster) == control_plane);
        theirs.map(|machine| (&machine.name, &machine.addresses))
    });
    let mut listed: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
    for (name, addresses) in nodes.chain(machines) {
        let known = listed.entry(name.clone()).or_default();
        known.extend(addresses.iter().filter_map(|address| parse_address(address)));
    }
    listed
}
