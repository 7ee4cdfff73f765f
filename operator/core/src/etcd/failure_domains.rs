//! Whether the loss of what fails together leaves the control plane working.

use std::collections::BTreeMap;

use super::majority;
use crate::model::Cluster;

/// How the nodes are spread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spread {
    /// Any one domain can be lost.
    Even,
    /// Some nodes say where they stand, these don't.
    Undeclared(Vec<String>),
    /// The control plane ends with this domain.
    Uneven {
        /// The domain with the most nodes.
        domain: String,
        /// How many.
        nodes: usize,
        /// The most that one domain may have.
        most: usize,
    },
}

/// How the control-plane nodes are spread; nothing if none says where it stands.
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
    // Without etcd on the nodes one API server is enough.
    let needed = if cluster.external_etcd().is_some() { 1 } else { majority(cluster.nodes.len()) };
    let most = cluster.nodes.len() - needed;
    Some(if nodes <= most { Spread::Even } else { Spread::Uneven { domain: domain.to_owned(), nodes, most } })
}
