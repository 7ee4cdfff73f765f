//! Enforces `maxNodes`: the oldest Nodes are within the quota of a selector.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use super::declaration::Declarations;
use super::nodes::{NodeFacts, Nodes};

/// The quota of each selector. Ranking each of thousands of Nodes would dominate the run time, so only the last Node
/// within the quota is kept for each selector.
#[derive(Clone, Debug, Default)]
pub struct NodeQuota {
    selectors: BTreeMap<usize, SelectorUsage>,
}

#[derive(Clone, Debug)]
struct SelectorUsage {
    /// The number of Nodes that count toward the quota.
    nodes: usize,
    /// The last Node within the quota, if the quota is exceeded.
    last: Option<Place>,
}

/// The rank of a Node: by creation time, then by name.
type Place = (Option<Timestamp>, String);

impl NodeQuota {
    /// Computes the quotas for all Nodes.
    #[must_use]
    pub fn of(declarations: &Declarations, nodes: &Nodes) -> Self {
        let usage = |(index, max): (usize, usize)| {
            let mut candidates: Vec<&NodeFacts> =
                nodes.iter().filter(|node| declarations.counts_toward_quota(index, &node.name)).collect();
            let nodes = candidates.len();
            let last = (max > 0 && max < nodes).then(|| {
                let (_, last, _) = candidates.select_nth_unstable_by_key(max - 1, |node| (node.created, &node.name));
                (last.created, last.name.clone())
            });
            (index, SelectorUsage { nodes, last })
        };
        Self { selectors: declarations.limited().map(usage).collect() }
    }

    /// Returns whether a Node is within the quota of a selector.
    #[must_use]
    pub fn is_within_quota(&self, index: usize, max: usize, node: &NodeFacts) -> bool {
        let Some(usage) = self.selectors.get(&index) else { return false };
        match &usage.last {
            Some((created, name)) => (node.created, &node.name) <= (*created, name),
            None => usage.nodes <= max,
        }
    }

    /// Returns the number of Nodes that count toward the quota of a selector.
    #[must_use]
    pub fn wanted(&self, index: usize) -> usize {
        self.selectors.get(&index).map_or(0, |usage| usage.nodes)
    }
}
