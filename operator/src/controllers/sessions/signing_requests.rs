//! Judges a cluster's kubelet requests as its watches tell of them. The judging itself is [`keyplane_core::approval`]'s, the
//! writing `verdicts.rs`'s.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource, ResourceExt};
use tokio::time::Instant;

use super::Brief;
use super::verdicts::{Judged, LASTING_WAITS, Outcome, Place, Verdicts};
use super::waiting::{Waiting, WaitingRequest};
use super::watched::WatchedRequest;
use crate::metrics::Metrics;
use keyplane_client::events::Events;
use keyplane_client::{backoff, resolve};
use keyplane_core::approval::{
    Approver, Bucket, KUBELET_SERVING_SIGNER, Limits, NodeFacts, Queue, Rate, Resolved, Signer, Turn, Verdict,
};

/// How many requests are judged before the watches are looked at again.
const BATCH: usize = 256;

/// How many verdicts are under way at once: enough to hide the API server's answer time (`make bench-approver`), and few of
/// the 200 writes that it takes at once by default (`--max-mutating-requests-inflight`).
const WRITERS: usize = 32;

/// How long to wait after a request was seen: what comes together is judged together, the newest first.
const GATHER: Duration = Duration::from_millis(20);

/// How many Events tell of approvals: a burst as client-go's broadcaster allows it (25), then one in five seconds. The
/// condition of each request, the log and the metrics tell of all of them.
const APPROVAL_EVENTS: Rate = Rate { burst: 25, refill: SignedDuration::from_secs(5) };

/// As good as never: something will have happened before.
const LONGEST_SLEEP: Duration = Duration::from_hours(24);

/// The requests that have no verdict yet.
pub(in crate::controllers) struct SigningRequests {
    verdicts: Verdicts,
    approver: Approver,
    queue: Queue,
    approval_events: Bucket,
    /// The Nodes of a list that is under way.
    listed_nodes: Vec<NodeFacts>,
    /// The requests of a list that is under way.
    listed_requests: Option<BTreeSet<String>>,
    /// Whether there has been a complete list of Nodes, and of requests.
    nodes_known: bool,
    requests_known: bool,
    waiting: Waiting,
    wake: Option<Instant>,
}

impl SigningRequests {
    pub(in crate::controllers) fn new(
        client: Client,
        approver: Approver,
        place: Place,
        events: Events,
        metrics: Metrics,
    ) -> Self {
        let terms = approver.terms();
        let limits = Limits { per_node: terms.pending_per_node, per_requester: terms.pending_per_requester };
        Self {
            verdicts: Verdicts { api: Api::all(client), place, events, metrics },
            approver,
            queue: Queue::new(limits),
            approval_events: Bucket::default(),
            listed_nodes: vec![],
            listed_requests: None,
            nodes_known: false,
            requests_known: false,
            waiting: Waiting::default(),
            wake: None,
        }
    }

    /// For the requests of a target.
    pub(super) fn of_target(client: Client, brief: &Brief, events: Events, metrics: Metrics) -> Self {
        let cluster = &brief.cluster;
        let approver = Approver::of_cluster(&cluster.spec, &brief.pools, cluster.policy.requests.clone());
        let place = Place {
            labels: [cluster.namespace.clone(), cluster.name.clone()],
            policy: match &cluster.spec.certificate_policy_ref {
                Some(reference) => format!("CertificatePolicy {}", reference.name),
                None => "the default policy".to_owned(),
            },
            about: Some(brief.reference.clone()),
        };
        Self::new(client, approver, place, events, metrics)
    }

    /// How the requests are watched: those of one signer, or, where client certificates are judged too, all.
    pub(in crate::controllers) fn watch_config(&self) -> watcher::Config {
        if self.approver.terms().of(Signer::KubeletClient).enabled {
            return watcher::Config::default();
        }
        watcher::Config::default().fields(&format!("spec.signerName={KUBELET_SERVING_SIGNER}"))
    }

