//! The one change of etcd's membership that may be made now.
//!
//! Two things are never done: to leave fewer members that answer than a majority needs, and to begin a change while
//! another one is under way. etcd refuses the worst of it itself; this room does not ask for it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::{Member, majority};

/// A learner that has not started for this long makes room for a machine that is there: etcd takes one at a time.
const PATIENCE_WITH_A_LEARNER: Duration = Duration::from_mins(10);

/// A node that the spec declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Where its member serves its peers.
    pub peer_url: String,
    /// Whether its machine gives a sign of life; nothing if that can't be known.
    pub alive: Option<bool>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Add a member without a vote.
    AddLearner {
        /// The node.
        node: String,
        /// Where its member will serve its peers.
        peer_url: String,
    },
    /// Give a learner its vote; etcd refuses until it is in sync.
    Promote {
        /// The member.
        id: u64,
        /// Its name.
        name: String,
    },
    /// Remove a member.
    Remove {
        /// The member.
        id: u64,
        /// Its name.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// Nothing can be done now.
    Wait(Wait),
    /// Nothing is left to do.
    Done,
}

/// Why nothing can be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// No majority of the members answers.
    NoMajority,
    /// A voter is down; etcd takes no new member until it is back or removed.
    VoterDown(String),
    /// A learner has not started yet.
    LearnerNotStarted(String),
    /// A learner has started and does not answer.
    LearnerDown(String),
    /// These machines have not joined and give no sign of life.
    NoSignOfLife(Vec<String>),
    /// This member is no longer declared, and without it there would be no majority.
    Needed(String),
    /// This member is no longer declared, and stays until those that replace it have joined.
    Replacing {
        /// The member that goes.
        member: String,
        /// Those that are to join first.
        by: Vec<String>,
    },
    /// This node's member has another peer URL than the one that is declared.
    AddressChanged(String),
}

impl Wait {
    /// What it waits for, and what a person may do.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::NoMajority => "etcd has no majority: bring back one of the members that do not answer".to_owned(),
            Self::VoterDown(name) => format!(
                "etcd takes no new member while {name} does not answer: bring it back, or take it out of \
                 spec.controlPlane.nodes"
            ),
            Self::LearnerNotStarted(name) => {
                format!("{name} has been added to etcd and has not started there yet: start the machine with its files")
            }
            Self::LearnerDown(name) => format!("{name} has joined etcd without a vote, and does not answer"),
            Self::NoSignOfLife(names) => {
                format!("no sign of life of {}: start the machine, and it joins etcd", names.join(", "))
            }
            Self::Needed(name) => format!(
                "{name} is no longer declared, and stays a member of etcd, as the others would have no majority without it"
            ),
            Self::Replacing { member, by } => {
                let by = by.join(", ");
                format!("{member} is no longer declared, and stays a member of etcd until {by} has joined")
            }
            Self::AddressChanged(name) => format!(
                "the member {name} of etcd has another address than the declared one: write the old one back, or take \
                 the node out and add it under another name"
            ),
        }
    }
}

/// What is to be done now. `learners_since` is when each learner that has not started was first seen.
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
    let room = Room { nodes, members, voters };
    room.drop_learner_that_nobody_wants()
        .or_else(|| room.drop_voter_that_is_gone())
        .or_else(|| room.bring_learner_in(learners_since, now))
        .or_else(|| room.add_learner())
        .or_else(|| room.drop_voter_that_is_replaced())
        .or_else(|| room.tell_of_machines_that_are_not_there())
        .unwrap_or(Action::Done)
}

struct Room<'a> {
    nodes: &'a [Declared],
    members: &'a [Member],
    voters: Vec<&'a Member>,
}

