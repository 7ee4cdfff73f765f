//! Evaluates a cluster's kubelet CSRs from watches. [`keyplane_core::approval`] decides, and `verdicts.rs` writes.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource, ResourceExt};
use tokio::time::Instant;

use super::SessionSpec;
use super::pending_csrs::{Waiting, WaitingRequest};
use super::projections::WatchedRequest;
use super::verdicts::{EvaluatedCsr, LASTING_WAITS, Outcome, Place, Verdicts};
use crate::metrics::Metrics;
use keyplane_client::events::Events;
use keyplane_client::{backoff, resolve};
use keyplane_core::approval::{
    Approver, Bucket, KUBELET_SERVING_SIGNER, Limits, NodeFacts, Queue, QueueEntry, Rate, Resolved, Signer, Verdict,
};

/// CSRs per batch. Between batches, watch events are processed.
const BATCH: usize = 256;

/// Concurrent writes of verdicts: enough to hide the API server's latency (`make bench-approver`), and few of the 200
/// concurrent writes that an API server accepts by default (`--max-mutating-requests-inflight`).
const WRITERS: usize = 32;

/// Delay after a new CSR: CSRs within this time are evaluated together, the newest first.
const GATHER: Duration = Duration::from_millis(20);

/// Rate limit of Events for approvals: a burst like client-go's broadcaster (25), then one in five seconds. The
/// condition of each CSR, the log and the metrics contain all approvals.
const APPROVAL_EVENTS: Rate = Rate { burst: 25, refill: SignedDuration::from_secs(5) };

/// The longest sleep: practically, an event wakes the task before.
const LONGEST_SLEEP: Duration = Duration::from_hours(24);

/// The CSRs without a verdict, and the approver.
pub(in crate::controllers) struct SigningRequests {
    verdicts: Verdicts,
    approver: Approver,
    queue: Queue,
    approval_events: Bucket,
    /// The Nodes of an incomplete list.
    listed_nodes: Vec<NodeFacts>,
    /// The CSRs of an incomplete list.
    listed_requests: Option<BTreeSet<String>>,
    /// Whether a list of Nodes was complete.
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

    /// Creates the approver of a target cluster's CSRs.
    pub(super) fn of_target(client: Client, spec: &SessionSpec, events: Events, metrics: Metrics) -> Self {
        let cluster = &spec.cluster;
        let approver = Approver::of_cluster(&cluster.spec, &spec.pools, cluster.policy.requests.clone());
        let place = Place {
            labels: [cluster.namespace.clone(), cluster.name.clone()],
            policy: match &cluster.spec.certificate_policy_ref {
                Some(reference) => format!("CertificatePolicy {}", reference.name),
                None => "the default policy".to_owned(),
            },
            about: Some(spec.reference.clone()),
        };
        Self::new(client, approver, place, events, metrics)
    }

    /// Returns the watch configuration: the CSRs of one signer, or all CSRs if client certificates are evaluated too.
    pub(in crate::controllers) fn watch_config(&self) -> watcher::Config {
        if self.approver.terms().of(Signer::KubeletClient).enabled {
            return watcher::Config::default();
        }
        watcher::Config::default().fields(&format!("spec.signerName={KUBELET_SERVING_SIGNER}"))
    }

    /// Returns the time of the next evaluation. Before both lists are complete, no CSR is evaluated: an unknown Node
    /// may have the requested address, and an unknown approved CSR may use up the quota.
    pub(in crate::controllers) fn wake(&self) -> Instant {
        let wake = self.wake.filter(|_| self.nodes_known && self.requests_known);
        wake.unwrap_or_else(|| Instant::now() + LONGEST_SLEEP)
    }

    fn wake_soon(&mut self) {
        let soon = Instant::now() + GATHER;
        self.wake = Some(self.wake.map_or(soon, |wake| wake.min(soon)));
    }