    /// When there is work, at the earliest. Before both lists are complete there is none: a Node that is not known yet may
    /// have the address, and an approved request the seat, that a request asks for.
    pub(in crate::controllers) fn wake(&self) -> Instant {
        let wake = self.wake.filter(|_| self.nodes_known && self.requests_known);
        wake.unwrap_or_else(|| Instant::now() + LONGEST_SLEEP)
    }

    fn wake_soon(&mut self) {
        let soon = Instant::now() + GATHER;
        self.wake = Some(self.wake.map_or(soon, |wake| wake.min(soon)));
    }

    /// What the watch of Nodes tells. A list counts only once it is complete: half a list would look as if the other
    /// Nodes' names and addresses were free.
    pub(in crate::controllers) fn node_event<N>(&mut self, event: &Event<N>)
    where
        N: Resource,
        NodeFacts: for<'a> From<&'a N>,
    {
        match event {
            Event::Init => self.listed_nodes.clear(),
            Event::InitApply(node) => self.listed_nodes.push(NodeFacts::from(node)),
            Event::InitDone => {
                self.nodes_known = true;
                if self.approver.set_nodes(std::mem::take(&mut self.listed_nodes)) {
                    self.queue.wake_all();
                    self.wake_soon();
                }
            }
            Event::Apply(node) => {
                // A kubelet updates its Node all the time; most of it is nothing new here.
                if self.approver.node_seen(NodeFacts::from(node)) {
                    self.queue.wake(&node.name_any());
                    self.wake_soon();
                }
            }
            Event::Delete(node) => {
                if self.approver.node_gone(&node.name_any()) {
                    self.queue.wake_all();
                    self.wake_soon();
                }
            }
        }
    }

    /// What the watch of requests tells.
    pub(in crate::controllers) fn request_event(&mut self, event: Event<WatchedRequest>) {
        match event {
            Event::Init => self.listed_requests = Some(BTreeSet::new()),
            Event::InitApply(request) => {
                if let Some(listed) = &mut self.listed_requests {
                    listed.insert(request.name_any());
                }
                self.seen(request);
            }
            Event::InitDone => {
                self.requests_known = true;
                if let Some(listed) = self.listed_requests.take() {
                    self.queue.retain(&listed);
                    self.waiting.retain(&listed);
                    self.approver.retain_requests(&listed);
                }
            }
            Event::Apply(request) => self.seen(request),
            Event::Delete(request) => {
                self.approver.request_gone(&request.name_any());
                self.gone(&request.name_any());
            }
        }
    }

