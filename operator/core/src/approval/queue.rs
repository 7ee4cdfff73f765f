//! Orders pending CSRs: fair among requesters and among nodes, with limits for each of them.
//!
//! One node with many CSRs has stopped other approvers. One of them has a single limit for all pending CSRs (the
//! cluster-machine-approver), another one processes names in order (k0s). All limits here apply to a single node or
//! requester.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::SigningRequest;

/// The rate limit for new CSRs of one node: ten at once, then ten per minute. A kubelet creates two per 15 minutes.
const NODE_RATE: Rate = Rate { burst: 10, refill: SignedDuration::from_secs(6) };

/// The refill interval of the bucket of a requester: 200 CSRs per minute, so that a pool of any size can join with one
/// token.
const REQUESTER_REFILL: SignedDuration = SignedDuration::from_millis(300);

/// The limits for pending CSRs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The maximum for one node. The newest CSRs stay in the queue, and older ones are dropped.
    pub per_node: usize,
    /// The maximum for one requester. The newest CSRs are evaluated, and older ones wait.
    pub per_requester: usize,
}

/// A rate limit: `burst` at once, then one per `refill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The number of tokens at once.
    pub burst: u32,
    /// The time for one more token.
    pub refill: SignedDuration,
}

/// A token bucket. The time at which the bucket is full is its whole state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at: Option<Timestamp>,
}

impl Bucket {
    /// Takes a token.
    ///
    /// # Errors
    /// Returns the time of the next token.
    pub fn take(&mut self, rate: Rate, now: Timestamp) -> Result<(), Timestamp> {
        self.ready_at(rate, now).map_or(Ok(()), Err)?;
        let from = self.full_at.unwrap_or(now).max(now);
        self.full_at = from.checked_add(rate.refill).ok();
        Ok(())
    }

    /// Returns the time of the next token, or `None` if a token is available now.
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

/// A pending CSR in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueEntry {
    /// The CSR.
    pub request: SigningRequest,
    /// The number of evaluations with the verdict `Wait`.
    pub waits: u32,
    /// The last reported reason, so that each reason is reported only once.
    pub reported: Option<&'static str>,
    node: String,
    due: Option<Timestamp>,
}

/// The CSRs without a final verdict.
#[derive(Clone, Debug)]
pub struct Queue {
    limits: Limits,
    requesters: BTreeMap<String, RequesterQueue>,
    /// The requester and the node of each CSR.
    index: BTreeMap<String, (String, String)>,
    buckets: BTreeMap<(String, String), Bucket>,
    requester_buckets: BTreeMap<String, Bucket>,
    /// The requester of the last CSR that was taken.
    last: Option<String>,
}

/// The CSRs of one requester by node, newest first. Most requesters are nodes with a single CSR, and a map for each of
/// them would need more memory than the CSRs.
#[derive(Clone, Debug, Default)]
struct RequesterQueue(Vec<(String, Vec<QueueEntry>)>);

impl RequesterQueue {
    fn find(&self, node: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.as_str().cmp(node))
    }

    fn of_node(&mut self, node: &str) -> Option<&mut Vec<QueueEntry>> {
        let at = self.find(node).ok()?;
        Some(&mut self.0[at].1)
    }

    fn of_node_or_new(&mut self, node: &str) -> &mut Vec<QueueEntry> {
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

    fn nodes(&self) -> impl Iterator<Item = &Vec<QueueEntry>> {
        self.0.iter().map(|(_, requests)| requests)
    }
}

impl Queue {
    /// Returns an empty queue.
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

    /// Adds or updates a CSR. Returns the names of CSRs that are dropped because of the limit per node.
    pub fn put(&mut self, request: SigningRequest) -> Vec<String> {
        let known = self.remove(&request.name).filter(|known| known.request.uid == request.uid);
        let unchanged = known.as_ref().is_some_and(|known| known.request.resource_version == request.resource_version);
        let (waits, reported, due) = known.map_or((0, None, None), |known| (known.waits, known.reported, known.due));
        let node = request.subject_node().unwrap_or_default();
        self.insert(QueueEntry { request, waits, reported, node, due: due.filter(|_| unchanged) })
    }

    /// Returns an entry to the queue until `due`. A newer version of the CSR in the queue stays unchanged.
    pub fn requeue(&mut self, entry: QueueEntry, due: Option<Timestamp>) {
        if !self.index.contains_key(&entry.request.name) {
            self.insert(QueueEntry { due, ..entry });
        }
    }

    fn insert(&mut self, entry: QueueEntry) -> Vec<String> {
        let requester = entry.request.username.clone();
        self.index.insert(entry.request.name.clone(), (requester.clone(), entry.node.clone()));
        let requests = self.requesters.entry(requester).or_default().of_node_or_new(&entry.node);
        let newer = |other: &QueueEntry| {
            (other.request.created, &other.request.name) > (entry.request.created, &entry.request.name)
        };
        let place = requests.iter().take_while(|other| newer(other)).count();
        requests.reserve_exact(1);
        requests.insert(place, entry);
        let old = requests.split_off(requests.len().min(self.limits.per_node.max(1)));
        let names: Vec<String> = old.into_iter().map(|entry| entry.request.name).collect();
        for name in &names {
            self.index.remove(name);
        }
        names
    }

