//! One target's session: connect, prepare, watch; on any trouble say so, wait, and begin again.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::ClusterSpec;
use kube::api::{Api, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};

use super::credentials;
use super::nodes::Nodes;
use super::preparation::{Prepared, Unavailable, prepare};
use super::signing_requests::SigningRequests;
use super::verdicts::Place;
use super::{Brief, PoolTrigger, Trigger};
use crate::approval::Approver;
use crate::kube::backoff;
use crate::kube::events::Events;
use crate::kube::target_client::CLIENT_VALIDITY;
use crate::metrics::Metrics;
use crate::plan::TargetFacts;
use crate::target::mark;

/// How often /readyz is asked. Two silent answers in a row end the session, so a lost control plane is seen in a minute.
const PROBE_PERIOD: Duration = Duration::from_secs(20);
/// How long an answer may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a piece of work with the target may take: two dozen requests at most.
const WORK_TIMEOUT: Duration = Duration::from_mins(1);
/// How often the objects in the target are looked at again.
const PREPARE_PERIOD: Duration = Duration::from_mins(10);
/// That nothing waits is not said before it would have shown: else a new session would take back what the last one said.
const SETTLING: Duration = Duration::from_mins(2);
/// The longest wait before a target that does not answer is tried again: somebody may be waiting for it to come up.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// A session's parts.
pub(super) struct Session {
    pub(super) object: ObjectRef<DeserializeGuard<ClusterSpec>>,
    pub(super) briefs: watch::Receiver<Arc<Brief>>,
    pub(super) facts: watch::Sender<TargetFacts>,
    pub(super) management: Client,
    pub(super) trigger: Trigger,
    pub(super) pool_trigger: PoolTrigger,
    pub(super) events: Events,
    pub(super) metrics: Metrics,
}

