//! Decides the next change of etcd's membership.
//!
//! A change never leaves fewer reachable members than a majority needs, and never starts while another change is in
//! progress. etcd rejects the most dangerous changes itself; Keyplane does not request them.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::{Member, majority};

/// The time after which a learner that has not started is removed in favor of a reachable node: etcd allows one learner
/// at a time.
const LEARNER_START_TIMEOUT: Duration = Duration::from_mins(10);

/// A declared node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The name.
    pub name: String,
    /// The peer URL of its member.
    pub peer_url: String,
    /// Whether the node is known to be up; `None` if that is unknown.
    pub alive: Option<bool>,
}

/// The next membership change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Add a learner.
    AddLearner {
        /// The node.
        node: String,
        /// The peer URL of its member.
        peer_url: String,
    },
    /// Promote a learner to voting member; etcd refuses until the learner is in sync.
    Promote {
        /// The member id.
        id: u64,
        /// The name.
        name: String,
    },
    /// Remove a member.
    Remove {
        /// The member id.
        id: u64,
        /// The name.
        name: String,
        /// The reason.
        why: &'static str,
    },
    /// No change is possible now.
    Wait(Wait),
    /// The members are the declared nodes.
    Done,
}

/// The reason why no change is possible now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// Fewer members than a majority answer.
    NoMajority,
    /// A voter is down; etcd accepts no new member until the voter is back or removed.
    VoterDown(String),
    /// A learner has not started yet.
    LearnerNotStarted(String),
    /// A learner has started and does not answer.
    LearnerDown(String),
    /// These nodes have not joined and are not reachable.
    NodesUnreachable(Vec<String>),
    /// This member is no longer declared, and the others have no majority without it.
    Needed(String),
    /// This member is no longer declared, and stays until its replacements have joined.
    Replacing {
        /// The member that will be removed.
        member: String,
        /// The nodes that have to join first.
        by: Vec<String>,
    },
    /// The peer URL of this node's member differs from the declared one.
    AddressChanged(String),
}

impl Wait {
    /// Returns the message: the condition, and the remedy.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::NoMajority => "etcd has no majority: start one of the members that do not answer".to_owned(),
            Self::VoterDown(name) => format!(
                "etcd accepts no new member while {name} does not answer: start it, or remove it from \
                 spec.controlPlane.nodes"
            ),
            Self::LearnerNotStarted(name) => {
                format!("{name} was added to etcd and has not started yet: start the node with its files")
            }
            Self::LearnerDown(name) => format!("etcd learner {name} does not answer: check etcd on that node"),
            Self::NodesUnreachable(names) => {
                format!("{} not reachable: start the node, and its member joins etcd", names.join(", "))
            }
            Self::Needed(name) => format!(
                "{name} is no longer declared, and stays a member of etcd, because the others have no majority without \
                 it"
            ),
            Self::Replacing { member, by } => {
                let by = by.join(", ");
                format!("{member} is no longer declared, and stays a member of etcd until {by} has joined")
            }
            Self::AddressChanged(name) => format!(
                "the peer URL of etcd member {name} differs from the declared address: restore the old address, or \
                 remove the node and add it under another name"
            ),
        }
    }
}

/// Returns the next membership change. `learners_since` is the time at which each learner that has not started was
/// first observed.
#[must_use]
pub fn next_action(
    nodes: &[Declared],
    members: &[Member],
    learners_since: &BTreeMap<u64, Timestamp>,
    now: Timestamp,
) -> Action {
    let voters: Vec<_> = members.iter().filter(|member| !member.learner).collect();
    if voters.iter().filter(|voter| voter.up).count() < majority(voters.len()) {
        return Action::Wait(Wait::NoMajority);
    }
    let view = MembershipView { nodes, members, voters };
    view.remove_undeclared_learner()
        .or_else(|| view.remove_unreachable_voter())
        .or_else(|| view.promote_learner(learners_since, now))
        .or_else(|| view.add_learner())
        .or_else(|| view.remove_replaced_voter())
        .or_else(|| view.report_missing_members())
        .unwrap_or(Action::Done)
}

struct MembershipView<'a> {
    nodes: &'a [Declared],
    members: &'a [Member],
    voters: Vec<&'a Member>,
}