    /// Removes a CSR that is deleted or has a final verdict.
    pub fn remove(&mut self, name: &str) -> Option<QueueEntry> {
        let (requester, node) = self.index.remove(name)?;
        let line = self.requesters.get_mut(&requester)?;
        let requests = line.of_node(&node)?;
        let at = requests.iter().position(|entry| entry.request.name == name)?;
        let removed = requests.remove(at);
        if requests.is_empty() {
            line.forget(&node);
        }
        if line.0.is_empty() {
            self.requesters.remove(&requester);
        }
        Some(removed)
    }

    /// Keeps only the CSRs of a new list.
    pub fn retain(&mut self, names: &BTreeSet<String>) {
        let gone: Vec<String> = self.index.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in gone {
            self.remove(&name);
        }
    }

    /// Makes all CSRs for a node due.
    pub fn wake(&mut self, node: &str) {
        for requests in self.requesters.values_mut().filter_map(|line| line.of_node(node)) {
            for entry in requests {
                entry.due = None;
            }
        }
    }

    /// Makes all CSRs due.
    pub fn wake_all(&mut self) {
        for (_, requests) in self.requesters.values_mut().flat_map(|line| &mut line.0) {
            for entry in requests {
                entry.due = None;
            }
        }
    }

    /// Takes due CSRs, at most `at_most`. Requesters alternate, beginning after the last one. The nodes of a requester
    /// alternate as well. For one node, the newest CSR is first.
    pub fn take(&mut self, now: Timestamp, at_most: usize) -> Vec<QueueEntry> {
        let behind = self.last.as_ref().map_or(Bound::Unbounded, |last| Bound::Excluded(last.clone()));
        let mut order: Vec<&String> =
            self.requesters.range((behind, Bound::Unbounded)).map(|(requester, _)| requester).collect();
        let rest = self.requesters.keys().take(self.requesters.len() - order.len());
        order.extend(rest);
        let mut lines: Vec<(String, VecDeque<String>)> =
            order.into_iter().map(|requester| (requester.clone(), self.due_of(requester, now))).collect();
        let mut entries = vec![];
        while entries.len() < at_most && lines.iter().any(|(_, line)| !line.is_empty()) {
            for (requester, line) in &mut lines {
                if entries.len() == at_most {
                    break;
                }
                let Some(name) = line.pop_front() else { continue };
                let Some(entry) = self.admit(requester, &name, now) else { continue };
                self.last = Some(requester.clone());
                entries.push(entry);
            }
        }
        self.forget_full_buckets(now);
        entries
    }

    /// Returns the names of the due CSRs of a requester, in order.
    fn due_of(&self, requester: &str, now: Timestamp) -> VecDeque<String> {
        let line = self.requesters.get(requester).map(|line| self.within_limit(line)).unwrap_or_default();
        let due = line.into_iter().filter(|entry| entry.due.is_none_or(|due| due <= now));
        due.map(|entry| entry.request.name.clone()).collect()
    }

    /// Returns the CSRs of a requester within the limit. The nodes alternate, each with the newest CSR first. Above the
    /// limit only the newest CSRs remain, so that stuck CSRs do not block later ones.
    fn within_limit<'a>(&self, line: &'a RequesterQueue) -> Vec<&'a QueueEntry> {
        let rounds = line.nodes().map(Vec::len).max().unwrap_or_default();
        let mut entries: Vec<&QueueEntry> =
            (0..rounds).flat_map(|round| line.nodes().filter_map(move |requests| requests.get(round))).collect();
        let limit = self.limits.per_requester.max(1);
        if entries.len() > limit {
            entries.sort_by_key(|entry| Reverse(entry.request.created));
            entries.truncate(limit);
        }
        entries
    }

    /// Takes a CSR, unless the rate limit of its node or requester is exceeded.
    fn admit(&mut self, requester: &str, name: &str, now: Timestamp) -> Option<QueueEntry> {
        let entry = self.remove(name)?;
        if entry.waits > 0 {
            return Some(entry);
        }
        match self.spend(requester, &entry.node, now) {
            Ok(()) => Some(entry),
            Err(later) => {
                self.insert(QueueEntry { due: Some(later), ..entry });
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

    /// Returns the due time of the next CSR, which may be in the past, or `None` for an empty queue.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let looked_at = self.requesters.values().flat_map(|line| self.within_limit(line));
        looked_at.map(|entry| entry.due.unwrap_or(Timestamp::MIN)).min()
    }

    /// Returns the number of CSRs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns whether the queue is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Returns the creation time of the oldest CSR.
    #[must_use]
    pub fn oldest(&self) -> Option<Timestamp> {
        self.entries().filter_map(|entry| entry.request.created).min()
    }

    fn entries(&self) -> impl Iterator<Item = &QueueEntry> {
        self.requesters.values().flat_map(RequesterQueue::nodes).flatten()
    }
}