    /// A request was made or has changed.
    fn seen(&mut self, request: WatchedRequest) {
        let name = request.name_any();
        let request = match request.request {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(request = name, %error, "a request that can't be read is left alone");
                return self.gone(&name);
            }
        };
        let Some(signer) = request.signer() else { return };
        if request.approved {
            self.approver.approved(&request);
        }
        if request.settled || !self.approver.terms().of(signer).enabled {
            return self.gone(&name);
        }
        for superseded in self.queue.put(request) {
            tracing::info!(request = superseded, "left pending: the node has newer requests");
        }
        self.wake_soon();
    }

    /// A request is no longer there, or has a verdict.
    fn gone(&mut self, name: &str) {
        self.queue.remove(name);
        self.waiting.settled(name);
        self.wake_soon();
    }

    /// The requests that have waited for long.
    pub(in crate::controllers) fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// Judges what is due.
    pub(in crate::controllers) async fn work(&mut self, now: Timestamp) {
        let turns = self.queue.take(now, BATCH);
        let Self { verdicts, approver, approval_events, .. } = self;
        let verdicts = &*verdicts;
        let settle = |judged: Judged| async move {
            let outcome = verdicts.settle(&judged).await;
            (judged, outcome)
        };
        let mut unresolved = vec![];
        // One is judged after the other, as an approval takes the seat that the next request would have; and each when a
        // writer is free, so that the API server has something to do meanwhile.
        let judged = turns.into_iter().filter_map(|turn| {
            let judged = judge(approver, approval_events, turn, &Resolved::default(), now);
            let names = approver.unresolved(&judged.turn.request, &judged.judgement);
            if names.is_empty() {
                return Some(judged);
            }
            unresolved.push((judged.turn, names));
            None
        });
        let mut outcomes: Vec<_> = stream::iter(judged).map(settle).buffer_unordered(WRITERS).collect().await;
        // They wait for others, not for a processor.
        let lookups = unresolved.into_iter().map(|(turn, names)| async move { (turn, resolve::all(&names).await) });
        let resolved = futures::future::join_all(lookups).await.into_iter();
        let judged = resolved.map(|(turn, resolved)| judge(approver, approval_events, turn, &resolved, now));
        outcomes.extend(stream::iter(judged).map(settle).buffer_unordered(WRITERS).collect::<Vec<_>>().await);
        for (judged, outcome) in outcomes {
            self.keep(judged, outcome, now);
        }
        self.wake = self.queue.next_due().map(|due| {
            let sleep = Duration::try_from(due.duration_since(now)).unwrap_or_default();
            Instant::now() + sleep.min(LONGEST_SLEEP)
        });
        let Verdicts { place, metrics, .. } = &self.verdicts;
        let labels = place.labels.each_ref().map(String::as_str);
        let pending = i64::try_from(self.queue.len()).unwrap_or(i64::MAX);
        metrics.csr_pending.with_label_values(&labels).set(pending);
        let oldest = self.queue.oldest().map_or(0, Timestamp::as_second);
        metrics.csr_oldest_pending.with_label_values(&labels).set(oldest);
    }

    /// Keeps what has no verdict yet.
    fn keep(&mut self, judged: Judged, outcome: Outcome, now: Timestamp) {
        let Judged { mut turn, judgement, .. } = judged;
        let name = turn.request.name.clone();
        let approved = judgement.verdict == Verdict::Approve && !judgement.dry_run;
        if approved && !matches!(outcome, Outcome::Done) {
            self.approver.request_gone(&name);
        }
        match outcome {
            Outcome::Done if judgement.verdict == Verdict::Wait => {
                turn.waits += 1;
                turn.told = Some(judgement.reason);
                if turn.waits >= LASTING_WAITS {
                    let node = turn.request.subject_node().unwrap_or_default();
                    let pools = self.approver.declaration(&node).pools().clone();
                    let message = format!("{name} of {}: {}", turn.request.username, judgement.message);
                    let waiting = WaitingRequest { pools, reason: judgement.reason, message };
                    self.waiting.waits(&name, waiting);
                }
                let due = now.checked_add(backoff::delay(turn.waits)).ok();
                self.queue.put_back(turn, due);
            }
            Outcome::Done if judgement.dry_run && judgement.verdict != Verdict::Ignore => {
                turn.told = Some(judgement.reason);
                // It is looked at again only if it or its Node changes.
                self.queue.put_back(turn, Some(Timestamp::MAX));
            }
            Outcome::Done | Outcome::Outdated(None) => self.waiting.settled(&name),
            Outcome::Outdated(Some(request)) => {
                self.queue.put(*request);
            }
            Outcome::Failed => {
                turn.waits += 1;
                let due = now.checked_add(backoff::delay(turn.waits)).ok();
                self.queue.put_back(turn, due);
            }
        }
    }
}

fn judge(approver: &mut Approver, events: &mut Bucket, turn: Turn, resolved: &Resolved, now: Timestamp) -> Judged {
    let judgement = approver.judge(&turn.request, resolved, now);
    let approves = judgement.verdict == Verdict::Approve;
    if approves && !judgement.dry_run {
        approver.approved(&turn.request);
    }
    let tell = !approves || events.take(APPROVAL_EVENTS, now).is_ok();
    Judged { turn, judgement, tell }
}

#[cfg(test)]
mod tests;
