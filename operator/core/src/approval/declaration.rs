//! What a person has said about the node that asks: in the `ClusterSpec` and its `NodePool`s, or in the policy of the
//! cluster that Keyplane runs in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use keyplane_crds::{ApproverSpec, ClusterSpecSpec, NodePoolRole, NodePoolSpec};

use super::names::{matches_pattern, parse_address};

/// All that is declared about the nodes of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declarations {
    control_plane: BTreeSet<String>,
    /// Whether these machines are no Nodes.
    servers_only: bool,
    listed: BTreeMap<String, Listed>,
    selectors: Vec<Selector>,
    pools: BTreeSet<String>,
}

/// A machine that is listed by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Listed {
    addresses: BTreeSet<IpAddr>,
    pools: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Selector {
    source: String,
    pool: Option<String>,
    control_plane: bool,
    name_pattern: String,
    ranges: Vec<IpNet>,
    unreadable: Vec<String>,
    max_nodes: Option<usize>,
}

/// What is declared about one node name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declaration {
    node: String,
    declared: bool,
    addresses: BTreeSet<IpAddr>,
    ranges: Vec<IpNet>,
    unreadable: Vec<String>,
    pools: BTreeSet<String>,
    seats: Vec<Seats>,
}

/// How many Nodes a selector that matches the node's name lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seats {
    /// Which selector.
    pub source: String,
    /// The pool that it belongs to.
    pub pool: Option<String>,
    /// How many; nothing means no limit.
    pub max_nodes: Option<usize>,
    /// Whether there is one left for the node.
    pub has_room: bool,
}

/// How an address is declared for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The address itself is listed for the node's name.
    Listed,
    /// A selector matches the node's name and has the address in one of its ranges.
    InRange,
}

impl Declarations {
    /// Collects what is declared in a target cluster. The pools must be those of this cluster.
    ///
    /// - A control-plane node is one that `controlPlane.nodes` names. Pools with the role `ControlPlane` add addresses to
    ///   it; `Worker` pools can't say anything about it, or who may write a `NodePool` could have a worker pass for it.
    ///   Where the control plane's machines are no Nodes, nothing is declared about them: whoever asks under such a name
    ///   is not that machine, and its certificate would pass for an API server's.
    /// - Any other node is declared by `Worker` pools. A machine that is listed by name has the addresses of its entries
    ///   and no others: a selector that matches its name as well would only make the list pointless.
    #[must_use]
    pub fn of_cluster(cluster: &ClusterSpecSpec, pools: &BTreeMap<String, NodePoolSpec>) -> Self {
        let nodes = &cluster.control_plane.nodes;
        let mut declarations = Self {
            control_plane: nodes.iter().map(|node| node.name.clone()).collect(),
            servers_only: !cluster.control_plane.register_nodes,
            pools: pools.keys().cloned().collect(),
            ..Self::default()
        };
        for node in nodes {
            declarations.list(&node.name, &node.addresses, None);
        }
        for (name, pool) in pools {
            let control_plane = pool.role == NodePoolRole::ControlPlane;
            for machine in &pool.machines {
                if declarations.control_plane.contains(&machine.name) == control_plane {
                    declarations.list(&machine.name, &machine.addresses, Some(name));
                }
            }
            if let Some(selector) = &pool.selector {
                declarations.selectors.push(Selector {
                    pool: Some(name.clone()),
                    control_plane,
                    max_nodes: pool.max_nodes.and_then(|max| usize::try_from(max).ok()),
                    ..Selector::new(
                        format!("spec.selector of NodePool {name}"),
                        &selector.name_pattern,
                        &selector.address_cidrs,
                    )
                });
            }
        }
        declarations
    }

    /// Collects what a policy declares in the cluster that Keyplane runs in.
    #[must_use]
    pub fn of_approver(approver: &ApproverSpec) -> Self {
        let mut declarations = Self::default();
        for machine in &approver.machines {
            declarations.list(&machine.name, &machine.addresses, None);
        }
        for (index, nodes) in approver.nodes.iter().enumerate() {
            let source = format!("spec.approver.nodes[{index}] of the CertificatePolicy");
            declarations.selectors.push(Selector {
                max_nodes: nodes.max_nodes.and_then(|max| usize::try_from(max).ok()),
                ..Selector::new(source, &nodes.name_pattern, &nodes.address_cidrs)
            });
        }
        declarations
    }

