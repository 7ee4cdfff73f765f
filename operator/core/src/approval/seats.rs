//! Which Nodes have the seats of the selectors with a limit: those that were made first.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use super::declaration::Declarations;
use super::nodes::{NodeFacts, Nodes};

/// How the Nodes are seated. To rank each of thousands of Nodes among all others takes longer than all else together,
/// so for each selector only the last one that has a seat is kept.
#[derive(Clone, Debug, Default)]
pub struct Seating {
    selectors: BTreeMap<usize, Seated>,
}

#[derive(Clone, Debug)]
struct Seated {
    /// How many Nodes want a seat.
    nodes: usize,
    /// The last one that has a seat, where not all have one.
    last: Option<Place>,
}

/// A Node's place among the others: by the time at which it was made, then by its name.
type Place = (Option<Timestamp>, String);

impl Seating {
    /// Seats all Nodes.
    #[must_use]
    pub fn of(declarations: &Declarations, nodes: &Nodes) -> Self {
        let seated = |(index, max): (usize, usize)| {
            let mut wanting: Vec<&NodeFacts> =
                nodes.iter().filter(|node| declarations.is_seated(index, &node.name)).collect();
            let nodes = wanting.len();
            let last = (max > 0 && max < nodes).then(|| {
                let (_, last, _) = wanting.select_nth_unstable_by_key(max - 1, |node| (node.created, &node.name));
                (last.created, last.name.clone())
            });
            (index, Seated { nodes, last })
        };
        Self { selectors: declarations.limited().map(seated).collect() }
    }

    /// Whether this Node has one of the selector's seats.
    #[must_use]
    pub fn has_seat(&self, index: usize, max: usize, node: &NodeFacts) -> bool {
        let Some(seated) = self.selectors.get(&index) else { return false };
        match &seated.last {
            Some((created, name)) => (node.created, &node.name) <= (*created, name),
            None => seated.nodes <= max,
        }
    }

    /// How many of the selector's seats are wanted by Nodes.
    #[must_use]
    pub fn wanted(&self, index: usize) -> usize {
        self.selectors.get(&index).map_or(0, |seated| seated.nodes)
    }
}
