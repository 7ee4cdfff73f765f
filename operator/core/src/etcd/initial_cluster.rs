//! The flags `--initial-cluster` and `--initial-cluster-state` of etcd on a node.
//!
//! etcd reads these flags only at the first start of a member. A later change would restart every member for nothing,
//! so each member keeps its first flags.

use super::{Member, member_of, peer_url};
use crate::model::{Cluster, Node};

/// The two flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialCluster {
    /// Whether the member joins an existing etcd cluster.
    pub existing: bool,
    /// The value of `--initial-cluster`: names with their peer URLs.
    pub members: String,
}

/// The known state of a node's member when its flags were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The member did not exist. The flags assume that the nodes join in the declared order.
    Expected,
    /// The member was added to etcd and had not started.
    Added,
    /// The member had started.
    Started,
}

impl Known {
    /// Returns the value of the annotation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expected => "Expected",
            Self::Added => "Added",
            Self::Started => "Started",
        }
    }

    /// Parses the value of the annotation.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Expected, Self::Added, Self::Started].into_iter().find(|known| known.name() == name)
    }
}

/// The stored flags of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The flags.
    pub flags: InitialCluster,
    /// The known state of the member at that time.
    pub known: Known,
}

impl InitialCluster {
    /// Returns the value of the annotation, for example `existing cp1=https://...,cp2=https://...`.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{} {}", if self.existing { "existing" } else { "new" }, self.members)
    }

    /// Parses the value of the annotation.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (state, members) = text.split_once(' ')?;
        let existing = match state {
            "existing" => true,
            "new" => false,
            _ => return None,
        };
        Some(Self { existing, members: members.to_owned() })
    }

    fn of<'a>(existing: bool, entries: impl Iterator<Item = (&'a str, String)>) -> Self {
        let members: Vec<_> = entries.map(|(name, url)| format!("{name}={url}")).collect();
        Self { existing, members: members.join(",") }
    }
}

/// Returns the flags of a node's member. `members` is the list that a majority has confirmed; `stored` returns the
/// stored flags of a node.
#[must_use]
pub fn initial_cluster<'a>(
    cluster: &Cluster,
    node: &Node,
    members: Option<&[Member]>,
    stored: impl Fn(&Node) -> Option<&'a Stored>,
) -> Stored {
    let own = stored(node);
    let Some(members) = members else {
        return match own {
            Some(own) if own.known != Known::Expected => own.clone(),
            _ => expected_by_declaration(cluster, node, stored),
        };
    };
    let Some(member) = member_of(members, node) else {
        return Stored { flags: expected_by_members(cluster, node, members), known: Known::Expected };
    };
    match own {
        Some(own) if member.has_started() => Stored { flags: own.flags.clone(), known: Known::Started },
        _ => {
            let known = if member.has_started() { Known::Started } else { Known::Added };
            // A single member without data has to start a new cluster.
            let existing = members.len() > 1;
            Stored { flags: InitialCluster::of(existing, entries(cluster, members).into_iter()), known }
        }
    }
}

/// Returns all members, first the declared ones in the declared order.
fn entries<'a>(cluster: &'a Cluster, members: &'a [Member]) -> Vec<(&'a str, String)> {
    let declared = cluster.nodes.iter().filter(|node| member_of(members, node).is_some());
    let mut entries: Vec<_> = declared.map(|node| (node.name.as_str(), peer_url(node.advertise_address))).collect();
    for member in members {
        for url in &member.peer_urls {
            if !entries.iter().any(|(_, known)| known == url) {
                entries.push((member.label(), url.clone()));
            }
        }
    }
    entries
}

/// Returns the flags of a node that is not a member yet: the existing members, and the nodes that join earlier.
fn expected_by_members(cluster: &Cluster, node: &Node, members: &[Member]) -> InitialCluster {
    let mut entries = entries(cluster, members);
    for earlier in up_to(cluster, node) {
        let url = peer_url(earlier.advertise_address);
        if !entries.iter().any(|(_, known)| *known == url) {
            entries.push((&earlier.name, url));
        }
    }
    InitialCluster::of(true, entries.into_iter())
}

/// Returns the flags while no member answers, as if the nodes join in the declared order. The first node starts the
/// cluster unless another node is known to have started it.
fn expected_by_declaration<'a>(cluster: &Cluster, node: &Node, stored: impl Fn(&Node) -> Option<&'a Stored>) -> Stored {
    let begun = |other: &Node| stored(other).is_some_and(|stored| stored.known != Known::Expected);
    let others = cluster.nodes.iter().filter(|other| other.name != node.name && begun(other));
    let before: Vec<_> = up_to(cluster, node).collect();
    let later = others.filter(|other| !before.iter().any(|node| node.name == other.name)).collect::<Vec<_>>();
    let existing = before.len() > 1 || !later.is_empty();
    let entries = later.into_iter().chain(before).map(|node| (node.name.as_str(), peer_url(node.advertise_address)));
    Stored { flags: InitialCluster::of(existing, entries), known: Known::Expected }
}

/// Returns the nodes up to and including this one, in the declared order.
fn up_to<'a>(cluster: &'a Cluster, node: &Node) -> impl Iterator<Item = &'a Node> {
    let end = cluster.nodes.iter().position(|other| other.name == node.name).map_or(0, |position| position + 1);
    cluster.nodes.iter().take(end)
}