    /// Applies an event of the Node watch. A list is used only when it is complete: with an incomplete list, the names
    /// and addresses of other Nodes would seem free.
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
                // A kubelet updates its Node often, mostly without a relevant change.
                if self.approver.update_node(NodeFacts::from(node)) {
                    self.queue.wake(&node.name_any());
                    self.wake_soon();
                }
            }
            Event::Delete(node) => {
                if self.approver.remove_node(&node.name_any()) {
                    self.queue.wake_all();
                    self.wake_soon();
                }
            }
        }
    }

    /// Applies an event of the CSR watch.
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
                self.approver.remove_request(&request.name_any());
                self.gone(&request.name_any());
            }
        }
    }

    /// Handles a created or changed CSR.
    fn seen(&mut self, request: WatchedRequest) {
        let name = request.name_any();
        let request = match request.request {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(request = name, %error, "skipped a CSR that can't be parsed");
                return self.gone(&name);
            }
        };
        let Some(signer) = request.signer() else { return };
        if request.approved {
            self.approver.record_approval(&request);
        }
        if request.settled || !self.approver.terms().of(signer).enabled {
            return self.gone(&name);
        }
        for superseded in self.queue.put(request) {
            tracing::info!(request = superseded, "left pending, because the node has newer CSRs");
        }
        self.wake_soon();
    }

    /// Handles a CSR that was deleted or has a verdict.
    fn gone(&mut self, name: &str) {
        self.queue.remove(name);
        self.waiting.settled(name);
        self.wake_soon();
    }

    /// Returns the CSRs that have waited for long.
    pub(in crate::controllers) fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// Evaluates the due CSRs.
    pub(in crate::controllers) async fn work(&mut self, now: Timestamp) {
        let entries = self.queue.take(now, BATCH);
        let Self { verdicts, approver, approval_events, .. } = self;
        let verdicts = &*verdicts;
        let settle = |evaluated: EvaluatedCsr| async move {
            let outcome = verdicts.settle(&evaluated).await;
            (evaluated, outcome)
        };
        let mut unresolved = vec![];
        // CSRs are evaluated one after the other, because an approval uses the quota of the next CSR. Each is evaluated
        // when a writer is free, so that evaluation and writes overlap.
        let evaluated = entries.into_iter().filter_map(|entry| {
            let evaluated = evaluate(approver, approval_events, entry, &Resolved::default(), now);
            let names = approver.unresolved(&evaluated.entry.request, &evaluated.evaluation);
            if names.is_empty() {
                return Some(evaluated);
            }
            unresolved.push((evaluated.entry, names));
            None
        });
        let mut outcomes: Vec<_> = stream::iter(evaluated).map(settle).buffer_unordered(WRITERS).collect().await;
        // DNS lookups wait for the network, so they run concurrently.
        let lookups = unresolved.into_iter().map(|(entry, names)| async move { (entry, resolve::all(&names).await) });
        let resolved = futures::future::join_all(lookups).await.into_iter();
        let evaluated = resolved.map(|(entry, resolved)| evaluate(approver, approval_events, entry, &resolved, now));
        outcomes.extend(stream::iter(evaluated).map(settle).buffer_unordered(WRITERS).collect::<Vec<_>>().await);
        for (evaluated, outcome) in outcomes {
            self.keep(evaluated, outcome, now);
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

    /// Requeues a CSR that has no verdict yet.
    fn keep(&mut self, evaluated: EvaluatedCsr, outcome: Outcome, now: Timestamp) {
        let EvaluatedCsr { mut entry, evaluation, .. } = evaluated;
        let name = entry.request.name.clone();
        let approved = evaluation.verdict == Verdict::Approve && !evaluation.dry_run;
        if approved && !matches!(outcome, Outcome::Done) {
            self.approver.remove_request(&name);
        }
        match outcome {
            Outcome::Done if evaluation.verdict == Verdict::Wait => {
                entry.waits += 1;
                entry.reported = Some(evaluation.reason);
                if entry.waits >= LASTING_WAITS {
                    let node = entry.request.subject_node().unwrap_or_default();
                    let pools = self.approver.declaration(&node).pools().clone();
                    let message = format!("{name} of {}: {}", entry.request.username, evaluation.message);
                    let waiting = WaitingRequest { pools, reason: evaluation.reason, message };
                    self.waiting.waits(&name, waiting);
                }
                let due = now.checked_add(backoff::delay(entry.waits)).ok();
                self.queue.requeue(entry, due);
            }
            Outcome::Done if evaluation.dry_run && evaluation.verdict != Verdict::Ignore => {
                entry.reported = Some(evaluation.reason);
                // The CSR is evaluated again only if the CSR or its Node changes.
                self.queue.requeue(entry, Some(Timestamp::MAX));
            }
            Outcome::Done | Outcome::Outdated(None) => self.waiting.settled(&name),
            Outcome::Outdated(Some(request)) => {
                self.queue.put(*request);
            }
            Outcome::Failed => {
                entry.waits += 1;
                let due = now.checked_add(backoff::delay(entry.waits)).ok();
                self.queue.requeue(entry, due);
            }
        }
    }
}

fn evaluate(
    approver: &mut Approver,
    events: &mut Bucket,
    entry: QueueEntry,
    resolved: &Resolved,
    now: Timestamp,
) -> EvaluatedCsr {
    let evaluation = approver.evaluate(&entry.request, resolved, now);
    let approves = evaluation.verdict == Verdict::Approve;
    if approves && !evaluation.dry_run {
        approver.record_approval(&entry.request);
    }
    let record_event = !approves || events.take(APPROVAL_EVENTS, now).is_ok();
    EvaluatedCsr { entry, evaluation, record_event }
}

#[cfg(test)]
mod tests;
