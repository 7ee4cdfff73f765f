//! The session with one target cluster: connects, bootstraps, watches. After an error, the session reports it, waits,
//! and reconnects.

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
use super::bootstrap::prepare;
use super::credentials::{self, Clients};
use super::nodes::Nodes;
use super::projections::WatchedRequest;
use super::serving_certificates::presented_by_each;
use super::signing_requests::SigningRequests;
use super::tokens::Tokens;
use super::unavailable::Unavailable;
use super::{HANDSHAKE_TIMEOUT, PoolTrigger, SessionSpec, TargetStatus};
use crate::metrics::Metrics;
use crate::target_client::CLIENT_VALIDITY;
use keyplane_client::backoff;
use keyplane_client::events::Events;
use keyplane_core::approval::KUBELET_CLIENT_SIGNER;
use keyplane_core::join::state::{JoinFacts, Request, TokenState};
use keyplane_core::join::worker_label_patch;
use keyplane_core::target_objects::control_plane_patch;

/// Interval of /readyz probes. Two failed probes in a row end the session, so a lost control plane is reported in a
/// minute.
const PROBE_PERIOD: Duration = Duration::from_secs(20);
/// Time for one probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for one piece of work in the target cluster: a few dozen requests at most.
const WORK_TIMEOUT: Duration = Duration::from_mins(1);
/// Interval of checks of Keyplane's objects in the target cluster.
const PREPARE_PERIOD: Duration = Duration::from_mins(10);
/// Time before "no pending CSRs" is reported. The watch needs time to show pending CSRs; otherwise a new session would
/// clear the condition of the previous session.
const PENDING_CSR_SETTLE_TIME: Duration = Duration::from_mins(2);
/// Delay between a change of Nodes and the reconciliation of tokens, because Nodes often change in groups.
const TOKEN_GATHER: Duration = Duration::from_secs(1);
/// Delay before a failed creation or revocation of a token is retried.
const TOKEN_RETRY: Duration = Duration::from_secs(10);
/// The longest delay before a reconnect, because a user may be waiting for the target cluster to start.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(15);