impl Session {
    /// Runs until it is cancelled.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        loop {
            let brief = Arc::clone(&self.briefs.borrow_and_update());
            let mut briefs = self.briefs.clone();
            let outcome = tokio::select! {
                // Without a sender there is nobody any more to work for.
                changed = briefs.changed() => if changed.is_ok() { continue } else { return },
                outcome = self.connected(&brief, &mut failures) => outcome,
            };
            let Err(unavailable) = outcome else { continue };
            failures += 1;
            tracing::info!(cluster = %self.object, reason = unavailable.reason, message = unavailable.message, "target not available");
            self.learn(|facts| {
                facts.available = Some(Err((unavailable.reason.to_owned(), unavailable.message.clone())));
                facts.nodes = None;
            });
            tokio::select! {
                changed = briefs.changed() => if changed.is_err() { return },
                () = sleep(backoff::delay(failures).min(LONGEST_WAIT)) => {}
            }
        }
    }

    /// Keeps new facts, and asks for a reconciliation if they differ.
    fn learn(&self, change: impl FnOnce(&mut TargetFacts)) {
        let modified = self.facts.send_if_modified(|facts| {
            let before = facts.clone();
            change(facts);
            *facts != before
        });
        if modified {
            // The receiver is gone only when the process ends.
            let _ = self.trigger.send(self.object.clone());
        }
    }

    /// Keeps which pools have requests that wait, and asks for a reconciliation of those for which that is news. The
    /// ClusterSpec has no part in it.
    fn learn_waiting(&self, brief: &Brief, judge: &SigningRequests, connected: Instant) {
        let waiting = judge.waiting().by_pool();
        if waiting.is_empty() && connected.elapsed() < SETTLING {
            return;
        }
        let mut changed = vec![];
        self.facts.send_if_modified(|facts| {
            let Some(before) = facts.waiting.replace(waiting.clone()) else {
                // What an earlier process has told may be wrong by now.
                changed = brief.pools.keys().cloned().collect();
                return true;
            };
            let pools = before.keys().chain(waiting.keys()).filter(|pool| before.get(*pool) != waiting.get(*pool));
            changed = pools.cloned().collect::<Vec<_>>();
            !changed.is_empty()
        });
        for pool in changed {
            // The receiver is gone only when the process ends.
            let _ = self.pool_trigger.send(ObjectRef::new(&pool).within(&brief.cluster.namespace));
        }
    }

    /// Works with the target until the certificate is to be renewed (`Ok`) or something fails.
    async fn connected(&self, brief: &Brief, failures: &mut u32) -> Result<(), Unavailable> {
        let client = credentials::own(&self.management, brief).await?;
        probe(&client, brief).await?;
        self.tell(brief, within(brief, prepare(&client, &self.management, brief)).await??).await;
        *failures = 0;
        self.learn(|facts| facts.available = Some(Ok(())));

        let watched_nodes = watcher(Api::<Node>::all(client.clone()), watcher::Config::default());
        let mut watched_nodes = pin!(watched_nodes.default_backoff());
        let mut nodes = Nodes::default();
        let mut judge = self.judge(client.clone(), brief);
        let requests = Api::<DeserializeGuard<CertificateSigningRequest>>::all(client.clone());
        let mut requests = pin!(watcher(requests, judge.watch_config()).default_backoff());
        let mut probes = interval_at(Instant::now() + PROBE_PERIOD, PROBE_PERIOD);
        let mut preparations = interval_at(Instant::now() + PREPARE_PERIOD, PREPARE_PERIOD);
        for timer in [&mut probes, &mut preparations] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut renewal = pin!(sleep(CLIENT_VALIDITY / 2));
        let mut silent = 0;
        let connected = Instant::now();
        loop {
            tokio::select! {
                () = &mut renewal => return Ok(()),
                event = watched_nodes.next() => match event {
                    Some(Ok(event)) => {
                        judge.node_event(&event);
                        // A kubelet updates its Node all the time; most of it is nothing new here.
                        if nodes.take(&event) && nodes.are_listed() {
                            let declared = brief.cluster.nodes.iter().map(|node| node.name.as_str());
                            self.learn(|facts| facts.nodes = Some(nodes.ready(declared)));
                        }
                        if let Event::Apply(node) | Event::InitApply(node) = event {
                            within(brief, self.mark(&client, brief, &node)).await?;
                        }
                    }
                    Some(Err(error)) => tracing::debug!(cluster = %self.object, %error, "watching Nodes"),
                    None => return Err(Unavailable::new("WatchEnded", "the watch of Nodes ended")),
                },
                event = requests.next() => match event {
                    Some(Ok(event)) => judge.request_event(event),
                    Some(Err(error)) => tracing::debug!(cluster = %self.object, %error, "watching requests"),
                    None => return Err(Unavailable::new("WatchEnded", "the watch of requests ended")),
                },
                () = sleep_until(judge.wake()) => {
                    within(brief, judge.work(Timestamp::now())).await?;
                    self.learn_waiting(brief, &judge, connected);
                }
                _ = preparations.tick() => self.tell(brief, within(brief, prepare(&client, &self.management, brief)).await??).await,
                _ = probes.tick() => match probe(&client, brief).await {
                    Ok(()) => {
                        silent = 0;
                        self.learn_waiting(brief, &judge, connected);
                    }
                    Err(unavailable) => {
                        silent += 1;
                        if silent > 1 {
                            return Err(unavailable);
                        }
                    }
                },
            }
        }
    }

    /// What judges the target's requests.
    fn judge(&self, client: Client, brief: &Brief) -> SigningRequests {
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
        SigningRequests::new(client, approver, place, self.events.clone(), self.metrics.clone())
    }

    async fn tell(&self, brief: &Brief, prepared: Prepared) {
        if !prepared.granted.is_empty() {
            let note = format!(
                "granted rights in the target with the super-admin's credential, applied {}",
                prepared.granted.join(", ")
            );
            tracing::info!(cluster = %self.object, note, "target prepared");
            self.events.normal(&brief.reference, "TargetPrepared", "Prepare", &note).await;
        }
        if !prepared.removed.is_empty() {
            let note = format!(
                "Keyplane judges kubelets' client certificates: took away with the super-admin's credential {}",
                prepared.removed.join(", ")
            );
            tracing::info!(cluster = %self.object, note, "target prepared");
            self.events.normal(&brief.reference, "TargetPrepared", "Remove", &note).await;
        }
        if !prepared.foreign.is_empty() {
            let note = format!(
                "the controller-manager approves kubelets' client certificates unseen, beside Keyplane: delete {}",
                prepared.foreign.join(", ")
            );
            self.events.warning(&brief.reference, "ApprovedByOthers", "Prepare", &note).await;
        }
        if !prepared.mended.is_empty() {
            let note = format!("put right in the target: {}", prepared.mended.join(", "));
            tracing::info!(cluster = %self.object, note, "target mended");
            self.events.normal(&brief.reference, "TargetMended", "Mend", &note).await;
        }
    }

    /// Marks a declared control-plane Node that is new.
    async fn mark(&self, client: &Client, brief: &Brief, node: &Node) {
        let name = node.name_any();
        if !brief.cluster.nodes.iter().any(|declared| declared.name == name) {
            return;
        }
        let taints = brief.cluster.spec.control_plane.taints.as_deref();
        let Some(patch) = mark(node, taints) else { return };
        let api = Api::<Node>::all(client.clone());
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch.0)).await {
            Ok(_) => {
                let note = format!("marked Node {name} as one of the control plane");
                self.events.normal(&brief.reference, "NodeMarked", "Mark", &note).await;
            }
            // The watch brings the Node again with its next change.
            Err(error) => tracing::info!(cluster = %self.object, node = name, %error, "Node not marked yet"),
        }
    }
}

/// Work with a target that has a limit: one that swallows packets would hold it up for a quarter of an hour.
async fn within<T>(brief: &Brief, work: impl Future<Output = T>) -> Result<T, Unavailable> {
    timeout(WORK_TIMEOUT, work).await.map_err(|_| {
        let endpoint = &brief.cluster.endpoint;
        let seconds = WORK_TIMEOUT.as_secs();
        Unavailable::new("Unreachable", format!("the API server at {endpoint} did not answer within {seconds} s"))
    })
}

async fn probe(client: &Client, brief: &Brief) -> Result<(), Unavailable> {
    let endpoint = &brief.cluster.endpoint;
    let request =
        http::Request::get("/readyz").body(vec![]).map_err(|error| Unavailable::new("NoClient", error.to_string()))?;
    match timeout(PROBE_TIMEOUT, client.request_text(request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Unavailable::from_error(brief, &error)),
        Err(_) => Err(Unavailable::new(
            "Unreachable",
            format!("the API server at {endpoint} did not answer /readyz within {} s", PROBE_TIMEOUT.as_secs()),
        )),
    }
}
