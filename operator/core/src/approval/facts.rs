//! The input of the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::names::DnsName;
use super::{Declaration, Nodes, Reserved, Terms};

/// The lookup results for DNS names: addresses, or an error message.
pub type Resolved = BTreeMap<DnsName, Result<BTreeSet<IpAddr>, String>>;

/// The input of the rules apart from the CSR.
#[derive(Clone, Copy, Debug)]
pub struct ApprovalFacts<'a> {
    /// The Nodes of the cluster.
    pub nodes: &'a Nodes,
    /// The declaration for the node of the CSR.
    pub declaration: &'a Declaration,
    /// The names and addresses that no node may have.
    pub reserved: &'a Reserved,
    /// The parameters of the policy.
    pub terms: &'a Terms,
    /// The names of the pools of the cluster.
    pub pools: &'a BTreeSet<String>,
    /// Whether another client CSR for the node name is approved and the Node does not exist yet.
    pub admitted: bool,
    /// The lookup results so far.
    pub resolved: &'a Resolved,
}
