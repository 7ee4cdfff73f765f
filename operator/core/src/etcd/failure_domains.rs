//! Checks whether the control plane survives the loss of a failure domain.

use std::collections::BTreeMap;

use super::majority;
use crate::model::Cluster;

/// The spread of the nodes across failure domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spread {
    /// The control plane survives the loss of any one domain.
    Even,
    /// Some nodes declare a failure domain, and these do not.
    Undeclared(Vec<String>),
    /// The control plane does not survive the loss of this domain.
    Uneven {
        /// The domain with the most nodes.
        domain: String,
        /// The number of its nodes.
        nodes: usize,
        /// The allowed number of nodes in a domain.
        most: usize,
    },
}

/// Returns the spread of the control-plane nodes; `None` if no node declares a failure domain.
#[must_use]
pub fn spread(cluster: &Cluster) -> Option<Spread> {
    let mut domains: BTreeMap<&str, usize> = BTreeMap::new();
    let mut undeclared = vec![];
    for node in &cluster.nodes {
        match &node.failure_domain {
            Some(domain) => *domains.entry(domain).or_default() += 1,
            None => undeclared.push(node.name.clone()),
        }
    }
    let (domain, nodes) = domains.into_iter().max_by_key(|(_, nodes)| *nodes)?;
    if !undeclared.is_empty() {
        return Some(Spread::Undeclared(undeclared));
    }
    // With external etcd one API server is sufficient.
    let needed = if cluster.external_etcd().is_some() { 1 } else { majority(cluster.nodes.len()) };
    let most = cluster.nodes.len() - needed;
    Some(if nodes <= most { Spread::Even } else { Spread::Uneven { domain: domain.to_owned(), nodes, most } })
}