impl MembershipView<'_> {
    fn is_declared(&self, member: &Member) -> bool {
        self.nodes.iter().any(|node| member.is_of(&node.name, &node.peer_url))
    }

    /// Returns the name of a member, or the name of its node while the member has not started.
    fn label(&self, member: &Member) -> String {
        let node = self.nodes.iter().find(|node| member.is_of(&node.name, &node.peer_url));
        node.map_or_else(|| member.label().to_owned(), |node| node.name.clone())
    }

    fn remove(&self, member: &Member, why: &'static str) -> Action {
        Action::Remove { id: member.id, name: self.label(member), why }
    }

    /// Returns the declared nodes without a member.
    fn missing(&self) -> Vec<&Declared> {
        let is_member = |node: &&Declared| !self.members.iter().any(|member| member.is_of(&node.name, &node.peer_url));
        self.nodes.iter().filter(is_member).collect()
    }

    /// Returns whether the other voters keep a majority without this member.
    fn can_do_without(&self, member: &Member) -> bool {
        let others = self.voters.iter().filter(|voter| voter.id != member.id);
        let up = others.clone().filter(|voter| voter.up).count();
        up >= majority(others.count())
    }

    fn remove_undeclared_learner(&self) -> Option<Action> {
        let learner = self.members.iter().find(|member| member.learner && !self.is_declared(member))?;
        Some(self.remove(learner, "it is not declared in spec.controlPlane.nodes"))
    }

    /// Removes an undeclared voter that is down. Such a member only raises the number needed for a majority, so its
    /// removal is always safe.
    fn remove_unreachable_voter(&self) -> Option<Action> {
        let gone = self.voters.iter().find(|voter| !voter.up && !self.is_declared(voter) && !self.is_moved(voter))?;
        Some(self.remove(gone, "it is no longer declared in spec.controlPlane.nodes, and does not answer"))
    }

    fn promote_learner(&self, learners_since: &BTreeMap<u64, Timestamp>, now: Timestamp) -> Option<Action> {
        let learner = self.members.iter().find(|member| member.learner)?;
        let name = self.label(learner);
        if learner.has_started() {
            // The promotion may raise the majority by one, and adds one reachable voter.
            let promote = Action::Promote { id: learner.id, name: name.clone() };
            return Some(if learner.up { promote } else { Action::Wait(Wait::LearnerDown(name)) });
        }
        let waited =
            learners_since.get(&learner.id).and_then(|since| Duration::try_from(now.duration_since(*since)).ok());
        let another = self.missing().iter().any(|node| node.alive == Some(true));
        let too_long = waited.is_some_and(|waited| waited >= LEARNER_START_TIMEOUT);
        Some(if too_long && another {
            self.remove(learner, "it has not started, and another node waits to join")
        } else {
            Action::Wait(Wait::LearnerNotStarted(name))
        })
    }

    fn add_learner(&self) -> Option<Action> {
        let missing = self.missing();
        if let Some(moved) = missing.iter().find(|node| self.members.iter().any(|member| member.name == node.name)) {
            return Some(Action::Wait(Wait::AddressChanged(moved.name.clone())));
        }
        // A member that will be removed may still use the URL.
        let free = |node: &&&Declared| !self.members.iter().any(|member| member.peer_urls.contains(&node.peer_url));
        let mut addable = missing.iter().filter(free).filter(|node| node.alive != Some(false));
        let next = addable.clone().find(|node| node.alive == Some(true)).or_else(|| addable.next())?;
        if let Some(down) = self.voters.iter().find(|voter| !voter.up) {
            return Some(Action::Wait(Wait::VoterDown(self.label(down))));
        }
        Some(Action::AddLearner { node: next.name.clone(), peer_url: next.peer_url.clone() })
    }

    /// Removes an undeclared voter that works, after its replacements have joined. So etcd never has fewer members than
    /// before.
    fn remove_replaced_voter(&self) -> Option<Action> {
        let mut leaving = self.voters.iter().filter(|voter| !self.is_declared(voter));
        let in_the_way = |voter: &Member| self.nodes.iter().any(|node| voter.peer_urls.contains(&node.peer_url));
        let voter = leaving.clone().find(|voter| in_the_way(voter)).or_else(|| leaving.next())?;
        let by: Vec<_> = self.missing().iter().map(|node| node.name.clone()).collect();
        Some(if !self.can_do_without(voter) {
            Action::Wait(Wait::Needed(self.label(voter)))
        } else if !by.is_empty() && !in_the_way(voter) {
            Action::Wait(Wait::Replacing { member: self.label(voter), by })
        } else {
            self.remove(voter, "it is no longer declared in spec.controlPlane.nodes")
        })
    }

    fn report_missing_members(&self) -> Option<Action> {
        let missing: Vec<_> = self.missing().iter().map(|node| node.name.clone()).collect();
        (!missing.is_empty()).then_some(Action::Wait(Wait::NodesUnreachable(missing)))
    }

    /// Returns whether its node is declared with another address, which is no reason for a removal.
    fn is_moved(&self, member: &Member) -> bool {
        self.nodes.iter().any(|node| node.name == member.name)
    }
}

#[cfg(test)]
mod tests;
