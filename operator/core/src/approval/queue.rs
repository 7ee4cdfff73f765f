//! Whose request is judged next: fair among requesters and among nodes, and bounded for each of them.
//!
//! Approvers have been stopped by one noisy node: by a breaker that counts everybody's pending requests (the
//! cluster-machine-approver's), or by judging names in order (k0s). Here every limit is a node's or a requester's own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::SigningRequest;

/// How many new requests for one node are judged: ten at once, ten a minute. A kubelet makes two every quarter of an hour.
const NODE_RATE: Rate = Rate { burst: 10, refill: SignedDuration::from_secs(6) };

/// How fast the room of a requester comes back: two hundred a minute, so that a pool of any size can join with one token.
const REQUESTER_REFILL: SignedDuration = SignedDuration::from_millis(300);

/// How many pending requests are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For one node, the newest first; older ones are let go.
    pub per_node: usize,
    /// Of one requester, the newest first; older ones wait for their turn.
    pub per_requester: usize,
}

/// How often something may happen: `burst` times at once, and once more after each `refill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How often at once.
    pub burst: u32,
    /// After how long once more.
    pub refill: SignedDuration,
}

/// Holds to a rate. The time at which it would be full says all there is to know of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at: Option<Timestamp>,
}

impl Bucket {
    /// Takes one out, or says when there is one again.
    ///
    /// # Errors
    /// The time at which there is one.
    pub fn take(&mut self, rate: Rate, now: Timestamp) -> Result<(), Timestamp> {
        self.ready_at(rate, now).map_or(Ok(()), Err)?;
        let from = self.full_at.unwrap_or(now).max(now);
        self.full_at = from.checked_add(rate.refill).ok();
        Ok(())
    }

    /// When there is one to take; nothing means now.
    #[must_use]
    pub fn ready_at(&self, rate: Rate, now: Timestamp) -> Option<Timestamp> {
        let ahead = rate.refill.saturating_mul(i32::try_from(rate.burst.saturating_sub(1)).unwrap_or(i32::MAX));
        let ready = self.full_at?.checked_sub(ahead).ok()?;
        (ready > now).then_some(ready)
    }

    fn is_full(&self, now: Timestamp) -> bool {
        self.full_at.is_none_or(|full| full <= now)
    }
}

/// A request whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The request.
    pub request: SigningRequest,
    /// How often it was judged to wait.
    pub waits: u32,
    /// What was last told about it, so that it is told once.
    pub told: Option<&'static str>,
    node: String,
    due: Option<Timestamp>,
}

/// The requests that have no verdict yet.
#[derive(Clone, Debug)]
pub struct Queue {
    limits: Limits,
    requesters: BTreeMap<String, Line>,
    /// The requester and the node of each request.
    index: BTreeMap<String, (String, String)>,
    buckets: BTreeMap<(String, String), Bucket>,
    requester_buckets: BTreeMap<String, Bucket>,
    /// The requester whose turn was last.
    last: Option<String>,
}

/// The requests of one requester, by node, newest first. Most requesters are a node that has made one request: a map for
/// each of them would take more memory than the requests.
#[derive(Clone, Debug, Default)]
struct Line(Vec<(String, Vec<Turn>)>);

impl Line {
    fn find(&self, node: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.as_str().cmp(node))
    }

    fn of_node(&mut self, node: &str) -> Option<&mut Vec<Turn>> {
        let at = self.find(node).ok()?;
        Some(&mut self.0[at].1)
    }

    fn of_node_or_new(&mut self, node: &str) -> &mut Vec<Turn> {
        let at = self.find(node).unwrap_or_else(|at| {
            self.0.reserve_exact(usize::from(self.0.is_empty()));
            self.0.insert(at, (node.to_owned(), vec![]));
            at
        });
        &mut self.0[at].1
    }

    fn forget(&mut self, node: &str) {
        if let Ok(at) = self.find(node) {
            self.0.remove(at);
        }
    }

    fn nodes(&self) -> impl Iterator<Item = &Vec<Turn>> {
        self.0.iter().map(|(_, requests)| requests)
    }
}

