//! One target's session: connect, prepare, watch; on any trouble say so, wait, and begin again.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{join, join_all};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::reasons;
use kube::api::{Api, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};

use super::addons::Addons;
use super::credentials::{self, Clients};
use super::machines::PATIENCE;
use super::nodes::Nodes;
use super::preparation::{Unavailable, prepare};
use super::serving::presented_by_each;
use super::signing_requests::SigningRequests;
use super::tokens::Tokens;
use super::watched::WatchedRequest;
use super::{Brief, Findings, PoolTrigger};
use crate::metrics::Metrics;
use crate::target_client::CLIENT_VALIDITY;
use keyplane_client::backoff;
use keyplane_client::events::Events;
use keyplane_core::approval::KUBELET_CLIENT_SIGNER;
use keyplane_core::join::mark_worker;
use keyplane_core::join::state::{Facts, Request, TokenState};
use keyplane_core::target_objects::mark;

/// How often /readyz is asked. Two silent answers in a row end the session, so a lost control plane is seen in a minute.
const PROBE_PERIOD: Duration = Duration::from_secs(20);
/// How long an answer may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a piece of work with the target may take: a few dozen requests at most.
const WORK_TIMEOUT: Duration = Duration::from_mins(1);
/// How often the objects in the target are looked at again.
const PREPARE_PERIOD: Duration = Duration::from_mins(10);
/// That nothing waits is not said before it would have shown: else a new session would take back what the last one said.
const SETTLING: Duration = Duration::from_mins(2);
/// How long to wait after news of machines before tokens are looked at: machines come in groups.
const TOKEN_GATHER: Duration = Duration::from_secs(1);
/// How soon a token that could not be made or revoked is tried again.
const TOKEN_RETRY: Duration = Duration::from_secs(10);
/// The longest wait before a target that does not answer is tried again: somebody may be waiting for it to come up.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// A session's parts.
pub(super) struct Session {
    pub(super) briefs: watch::Receiver<Arc<Brief>>,
    pub(super) findings: Findings,
    pub(super) join: watch::Sender<Facts>,
    pub(super) wake: Arc<Notify>,
    pub(super) pool_trigger: PoolTrigger,
    pub(super) management: Client,
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
            tracing::info!(cluster = %self.findings.object, reason = unavailable.reason, message = unavailable.message, "target not available");
            self.findings.learn(|facts| {
                facts.available = Some(Err((unavailable.reason.to_owned(), unavailable.message.clone())));
                facts.nodes = None;
                facts.pod_ranges = None;
                facts.api_servers = None;
                facts.static_pods = None;
                facts.addons = None;
            });
            self.learn_of_machines(|facts| {
                facts.nodes = None;
                facts.pod_ranges = None;
            });
            tokio::select! {
                changed = briefs.changed() => if changed.is_err() { return },
                () = self.look_from_outside(&brief, failures) => {}
            }
        }
    }

    /// Waits before the next try. Meanwhile the API servers' certificates may tell why there was no session.
    async fn look_from_outside(&self, brief: &Brief, failures: u32) {
        let presented = async {
            let presented = presented_by_each(&brief.cluster, PATIENCE).await;
            self.findings.learn(|facts| facts.serving = presented);
        };
        join(sleep(backoff::delay(failures).min(LONGEST_WAIT)), presented).await;
    }

    /// Keeps new facts about machines, and asks for a reconciliation of the pools if they differ.
    fn learn_of_machines(&self, change: impl FnOnce(&mut Facts)) {
        let modified = self.join.send_if_modified(|facts| {
            let before = facts.clone();
            change(facts);
            *facts != before
        });
        if modified {
            // The receiver is gone only when the process ends.
            let _ = self.pool_trigger.send(self.findings.object.clone());
        }
    }

    /// Keeps which pools have requests that wait.
    fn learn_waiting(&self, judge: &SigningRequests, connected: Instant) {
        if let Some(waiting) = judge.waiting().by_pool(connected.elapsed() >= SETTLING) {
            self.learn_of_machines(|facts| facts.waiting = Some(waiting));
        }
    }

    /// Works with the target until the certificate is to be renewed (`Ok`) or something fails.
    async fn connected(&self, brief: &Brief, failures: &mut u32) -> Result<(), Unavailable> {
        let Clients { shared: client, of_each } = credentials::own(&self.management, brief).await?;
        probe(&client, brief).await?;
        self.tell(brief, within(brief, prepare(&client, &self.management, brief)).await??).await;
        *failures = 0;
        let api_servers = probe_each(&of_each, brief).await;
        self.findings.learn(|facts| {
            facts.available = Some(Ok(()));
            facts.rotation.prepared = Some(brief.trust.clone());
            facts.api_servers = api_servers;
        });

        let watched_nodes = watcher(Api::<Node>::all(client.clone()), watcher::Config::default());
        let mut watched_nodes = pin!(watched_nodes.default_backoff());
        let mut judge = SigningRequests::of_target(client.clone(), brief, self.events.clone(), self.metrics.clone());
        let requests = Api::<WatchedRequest>::all(client.clone());
        let mut requests = pin!(watcher(requests, judge.watch_config()).default_backoff());
        // A field selector names one signer, so the requests of kubelets that join are another watch.
        let first_requests = Api::<DeserializeGuard<CertificateSigningRequest>>::all(client.clone());
        let clients = watcher::Config::default().fields(&format!("spec.signerName={KUBELET_CLIENT_SIGNER}"));
        let mut first_requests = pin!(watcher(first_requests, clients).default_backoff());
        let tokens = Tokens::new(client.clone(), self.management.clone(), brief, &self.events, &self.metrics);
        let mut tokens_due = Some(Instant::now());
        let mut machines = pin!(self.look_at_machines(&client, brief));
        let mut nodes = Nodes::default();
        let mut probes = interval_at(Instant::now() + PROBE_PERIOD, PROBE_PERIOD);
        let mut preparations = interval_at(Instant::now() + PREPARE_PERIOD, PREPARE_PERIOD);
        for timer in [&mut probes, &mut preparations] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut renewal = pin!(sleep(CLIENT_VALIDITY / 2));
        let mut addons = pin!(self.keep_addons(&client, brief));
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
                            let declared = brief.cluster.machines().map(|node| node.name.as_str());
                            self.findings.learn(|facts| {
                                facts.nodes = Some(nodes.ready(declared));
                                facts.kubelets = nodes.kubelets();
                                facts.pod_ranges = Some(nodes.pod_ranges());
                            });
                            self.learn_of_machines(|facts| {
                                facts.nodes = Some(nodes.of_pools(&brief.workers));
                                facts.pod_ranges = Some(nodes.pod_ranges());
                            });
                            tokens_due = Some(soon(tokens_due));
                        }
                        if let Event::Apply(node) | Event::InitApply(node) = event {
                            within(brief, self.mark(&client, brief, &node)).await?;
                        }
                    }
                    Some(Err(error)) => tracing::debug!(cluster = %self.findings.object, %error, "watching Nodes"),
                    None => return Err(Unavailable::new(reasons::WATCH_ENDED, "the watch of Nodes ended")),
                },
                ended = &mut machines => return Err(ended),
                event = requests.next() => match event {
                    Some(Ok(event)) => judge.request_event(event),
                    Some(Err(error)) => tracing::debug!(cluster = %self.findings.object, %error, "watching requests"),
                    None => return Err(Unavailable::new(reasons::WATCH_ENDED, "the watch of requests ended")),
                },
                ended = &mut addons => return Err(ended),
                event = first_requests.next() => match event {
                    Some(Ok(event)) => self.take_first_request(brief, &event),
                    Some(Err(error)) => tracing::debug!(cluster = %self.findings.object, %error, "watching first requests"),
                    None => return Err(Unavailable::new(reasons::WATCH_ENDED, "the watch of requests ended")),
                },
                () = self.wake.notified() => tokens_due = Some(soon(tokens_due)),
                () = sleep_until(judge.wake()) => {
                    within(brief, judge.work(Timestamp::now())).await?;
                    self.learn_waiting(&judge, connected);
                }
                () = at(tokens_due), if nodes.are_listed() => {
                    tokens_due = self.keep_tokens(brief, &tokens, &nodes).await?;
                }
                _ = preparations.tick() => {
                    self.tell(brief, within(brief, prepare(&client, &self.management, brief)).await??).await;
                    // A token's half-life, and a kubelet's silence, come by the clock.
                    tokens_due = Some(soon(tokens_due));
                }
                _ = probes.tick() => match probe(&client, brief).await {
                    Ok(()) => {
                        silent = 0;
                        self.learn_waiting(&judge, connected);
                        let api_servers = probe_each(&of_each, brief).await;
                        self.findings.learn(|facts| facts.api_servers = api_servers);
                    }
                    Err(unavailable) if silent > 0 => return Err(unavailable),
                    Err(_) => silent += 1,
                },
            }
        }
    }

    /// Keeps the add-ons as they are declared until something fails.
    async fn keep_addons(&self, client: &Client, brief: &Brief) -> Unavailable {
        let mut addons = Addons::new(client.clone(), brief);
        let mut changes = addons.changes();
        let mut due = pin!(sleep(Duration::ZERO));
        loop {
            tokio::select! {
                Some(change) = changes.next() => {
                    if let Some(wait) = addons.take(change) {
                        let sooner = due.deadline().min(Instant::now() + wait);
                        due.as_mut().reset(sooner);
                    }
                    self.learn_addons(&addons);
                }
                () = &mut due => {
                    let looked_after = within(brief, addons.look_after(&self.management)).await;
                    let (done, retry) = match looked_after {
                        Ok(result) => result,
                        Err(unavailable) => return unavailable,
                    };
                    self.tell_addons(brief, done).await;
                    self.learn_addons(&addons);
                    due.as_mut().reset(Instant::now() + retry.unwrap_or(PREPARE_PERIOD));
                }
            }
        }
    }

    /// Makes, revokes and notes tokens; says when to try again what failed.
    async fn keep_tokens(
        &self,
        brief: &Brief,
        tokens: &Tokens<'_>,
        nodes: &Nodes,
    ) -> Result<Option<Instant>, Unavailable> {
        let states = within(brief, tokens.keep(&nodes.of_pools(&brief.workers), Timestamp::now())).await?;
        let failed = states.values().any(|state| matches!(state, TokenState::Failed(_)));
        self.learn_of_machines(|facts| facts.tokens = states);
        Ok(failed.then(|| Instant::now() + TOKEN_RETRY))
    }

    /// Keeps what is known of the add-ons, once there was a first look.
    fn learn_addons(&self, addons: &Addons<'_>) {
        if let Some(known) = addons.facts() {
            self.findings.learn(|facts| facts.addons = Some(known));
        }
    }

    /// Keeps what a request of a kubelet that joins says of its machine.
    fn take_first_request(&self, brief: &Brief, event: &Event<DeserializeGuard<CertificateSigningRequest>>) {
        match event {
            Event::Init => self.learn_of_machines(|facts| facts.requests.clear()),
            Event::InitDone | Event::Delete(_) => {}
            Event::Apply(request) | Event::InitApply(request) => {
                let Some(request) = request.0.as_ref().ok().and_then(Request::of) else { return };
                // Whoever has a token may ask for any name; what is no machine of a pool is not kept.
                if !brief.workers.iter().any(|pool| pool.has(&request.node)) {
                    return;
                }
                self.learn_of_machines(|facts| {
                    let known = facts.requests.get(&request.node);
                    // A kubelet that is started anew asks anew.
                    if known.is_none_or(|known| known.created <= request.created) {
                        facts.requests.insert(request.node.clone(), request);
                    }
                });
            }
        }
    }

    /// Marks a declared control-plane Node that is new, and a worker's Node that lacks labels.
    async fn mark(&self, client: &Client, brief: &Brief, node: &Node) {
        let name = node.name_any();
        let control_plane = &brief.cluster.spec.control_plane;
        let (patch, what) = if let Some(declared) = brief.cluster.nodes.iter().find(|declared| declared.name == name) {
            if !control_plane.register_nodes {
                return;
            }
            let zone = declared.failure_domain.as_deref();
            (mark(node, control_plane.taints.as_deref(), zone), "as one of the control plane")
        } else {
            (mark_worker(node, &brief.workers), "with the labels of its NodePool")
        };
        let Some(patch) = patch else { return };
        let api = Api::<Node>::all(client.clone());
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch.0)).await {
            Ok(_) => {
                let note = format!("marked Node {name} {what}");
                self.events.normal(&brief.reference, reasons::NODE_LABELLED, "Label", &note).await;
            }
            // The watch brings the Node again with its next change.
            Err(error) => tracing::info!(cluster = %self.findings.object, node = name, %error, "Node not marked yet"),
        }
    }
}

