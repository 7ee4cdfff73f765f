//! Membership of a target cluster's etcd: pure functions of (declared nodes, members, now).
//!
//! As with `kubeadm join`, a cluster starts with one member. Each further member joins as a learner and is promoted to
//! voting member once it is in sync. [`next_action`] decides the next membership change, [`initial_cluster()`] returns
//! a member's flags, and [`merge`] merges the answers of several members. The controllers connect to etcd.

mod action;
mod answers;
mod failure_domains;
mod initial_cluster;

use std::net::{IpAddr, SocketAddr};

pub use action::{Action, Declared, Wait, next_action};
pub use answers::{Answer, Listed, View, merge};
pub use failure_domains::{Spread, spread};
pub use initial_cluster::{InitialCluster, Known, Stored, initial_cluster};

use crate::model::Node;

/// The client port, as in kubeadm.
pub const CLIENT_PORT: u16 = 2379;
/// The peer port, as in kubeadm.
pub const PEER_PORT: u16 = 2380;

/// Returns the client URL of a member.
#[must_use]
pub fn client_url(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, CLIENT_PORT))
}

/// Returns the peer URL of a member, which identifies it among the members.
#[must_use]
pub fn peer_url(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, PEER_PORT))
}

/// An etcd member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The id.
    pub id: u64,
    /// The name; empty before the first start.
    pub name: String,
    /// The peer URLs.
    pub peer_urls: Vec<String>,
    /// Whether the member is a learner.
    pub learner: bool,
    /// Whether the member answers and follows a leader, and so counts for the majority.
    pub up: bool,
    /// The problem of the member, in a few words.
    pub trouble: Option<String>,
}

impl Member {
    /// Returns whether the member has ever started.
    #[must_use]
    pub fn has_started(&self) -> bool {
        !self.name.is_empty()
    }

    /// Returns whether the member belongs to the node. A member that has not started has no name yet.
    #[must_use]
    pub fn is_of(&self, name: &str, peer_url: &str) -> bool {
        self.peer_urls.iter().any(|url| url == peer_url) && (self.name == name || !self.has_started())
    }

    /// Returns the name, or the peer URL before the first start.
    #[must_use]
    pub fn label(&self) -> &str {
        if self.has_started() { &self.name } else { self.peer_urls.first().map_or("", String::as_str) }
    }
}

/// Returns the member of a node.
#[must_use]
pub fn member_of<'a>(members: &'a [Member], node: &Node) -> Option<&'a Member> {
    let url = peer_url(node.advertise_address);
    members.iter().find(|member| member.is_of(&node.name, &url))
}

/// Returns the majority of a number of votes.
#[must_use]
pub fn majority(votes: usize) -> usize {
    votes / 2 + 1
}