/// A session with a target cluster.
pub(super) struct Session {
    pub(super) specs: watch::Receiver<Arc<SessionSpec>>,
    pub(super) target_status: TargetStatus,
    pub(super) join: watch::Sender<JoinFacts>,
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
            let spec = Arc::clone(&self.specs.borrow_and_update());
            let mut specs = self.specs.clone();
            let outcome = tokio::select! {
                // A dropped sender means that the session was stopped.
                changed = specs.changed() => if changed.is_ok() { continue } else { return },
                outcome = self.connected(&spec, &mut failures) => outcome,
            };
            let Err(unavailable) = outcome else { continue };
            failures += 1;
            tracing::info!(cluster = %self.target_status.object, reason = unavailable.reason, message = unavailable.message, "target cluster not available");
            self.target_status.update(|facts| {
                facts.available = Some(Err((unavailable.reason.to_owned(), unavailable.message.clone())));
                facts.nodes = None;
                facts.pod_ranges = None;
                facts.api_servers = None;
                facts.static_pods = None;
                facts.addons = None;
            });
            self.update_join_facts(|facts| {
                facts.nodes = None;
                facts.pod_ranges = None;
            });
            tokio::select! {
                changed = specs.changed() => if changed.is_err() { return },
                () = self.wait_to_reconnect(&spec, failures) => {}
            }
        }
    }

    /// Waits before the next attempt. Meanwhile the session reads the API servers' certificates, which may explain the
    /// problem.
    async fn wait_to_reconnect(&self, spec: &SessionSpec, failures: u32) {
        let presented = async {
            let presented = presented_by_each(&spec.cluster, HANDSHAKE_TIMEOUT).await;
            self.target_status.update(|facts| facts.serving = presented);
        };
        join(sleep(backoff::delay(failures).min(MAX_RECONNECT_DELAY)), presented).await;
    }

    /// Changes the observed state of nodes, and triggers a reconciliation of the pools if it differs.
    fn update_join_facts(&self, change: impl FnOnce(&mut JoinFacts)) {
        let modified = self.join.send_if_modified(|facts| {
            let before = facts.clone();
            change(facts);
            *facts != before
        });
        if modified {
            // The receiver is dropped only when the process exits.
            let _ = self.pool_trigger.send(self.target_status.object.clone());
        }
    }

    /// Updates the pools with pending CSRs.
    fn update_waiting(&self, approver: &SigningRequests, connected: Instant) {
        if let Some(waiting) = approver.waiting().by_pool(connected.elapsed() >= PENDING_CSR_SETTLE_TIME) {
            self.update_join_facts(|facts| facts.waiting = Some(waiting));
        }
    }

    /// Works with the target cluster until the client certificate must be renewed (`Ok`), or an error occurs.
    async fn connected(&self, spec: &SessionSpec, failures: &mut u32) -> Result<(), Unavailable> {
        let Clients { shared: client, of_each } = credentials::own(&self.management, spec).await?;
        probe(&client, spec).await?;
        self.record_prepared(spec, within(spec, prepare(&client, &self.management, spec)).await??).await;
        *failures = 0;
        let api_servers = probe_each(&of_each, spec).await;
        self.target_status.update(|facts| {
            facts.available = Some(Ok(()));
            facts.rotation.prepared = Some(spec.trust.clone());
            facts.api_servers = api_servers;
        });

        let watched_nodes = watcher(Api::<Node>::all(client.clone()), watcher::Config::default());
        let mut watched_nodes = pin!(watched_nodes.default_backoff());
        let mut approver = SigningRequests::of_target(client.clone(), spec, self.events.clone(), self.metrics.clone());
        let requests = Api::<WatchedRequest>::all(client.clone());
        let mut requests = pin!(watcher(requests, approver.watch_config()).default_backoff());
        // A field selector matches one signer, so the CSRs of joining kubelets need a second watch.
        let first_requests = Api::<DeserializeGuard<CertificateSigningRequest>>::all(client.clone());
        let clients = watcher::Config::default().fields(&format!("spec.signerName={KUBELET_CLIENT_SIGNER}"));
        let mut first_requests = pin!(watcher(first_requests, clients).default_backoff());
        let tokens = Tokens::new(client.clone(), self.management.clone(), spec, &self.events, &self.metrics);
        let mut tokens_due = Some(Instant::now());
        let mut control_plane = pin!(self.observe_control_plane(&client, spec));
        let mut nodes = Nodes::default();
        let mut probes = interval_at(Instant::now() + PROBE_PERIOD, PROBE_PERIOD);
        let mut preparations = interval_at(Instant::now() + PREPARE_PERIOD, PREPARE_PERIOD);
        for timer in [&mut probes, &mut preparations] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut renewal = pin!(sleep(CLIENT_VALIDITY / 2));
        let mut addons = pin!(self.keep_addons(&client, spec));
        let mut silent = 0;
        let connected = Instant::now();
        loop {
            tokio::select! {
                () = &mut renewal => return Ok(()),
                event = watched_nodes.next() => match event {
                    Some(Ok(event)) => {
                        approver.node_event(&event);
                        // A kubelet updates its Node often, mostly without a relevant change.
                        if nodes.take(&event) && nodes.are_listed() {
                            let declared = spec.cluster.all_nodes().map(|node| node.name.as_str());
                            self.target_status.update(|facts| {
                                facts.nodes = Some(nodes.ready(declared));
                                facts.kubelets = nodes.kubelets();
                                facts.pod_ranges = Some(nodes.pod_ranges());
                            });
                            self.update_join_facts(|facts| {
                                facts.nodes = Some(nodes.of_pools(&spec.workers));
                                facts.pod_ranges = Some(nodes.pod_ranges());
                            });
                            tokens_due = Some(soon(tokens_due));
                        }
                        if let Event::Apply(node) | Event::InitApply(node) = event {
                            within(spec, self.label_node(&client, spec, &node)).await?;
                        }
                    }
                    Some(Err(error)) => tracing::debug!(cluster = %self.target_status.object, %error, "watching Nodes"),
                    None => return Err(Unavailable::new(reasons::WATCH_ENDED, "the watch of Nodes ended")),
                },
                ended = &mut control_plane => return Err(ended),
                event = requests.next() => match event {
                    Some(Ok(event)) => approver.request_event(event),
                    Some(Err(error)) => tracing::debug!(cluster = %self.target_status.object, %error, "watching CSRs"),
                    None => return Err(Unavailable::new(reasons::WATCH_ENDED, "the watch of CSRs ended")),
                },
                ended = &mut addons => return Err(ended),
                event = first_requests.next() => match event {
                    Some(Ok(event)) => self.take_first_request(spec, &event),
                    Some(Err(error)) => tracing::debug!(cluster = %self.target_status.object, %error, "watching CSRs of joining kubelets"),
                    None => return Err(Unavailable::new(reasons::WATCH_ENDED, "the watch of CSRs ended")),
                },
                () = self.wake.notified() => tokens_due = Some(soon(tokens_due)),
                () = sleep_until(approver.wake()) => {
                    within(spec, approver.work(Timestamp::now())).await?;
                    self.update_waiting(&approver, connected);
                }
                () = at(tokens_due), if nodes.are_listed() => {
                    tokens_due = self.keep_tokens(spec, &tokens, &nodes).await?;
                }
                _ = preparations.tick() => {
                    self.record_prepared(spec, within(spec, prepare(&client, &self.management, spec)).await??).await;
                    // The half-life of a token and the silence of a kubelet depend on time.
                    tokens_due = Some(soon(tokens_due));
                }
                _ = probes.tick() => match probe(&client, spec).await {
                    Ok(()) => {
                        silent = 0;
                        self.update_waiting(&approver, connected);
                        let api_servers = probe_each(&of_each, spec).await;
                        self.target_status.update(|facts| facts.api_servers = api_servers);
                    }
                    Err(unavailable) if silent > 0 => return Err(unavailable),
                    Err(_) => silent += 1,
                },
            }
        }
    }

    /// Reconciles the add-ons until an error occurs.
    async fn keep_addons(&self, client: &Client, spec: &SessionSpec) -> Unavailable {
        let mut addons = Addons::new(client.clone(), spec);
        let mut changes = addons.changes();
        let mut due = pin!(sleep(Duration::ZERO));
        loop {
            tokio::select! {
                Some(change) = changes.next() => {
                    if let Some(wait) = addons.take(change) {
                        let sooner = due.deadline().min(Instant::now() + wait);
                        due.as_mut().reset(sooner);
                    }
                    self.update_addons(&addons);
                }
                () = &mut due => {
                    let reconciled = within(spec, addons.reconcile(&self.management)).await;
                    let (done, retry) = match reconciled {
                        Ok(result) => result,
                        Err(unavailable) => return unavailable,
                    };
                    self.record_addons(spec, done).await;
                    self.update_addons(&addons);
                    due.as_mut().reset(Instant::now() + retry.unwrap_or(PREPARE_PERIOD));
                }
            }
        }
    }

    /// Creates and revokes tokens; returns the time of the retry after a failure.
    async fn keep_tokens(
        &self,
        spec: &SessionSpec,
        tokens: &Tokens<'_>,
        nodes: &Nodes,
    ) -> Result<Option<Instant>, Unavailable> {
        let states = within(spec, tokens.keep(&nodes.of_pools(&spec.workers), Timestamp::now())).await?;
        let failed = states.values().any(|state| matches!(state, TokenState::Failed(_)));
        self.update_join_facts(|facts| facts.tokens = states);
        Ok(failed.then(|| Instant::now() + TOKEN_RETRY))
    }

    /// Updates the observed state of the add-ons, after their first reconciliation.
    fn update_addons(&self, addons: &Addons<'_>) {
        if let Some(known) = addons.facts() {
            self.target_status.update(|facts| facts.addons = Some(known));
        }
    }

    /// Keeps the node name and time of a joining kubelet's CSR.
    fn take_first_request(&self, spec: &SessionSpec, event: &Event<DeserializeGuard<CertificateSigningRequest>>) {
        match event {
            Event::Init => self.update_join_facts(|facts| facts.requests.clear()),
            Event::InitDone | Event::Delete(_) => {}
            Event::Apply(request) | Event::InitApply(request) => {
                let Some(request) = request.0.as_ref().ok().and_then(Request::of) else { return };
                // The owner of a token can request any name. Names of nodes that are in no pool are not kept.
                if !spec.workers.iter().any(|pool| pool.has(&request.node)) {
                    return;
                }
                self.update_join_facts(|facts| {
                    let known = facts.requests.get(&request.node);
                    // A restarted kubelet creates a new CSR.
                    if known.is_none_or(|known| known.created <= request.created) {
                        facts.requests.insert(request.node.clone(), request);
                    }
                });
            }
        }
    }

    /// Sets labels and taints of a new declared control-plane Node, and missing labels of a worker Node.
    async fn label_node(&self, client: &Client, spec: &SessionSpec, node: &Node) {
        let name = node.name_any();
        let control_plane = &spec.cluster.spec.control_plane;
        let (patch, what) = if let Some(declared) = spec.cluster.nodes.iter().find(|declared| declared.name == name) {
            if !control_plane.register_nodes {
                return;
            }
            let zone = declared.failure_domain.as_deref();
            (control_plane_patch(node, control_plane.taints.as_deref(), zone), "as a control-plane node")
        } else {
            (worker_label_patch(node, &spec.workers), "with the labels of its NodePool")
        };
        let Some(patch) = patch else { return };
        let api = Api::<Node>::all(client.clone());
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch.0)).await {
            Ok(_) => {
                let note = format!("labelled Node {name} {what}");
                self.events.normal(&spec.reference, reasons::NODE_LABELLED, "Label", &note).await;
            }
            // The watch brings the Node again with its next change.
            Err(error) => {
                tracing::info!(cluster = %self.target_status.object, node = name, %error, "labelling the Node failed");
            }
        }
    }
}