/// A second from now, or what was due before that.
fn soon(due: Option<Instant>) -> Instant {
    let soon = Instant::now() + TOKEN_GATHER;
    due.map_or(soon, |due| due.min(soon))
}

/// Waits for the time, for ever where there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Work with a target that has a limit: one that swallows packets would hold it up for a quarter of an hour.
async fn within<T>(brief: &Brief, work: impl Future<Output = T>) -> Result<T, Unavailable> {
    timeout(WORK_TIMEOUT, work).await.map_err(|_| {
        let endpoint = &brief.cluster.endpoint;
        let seconds = WORK_TIMEOUT.as_secs();
        Unavailable::new(
            reasons::UNREACHABLE,
            format!("the API server at {endpoint} did not answer within {seconds} s"),
        )
    })
}

/// Whether the API server of each machine answers, where no Node tells of the machine.
async fn probe_each(clients: &BTreeMap<String, Client>, brief: &Brief) -> Option<BTreeMap<String, bool>> {
    let answers = clients.iter().map(async |(name, client)| (name.clone(), probe(client, brief).await.is_ok()));
    Some(join_all(answers).await.into_iter().collect()).filter(|_| !clients.is_empty())
}

async fn probe(client: &Client, brief: &Brief) -> Result<(), Unavailable> {
    let endpoint = &brief.cluster.endpoint;
    let request = http::Request::get("/readyz")
        .body(vec![])
        .map_err(|error| Unavailable::new(reasons::NO_CLIENT, error.to_string()))?;
    match timeout(PROBE_TIMEOUT, client.request_text(request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Unavailable::from_error(brief, &error)),
        Err(_) => Err(Unavailable::new(
            reasons::UNREACHABLE,
            format!("the API server at {endpoint} did not answer /readyz within {} s", PROBE_TIMEOUT.as_secs()),
        )),
    }
}