    fn list(&mut self, name: &str, addresses: &[String], pool: Option<&String>) {
        let listed = self.listed.entry(name.to_owned()).or_default();
        listed.addresses.extend(addresses.iter().filter_map(|address| parse_address(address)));
        listed.pools.extend(pool.cloned());
    }

    /// What is declared about a node name. `has_room` says whether it gets one of so many seats of the selector with that
    /// index.
    #[must_use]
    pub fn of(&self, node: &str, has_room: impl Fn(usize, usize) -> bool) -> Declaration {
        let control_plane = self.control_plane.contains(node);
        let mut declaration = Declaration { node: node.to_owned(), ..Declaration::default() };
        if control_plane && self.servers_only {
            return declaration;
        }
        if let Some(listed) = self.listed.get(node) {
            declaration.declared = true;
            declaration.addresses.clone_from(&listed.addresses);
            declaration.pools.clone_from(&listed.pools);
            if !control_plane {
                return declaration;
            }
        }
        let matching = self.selectors.iter().enumerate().filter(|(_, selector)| {
            selector.control_plane == control_plane && matches_pattern(&selector.name_pattern, node)
        });
        for (index, selector) in matching {
            declaration.declared = true;
            declaration.ranges.extend(&selector.ranges);
            declaration.unreadable.extend(
                selector.unreadable.iter().map(|range| format!("{} has {range:?}, which is no range", selector.source)),
            );
            declaration.pools.extend(selector.pool.clone());
            // The control plane is as large as the ClusterSpec says.
            let max_nodes = selector.max_nodes.filter(|_| !control_plane);
            declaration.seats.push(Seats {
                source: selector.source.clone(),
                pool: selector.pool.clone(),
                max_nodes,
                has_room: max_nodes.is_none_or(|max| has_room(index, max)),
            });
        }
        declaration
    }

    /// The selectors that let in so many Nodes only, by their indices.
    pub fn limited(&self) -> impl Iterator<Item = (usize, usize)> {
        let selectors = self.selectors.iter().enumerate();
        selectors.filter_map(|(index, selector)| Some((index, selector.max_nodes?)))
    }

    /// Whether a Node of that name takes one of the selector's seats. A machine that is listed needs none.
    #[must_use]
    pub fn is_seated(&self, index: usize, name: &str) -> bool {
        let pattern = self.selectors.get(index).map(|selector| &selector.name_pattern);
        !self.listed.contains_key(name) && pattern.is_some_and(|pattern| matches_pattern(pattern, name))
    }

    /// The names of the cluster's pools.
    #[must_use]
    pub fn pools(&self) -> &BTreeSet<String> {
        &self.pools
    }

    /// The machines that are listed by name, with their addresses.
    pub fn listed(&self) -> impl Iterator<Item = (&str, &BTreeSet<IpAddr>)> {
        self.listed.iter().map(|(name, listed)| (name.as_str(), &listed.addresses))
    }
}

impl Selector {
    fn new(source: String, name_pattern: &str, written: &[String]) -> Self {
        let (ranges, unreadable) = parse_ranges(written);
        let name_pattern = name_pattern.to_owned();
        Self { source, pool: None, control_plane: false, name_pattern, ranges, unreadable, max_nodes: None }
    }
}

impl Declaration {
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

    /// The pools that declare the node.
    #[must_use]
    pub fn pools(&self) -> &BTreeSet<String> {
        &self.pools
    }

    /// The room in the selectors that match the node's name; nothing for a machine that is listed.
    #[must_use]
    pub fn seats(&self) -> &[Seats] {
        &self.seats
    }
}

/// Ranges, and what is none.
pub fn parse_ranges(written: &[String]) -> (Vec<IpNet>, Vec<String>) {
    let (mut ranges, mut unreadable) = (vec![], vec![]);
    for range in written {
        match range.parse() {
            Ok(range) => ranges.push(range),
            Err(_) => unreadable.push(range.clone()),
        }
    }
    (ranges, unreadable)
}