/// Returns the due time, but at most one second from now.
fn soon(due: Option<Instant>) -> Instant {
    let soon = Instant::now() + TOKEN_GATHER;
    due.map_or(soon, |due| due.min(soon))
}

/// Waits for the time; forever without one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Limits the time of work in a target cluster: dropped packets would block the session for 15 minutes.
async fn within<T>(spec: &SessionSpec, work: impl Future<Output = T>) -> Result<T, Unavailable> {
    timeout(WORK_TIMEOUT, work).await.map_err(|_| {
        let endpoint = &spec.cluster.endpoint;
        let seconds = WORK_TIMEOUT.as_secs();
        Unavailable::new(
            reasons::UNREACHABLE,
            format!("the API server at {endpoint} did not answer within {seconds} s"),
        )
    })
}

/// Probes the API server of each node, if the control plane registers no Nodes.
async fn probe_each(clients: &BTreeMap<String, Client>, spec: &SessionSpec) -> Option<BTreeMap<String, bool>> {
    let answers = clients.iter().map(async |(name, client)| (name.clone(), probe(client, spec).await.is_ok()));
    Some(join_all(answers).await.into_iter().collect()).filter(|_| !clients.is_empty())
}

async fn probe(client: &Client, spec: &SessionSpec) -> Result<(), Unavailable> {
    let endpoint = &spec.cluster.endpoint;
    let request = http::Request::get("/readyz")
        .body(vec![])
        .map_err(|error| Unavailable::new(reasons::NO_CLIENT, error.to_string()))?;
    match timeout(PROBE_TIMEOUT, client.request_text(request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Unavailable::from_error(spec, &error)),
        Err(_) => Err(Unavailable::new(
            reasons::UNREACHABLE,
            format!("the API server at {endpoint} did not answer /readyz within {} s", PROBE_TIMEOUT.as_secs()),
        )),
    }
}
