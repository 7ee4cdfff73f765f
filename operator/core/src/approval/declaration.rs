//! The declarations of users about nodes: in the `ClusterSpec` and its `NodePool`s, or in the policy of the management
//! cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use keyplane_crds::{ApproverSpec, ClusterSpecSpec, NodePoolRole, NodePoolSpec};

use super::names::{matches_pattern, parse_address};

/// All declarations about the nodes of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declarations {
    control_plane: BTreeSet<String>,
    /// Whether the control-plane nodes run no kubelet, so that they have no Node objects.
    servers_only: bool,
    listed: BTreeMap<String, Listed>,
    selectors: Vec<Selector>,
    pools: BTreeSet<String>,
}

/// A node that is listed by name.
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

/// The declaration about one node name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declaration {
    node: String,
    declared: bool,
    addresses: BTreeSet<IpAddr>,
    ranges: Vec<IpNet>,
    unreadable: Vec<String>,
    pools: BTreeSet<String>,
    quotas: Vec<SelectorQuota>,
}

/// The quota (`maxNodes`) of a selector that matches the node name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorQuota {
    /// The field of the selector.
    pub source: String,
    /// The pool of the selector.
    pub pool: Option<String>,
    /// The quota. `None` means no limit.
    pub max_nodes: Option<usize>,
    /// Whether the node is within the quota.
    pub has_capacity: bool,
}

/// The way in which an address is declared for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The address is listed for the node name.
    Listed,
    /// A selector matches the node name, and the address is in one of its ranges.
    InRange,
}

impl Declarations {
    /// Collects the declarations of a target cluster. `pools` are the pools of this cluster.
    ///
    /// - `controlPlane.nodes` names the control-plane nodes. Pools with the role `ControlPlane` add addresses to them.
    ///   `Worker` pools declare nothing about them; otherwise everyone who may write a `NodePool` could pass off a
    ///   worker as a control-plane node. If control-plane nodes run no kubelet, nothing is declared about them. A CSR
    ///   under such a name comes from another node, and its certificate could be mistaken for that of an API server.
    /// - `Worker` pools declare all other nodes. A node that is listed by name has only the addresses of its entries.
    ///   If a matching selector added addresses, the list would have no effect.
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

    /// Collects the declarations of a policy for the management cluster.
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

    /// Returns the declaration about a node name. `has_capacity` returns whether the node is within the quota of the
    /// selector with an index.
    #[must_use]
    pub fn of(&self, node: &str, has_capacity: impl Fn(usize, usize) -> bool) -> Declaration {
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
                selector
                    .unreadable
                    .iter()
                    .map(|range| format!("{} has {range:?}, which is not a valid CIDR range", selector.source)),
            );
            declaration.pools.extend(selector.pool.clone());
            // The ClusterSpec determines the size of the control plane.
            let max_nodes = selector.max_nodes.filter(|_| !control_plane);
            declaration.quotas.push(SelectorQuota {
                source: selector.source.clone(),
                pool: selector.pool.clone(),
                max_nodes,
                has_capacity: max_nodes.is_none_or(|max| has_capacity(index, max)),
            });
        }
        declaration
    }

    /// Returns the indices and quotas of selectors with a quota.
    pub fn limited(&self) -> impl Iterator<Item = (usize, usize)> {
        let selectors = self.selectors.iter().enumerate();
        selectors.filter_map(|(index, selector)| Some((index, selector.max_nodes?)))
    }

    /// Returns whether a Node counts toward the quota of a selector. Nodes that are listed by name do not count.
    #[must_use]
    pub fn counts_toward_quota(&self, index: usize, name: &str) -> bool {
        let pattern = self.selectors.get(index).map(|selector| &selector.name_pattern);
        !self.listed.contains_key(name) && pattern.is_some_and(|pattern| matches_pattern(pattern, name))
    }

    /// Returns the names of the pools of the cluster.
    #[must_use]
    pub fn pools(&self) -> &BTreeSet<String> {
        &self.pools
    }

    /// Returns the nodes that are listed by name, with their addresses.
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
    /// Returns the node name of the declaration.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Returns whether a declaration about the node exists.
    #[must_use]
    pub fn is_declared(&self) -> bool {
        self.declared
    }

    /// Returns the way in which an address is declared for the node, if it is declared.
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

    /// Returns the invalid ranges of the declaration. Until they are fixed, the declaration is incomplete.
    #[must_use]
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// Returns the pools that declare the node.
    #[must_use]
    pub fn pools(&self) -> &BTreeSet<String> {
        &self.pools
    }

    /// Returns the quotas of the selectors that match the node name. The list is empty for a node that is listed by
    /// name.
    #[must_use]
    pub fn quotas(&self) -> &[SelectorQuota] {
        &self.quotas
    }
}

/// Parses ranges. Returns the valid ranges and the invalid texts.
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
