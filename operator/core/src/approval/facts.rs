//! What is known when a request is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::names::DnsName;
use super::{Declaration, Nodes, Reserved, Terms};

/// What the cluster's DNS gave for names: addresses, or why there are none.
pub type Resolved = BTreeMap<DnsName, Result<BTreeSet<IpAddr>, String>>;

/// What is known when a request is judged.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The Nodes of the cluster.
    pub nodes: &'a Nodes,
    /// What is declared about a node of that name.
    pub declaration: &'a Declaration,
    /// What no node may have.
    pub reserved: &'a Reserved,
    /// What the cluster's policy says.
    pub terms: &'a Terms,
    /// The names of the pools of the cluster.
    pub pools: &'a BTreeSet<String>,
    /// Whether a certificate was approved for a machine of that name that has not made its Node yet, by another request.
    pub admitted: bool,
    /// What the names of the request resolve to, as far as it was looked up.
    pub resolved: &'a Resolved,
}