impl Room<'_> {
    fn is_declared(&self, member: &Member) -> bool {
        self.nodes.iter().any(|node| member.is_of(&node.name, &node.peer_url))
    }

    /// Its name; that of the node that it is for while it has not started.
    fn label(&self, member: &Member) -> String {
        let node = self.nodes.iter().find(|node| member.is_of(&node.name, &node.peer_url));
        node.map_or_else(|| member.label().to_owned(), |node| node.name.clone())
    }

    fn remove(&self, member: &Member, why: &'static str) -> Action {
        Action::Remove { id: member.id, name: self.label(member), why }
    }

    /// The declared nodes without a member.
    fn missing(&self) -> Vec<&Declared> {
        let is_member = |node: &&Declared| !self.members.iter().any(|member| member.is_of(&node.name, &node.peer_url));
        self.nodes.iter().filter(is_member).collect()
    }

    /// Whether those that remain are a majority of what remains.
    fn can_do_without(&self, member: &Member) -> bool {
        let others = self.voters.iter().filter(|voter| voter.id != member.id);
        let up = others.clone().filter(|voter| voter.up).count();
        up >= majority(others.count())
    }

    fn drop_learner_that_nobody_wants(&self) -> Option<Action> {
        let learner = self.members.iter().find(|member| member.learner && !self.is_declared(member))?;
        Some(self.remove(learner, "it is not declared in spec.controlPlane.nodes"))
    }

    /// A dead member only makes the majority harder to reach; to remove it never costs one.
    fn drop_voter_that_is_gone(&self) -> Option<Action> {
        let gone = self.voters.iter().find(|voter| !voter.up && !self.is_declared(voter) && !self.is_moved(voter))?;
        Some(self.remove(gone, "it is no longer declared in spec.controlPlane.nodes, and does not answer"))
    }

    fn bring_learner_in(&self, learners_since: &BTreeMap<u64, Timestamp>, now: Timestamp) -> Option<Action> {
        let learner = self.members.iter().find(|member| member.learner)?;
        let name = self.label(learner);
        if learner.has_started() {
            // With its vote the majority may grow by one, and so do those that answer.
            let promote = Action::Promote { id: learner.id, name: name.clone() };
            return Some(if learner.up { promote } else { Action::Wait(Wait::LearnerDown(name)) });
        }
        let waited =
            learners_since.get(&learner.id).and_then(|since| Duration::try_from(now.duration_since(*since)).ok());
        let another = self.missing().iter().any(|node| node.alive == Some(true));
        let too_long = waited.is_some_and(|waited| waited >= PATIENCE_WITH_A_LEARNER);
        Some(if too_long && another {
            self.remove(learner, "it has not started, and another machine waits to join")
        } else {
            Action::Wait(Wait::LearnerNotStarted(name))
        })
    }

    fn add_learner(&self) -> Option<Action> {
        let missing = self.missing();
        if let Some(moved) = missing.iter().find(|node| self.members.iter().any(|member| member.name == node.name)) {
            return Some(Action::Wait(Wait::AddressChanged(moved.name.clone())));
        }
        // A member that goes may still hold the URL.
        let free = |node: &&&Declared| !self.members.iter().any(|member| member.peer_urls.contains(&node.peer_url));
        let mut addable = missing.iter().filter(free).filter(|node| node.alive != Some(false));
        let next = addable.clone().find(|node| node.alive == Some(true)).or_else(|| addable.next())?;
        if let Some(down) = self.voters.iter().find(|voter| !voter.up) {
            return Some(Action::Wait(Wait::VoterDown(self.label(down))));
        }
        Some(Action::AddLearner { node: next.name.clone(), peer_url: next.peer_url.clone() })
    }

    /// What works goes last, so that etcd never stands on fewer members than before.
    fn drop_voter_that_is_replaced(&self) -> Option<Action> {
        let mut going = self.voters.iter().filter(|voter| !self.is_declared(voter));
        let in_the_way = |voter: &Member| self.nodes.iter().any(|node| voter.peer_urls.contains(&node.peer_url));
        let voter = going.clone().find(|voter| in_the_way(voter)).or_else(|| going.next())?;
        let by: Vec<_> = self.missing().iter().map(|node| node.name.clone()).collect();
        Some(if !self.can_do_without(voter) {
            Action::Wait(Wait::Needed(self.label(voter)))
        } else if !by.is_empty() && !in_the_way(voter) {
            Action::Wait(Wait::Replacing { member: self.label(voter), by })
        } else {
            self.remove(voter, "it is no longer declared in spec.controlPlane.nodes")
        })
    }

    fn tell_of_machines_that_are_not_there(&self) -> Option<Action> {
        let missing: Vec<_> = self.missing().iter().map(|node| node.name.clone()).collect();
        (!missing.is_empty()).then_some(Action::Wait(Wait::NoSignOfLife(missing)))
    }

    /// Whether its node is declared with another address: that is no reason to remove it.
    fn is_moved(&self, member: &Member) -> bool {
        self.nodes.iter().any(|node| node.name == member.name)
    }
}

#[cfg(test)]
mod tests;
