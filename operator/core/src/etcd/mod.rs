//! Who is in a target's etcd, and what is to be done about it: pure functions of (declared nodes, members, now).
//!
//! As with `kubeadm join`, a cluster begins with one member; each further one joins as a learner, which has no vote, and
//! is promoted once it is in sync. [`next_action`] says the one change that may be made now, [`initial_cluster()`] what a
//! member's flags say, [`merge`] what several members' answers mean together. Dialling is the controllers' work.

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

/// The port at which a member serves clients, as kubeadm has it.
pub const CLIENT_PORT: u16 = 2379;
/// The port at which a member serves its peers, as kubeadm has it.
pub const PEER_PORT: u16 = 2380;

/// Where a member serves clients.
#[must_use]
pub fn client_url(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, CLIENT_PORT))
}

/// Where a member serves its peers, and by which the members know each other.
#[must_use]
pub fn peer_url(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, PEER_PORT))
}

/// A member of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its name: empty until it has started for the first time.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Whether it has no vote yet.
    pub learner: bool,
    /// Whether it answers and follows a leader, and so counts for the majority.
    pub up: bool,
    /// What is wrong with it, in a few words.
    pub trouble: Option<String>,
}

impl Member {
    /// Whether it has ever started.
    #[must_use]
    pub fn has_started(&self) -> bool {
        !self.name.is_empty()
    }

    /// Whether it is that node's: one that has not started has no name yet.
    #[must_use]
    pub fn is_of(&self, name: &str, peer_url: &str) -> bool {
        self.peer_urls.iter().any(|url| url == peer_url) && (self.name == name || !self.has_started())
    }

    /// Its name, or where it will be.
    #[must_use]
    pub fn label(&self) -> &str {
        if self.has_started() { &self.name } else { self.peer_urls.first().map_or("", String::as_str) }
    }
}

/// The member of a node.
#[must_use]
pub fn member_of<'a>(members: &'a [Member], node: &Node) -> Option<&'a Member> {
    let url = peer_url(node.advertise_address);
    members.iter().find(|member| member.is_of(&node.name, &url))
}

/// How many of so many votes are a majority.
#[must_use]
pub fn majority(votes: usize) -> usize {
    votes / 2 + 1
}