impl Queue {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            requesters: BTreeMap::new(),
            index: BTreeMap::new(),
            buckets: BTreeMap::new(),
            requester_buckets: BTreeMap::new(),
            last: None,
        }
    }

    /// A request was made or has changed. Gives back the names of those that are let go for it.
    pub fn put(&mut self, request: SigningRequest) -> Vec<String> {
        let known = self.remove(&request.name).filter(|known| known.request.uid == request.uid);
        let unchanged = known.as_ref().is_some_and(|known| known.request.resource_version == request.resource_version);
        let (waits, told, due) = known.map_or((0, None, None), |known| (known.waits, known.told, known.due));
        let node = request.subject_node().unwrap_or_default();
        self.insert(Turn { request, waits, told, node, due: due.filter(|_| unchanged) })
    }

    /// Gives a turn back that has to wait until then. A request that has come anew meanwhile stays as it is.
    pub fn put_back(&mut self, turn: Turn, due: Option<Timestamp>) {
        if !self.index.contains_key(&turn.request.name) {
            self.insert(Turn { due, ..turn });
        }
    }

    fn insert(&mut self, turn: Turn) -> Vec<String> {
        let requester = turn.request.username.clone();
        self.index.insert(turn.request.name.clone(), (requester.clone(), turn.node.clone()));
        let requests = self.requesters.entry(requester).or_default().of_node_or_new(&turn.node);
        let newer =
            |other: &Turn| (other.request.created, &other.request.name) > (turn.request.created, &turn.request.name);
        let place = requests.iter().take_while(|other| newer(other)).count();
        requests.reserve_exact(1);
        requests.insert(place, turn);
        let old = requests.split_off(requests.len().min(self.limits.per_node.max(1)));
        let names: Vec<String> = old.into_iter().map(|turn| turn.request.name).collect();
        for name in &names {
            self.index.remove(name);
        }
        names
    }

    /// A request is no longer there, or has a verdict.
    pub fn remove(&mut self, name: &str) -> Option<Turn> {
        let (requester, node) = self.index.remove(name)?;
        let line = self.requesters.get_mut(&requester)?;
        let requests = line.of_node(&node)?;
        let at = requests.iter().position(|turn| turn.request.name == name)?;
        let removed = requests.remove(at);
        if requests.is_empty() {
            line.forget(&node);
        }
        if line.0.is_empty() {
            self.requesters.remove(&requester);
        }
        Some(removed)
    }

    /// Keeps only the requests of these names: all that a new list has.
    pub fn retain(&mut self, names: &BTreeSet<String>) {
        let gone: Vec<String> = self.index.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in gone {
            self.remove(&name);
        }
    }

    /// What waits for this node is due.
    pub fn wake(&mut self, node: &str) {
        for requests in self.requesters.values_mut().filter_map(|line| line.of_node(node)) {
            for turn in requests {
                turn.due = None;
            }
        }
    }

    /// Everything is due.
    pub fn wake_all(&mut self) {
        for (_, requests) in self.requesters.values_mut().flat_map(|line| &mut line.0) {
            for turn in requests {
                turn.due = None;
            }
        }
    }

    /// Takes out what is due, at most so many: one of each requester in turn, beginning behind the one that was last; of a
    /// requester one of each node in turn; of a node the newest first.
    pub fn take(&mut self, now: Timestamp, at_most: usize) -> Vec<Turn> {
        let behind = self.last.as_ref().map_or(Bound::Unbounded, |last| Bound::Excluded(last.clone()));
        let mut order: Vec<&String> =
            self.requesters.range((behind, Bound::Unbounded)).map(|(requester, _)| requester).collect();
        let rest = self.requesters.keys().take(self.requesters.len() - order.len());
        order.extend(rest);
        let mut lines: Vec<(String, VecDeque<String>)> =
            order.into_iter().map(|requester| (requester.clone(), self.due_of(requester, now))).collect();
        let mut turns = vec![];
        while turns.len() < at_most && lines.iter().any(|(_, line)| !line.is_empty()) {
            for (requester, line) in &mut lines {
                if turns.len() == at_most {
                    break;
                }
                let Some(name) = line.pop_front() else { continue };
                let Some(turn) = self.admit(requester, &name, now) else { continue };
                self.last = Some(requester.clone());
                turns.push(turn);
            }
        }
        self.forget_full_buckets(now);
        turns
    }

    /// The names of a requester's requests that are due, in their order.
    fn due_of(&self, requester: &str, now: Timestamp) -> VecDeque<String> {
        let line = self.requesters.get(requester).map(|line| self.within_limit(line)).unwrap_or_default();
        let due = line.into_iter().filter(|turn| turn.due.is_none_or(|due| due <= now));
        due.map(|turn| turn.request.name.clone()).collect()
    }

    /// Those of a requester's requests that are looked at at all: one of each node in turn, the newest of each first. Of
    /// more than the limit only the newest of all, so that what is stuck keeps nobody out who comes later.
    fn within_limit<'a>(&self, line: &'a Line) -> Vec<&'a Turn> {
        let rounds = line.nodes().map(Vec::len).max().unwrap_or_default();
        let mut turns: Vec<&Turn> =
            (0..rounds).flat_map(|round| line.nodes().filter_map(move |requests| requests.get(round))).collect();
        let limit = self.limits.per_requester.max(1);
        if turns.len() > limit {
            turns.sort_by_key(|turn| Reverse(turn.request.created));
            turns.truncate(limit);
        }
        turns
    }

    /// Takes a request out, unless its node or its requester has had too many turns for new requests.
    fn admit(&mut self, requester: &str, name: &str, now: Timestamp) -> Option<Turn> {
        let turn = self.remove(name)?;
        if turn.waits > 0 {
            return Some(turn);
        }
        match self.spend(requester, &turn.node, now) {
            Ok(()) => Some(turn),
            Err(later) => {
                self.insert(Turn { due: Some(later), ..turn });
                None
            }
        }
    }

    fn spend(&mut self, requester: &str, node: &str, now: Timestamp) -> Result<(), Timestamp> {
        let requester_rate = Rate {
            burst: u32::try_from(self.limits.per_requester).unwrap_or(u32::MAX).max(1),
            refill: REQUESTER_REFILL,
        };
        let all = self.requester_buckets.entry(requester.to_owned()).or_default();
        all.ready_at(requester_rate, now).map_or(Ok(()), Err)?;
        self.buckets.entry((requester.to_owned(), node.to_owned())).or_default().take(NODE_RATE, now)?;
        all.take(requester_rate, now)
    }

    fn forget_full_buckets(&mut self, now: Timestamp) {
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
        self.requester_buckets.retain(|_, bucket| !bucket.is_full(now));
    }

    /// When the next request is due; nothing means that there is none. It may be in the past.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let looked_at = self.requesters.values().flat_map(|line| self.within_limit(line));
        looked_at.map(|turn| turn.due.unwrap_or(Timestamp::MIN)).min()
    }

    /// How many requests there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// When the oldest request was made.
    #[must_use]
    pub fn oldest(&self) -> Option<Timestamp> {
        self.turns().filter_map(|turn| turn.request.created).min()
    }

    fn turns(&self) -> impl Iterator<Item = &Turn> {
        self.requesters.values().flat_map(Line::nodes).flatten()
    }
}
