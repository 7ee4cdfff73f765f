//! Sessions with target clusters. Each session reconciles Keyplane's objects in one target cluster, watches its Nodes,
//! and evaluates its kubelets' CSRs.
//!
//! Each session is a separate task, so that an unavailable target cluster blocks no other one. The ClusterSpec
//! controller starts and stops sessions and reads their observed state. A session with new observed state triggers a
//! reconciliation. Further tasks beside the session: `etcd.rs` manages etcd membership, `rotation_probes.rs` probes
//! servers during a rotation, `encryption.rs` migrates stored objects, and `forward_csrs.rs` forwards CSRs to an
//! external signer.

mod addons;
mod bootstrap;
mod credentials;
mod encryption;
mod etcd;
mod forward_csrs;
mod listing;
mod machines;
mod nodes;
pub(super) mod pending_csrs;
pub(in crate::controllers) mod projections;
mod reencryption;
mod referenced_secrets;
mod rotation_probes;
mod serving_certificates;
mod session;
pub(super) mod signing_requests;
mod static_pods;
mod telling;
mod tls_probe;
mod tokens;
mod unavailable;
pub(super) mod verdicts;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use keyplane_crds::{ClusterSpec, NodePoolSpec};
use kube::Client;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::metrics::Metrics;
use keyplane_client::events::Events;
use keyplane_core::encryption::Work;
use keyplane_core::join::{Pool, state};
use keyplane_core::model::{Cluster, Version};
use keyplane_core::observed::TargetFacts;
pub(super) use serving_certificates::presented_by_each;

/// Time for a TLS handshake. A server that is down does not answer.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Desired state of a session with a target cluster. The spec contains no key: see `credentials.rs`.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionSpec {
    /// The cluster.
    pub cluster: Cluster,
    /// The version in kubeadm-config: during an upgrade still the old one.
    pub configuration: Version,
    /// The version of the add-ons: that of the control plane, once every node runs it.
    pub addons: Version,
    /// The trust bundle that verifies the target cluster's servers.
    pub trust: String,
    /// The checksum of Keyplane's own certificates of external CAs.
    pub own_credential: Option<String>,
    /// Whether a CA or key is being rotated.
    pub is_rotating: bool,
    /// The fingerprint of the CA that must issue the kubelets' certificates, by pool. Set during a rotation, for the
    /// pools of the current rollout wave.
    pub kubelet_cas: BTreeMap<String, String>,
    /// The annotation of nodes' objects that lists revoked CAs; `None` if no CA was revoked.
    pub revoked: Option<(String, String)>,
    /// The pools of the cluster, by name.
    pub pools: BTreeMap<String, NodePoolSpec>,
    /// The worker pools with the finalizer, which can get a token.
    pub workers: Vec<Pool>,
    /// The pools whose tokens must be revoked, because the pools are being deleted.
    pub leaving: Vec<String>,
    /// The current change of encryption at rest, if any.
    pub encryption: Option<Work>,
    /// The ClusterSpec, for Events.
    pub reference: ObjectReference,
}

/// Triggers a reconciliation of a ClusterSpec.
pub type Trigger = mpsc::UnboundedSender<ObjectRef<DeserializeGuard<ClusterSpec>>>;

/// Triggers a reconciliation of all NodePools of a ClusterSpec.
pub type PoolTrigger = mpsc::UnboundedSender<ObjectRef<DeserializeGuard<ClusterSpec>>>;

/// Observed state of a target cluster, shared between a session and the controller.
#[derive(Clone)]
struct TargetStatus {
    object: ObjectRef<DeserializeGuard<ClusterSpec>>,
    facts: Arc<watch::Sender<TargetFacts>>,
    trigger: Trigger,
}

impl TargetStatus {
    /// Changes the observed state, and triggers a reconciliation if it differs.
    fn update(&self, change: impl FnOnce(&mut TargetFacts)) {
        let modified = self.facts.send_if_modified(|facts| {
            let before = facts.clone();
            change(facts);
            *facts != before
        });
        if modified {
            self.request_reconciliation();
        }
    }

    fn request_reconciliation(&self) {
        // The receiver is dropped only when the process exits.
        let _ = self.trigger.send(self.object.clone());
    }
}

/// The sessions, by namespace and name of their ClusterSpec.
pub struct Targets {
    sessions: Mutex<HashMap<(String, String), Handle>>,
    management: Client,
    trigger: Trigger,
    pool_trigger: PoolTrigger,
    events: Events,
    metrics: Metrics,
}

struct Handle {
    specs: watch::Sender<Arc<SessionSpec>>,
    facts: watch::Receiver<TargetFacts>,
    join: watch::Receiver<state::JoinFacts>,
    wake: Arc<Notify>,
    // Dropping the handle ends the session.
    _stop: DropGuard,
}

impl Targets {
    /// Creates an empty set of sessions.
    #[must_use]
    pub fn new(
        management: Client,
        trigger: Trigger,
        pool_trigger: PoolTrigger,
        events: Events,
        metrics: Metrics,
    ) -> Self {
        Self { sessions: Mutex::default(), management, trigger, pool_trigger, events, metrics }
    }

    /// Ensures that the cluster has a session with this spec, and returns the observed state.
    pub fn ensure(&self, spec: SessionSpec) -> TargetFacts {
        let key = (spec.cluster.namespace.clone(), spec.cluster.name.clone());
        let spec = Arc::new(spec);
        let object = object(&spec);
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !sessions.contains_key(&key);
        let handle = sessions.entry(key).or_insert_with(|| self.start(Arc::clone(&spec)));
        let changed = handle.specs.send_if_modified(|current| {
            let changed = **current != *spec;
            *current = spec;
            changed
        });
        if is_new || changed {
            // The receiver is dropped only when the process exits.
            let _ = self.pool_trigger.send(object);
        }
        handle.facts.borrow().clone()
    }

    /// Returns the spec of the cluster's session; `None` without a session: the cluster's keys do not exist yet, or the
    /// cluster is paused.
    #[must_use]
    pub fn spec(&self, namespace: &str, name: &str) -> Option<Arc<SessionSpec>> {
        self.with(namespace, name, |handle| Arc::clone(&handle.specs.borrow()))
    }

    /// Returns the observed state of the nodes of the cluster's pools.
    #[must_use]
    pub fn join_facts(&self, namespace: &str, name: &str) -> state::JoinFacts {
        self.with(namespace, name, |handle| handle.join.borrow().clone()).unwrap_or_default()
    }

    /// Wakes the cluster's session, so that it reconciles tokens and join data.
    pub fn wake(&self, namespace: &str, name: &str) {
        self.with(namespace, name, |handle| handle.wake.notify_one());
    }

    /// Triggers a reconciliation of the ClusterSpec, because its session may have an old spec.
    pub fn refresh(&self, namespace: &str, name: &str) {
        // The receiver is dropped only when the process exits.
        let _ = self.trigger.send(ObjectRef::new(name).within(namespace));
    }

    fn with<T>(&self, namespace: &str, name: &str, read: impl FnOnce(&Handle) -> T) -> Option<T> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(&(namespace.to_owned(), name.to_owned())).map(read)
    }

    /// Returns the observed state of the target cluster; empty without a session.
    #[must_use]
    pub fn facts(&self, namespace: &str, name: &str) -> TargetFacts {
        self.with(namespace, name, |handle| handle.facts.borrow().clone()).unwrap_or_default()
    }

    /// Stops the cluster's session: afterwards nothing is written to the target cluster.
    pub fn stop(&self, namespace: &str, name: &str) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Stops all sessions.
    pub fn stop_all(&self) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn start(&self, spec: Arc<SessionSpec>) -> Handle {
        let object = object(&spec);
        let stop = CancellationToken::new();
        let (specs, spec_receiver) = watch::channel(spec);
        let (facts_sender, facts) = watch::channel(TargetFacts::default());
        let (join_sender, join) = watch::channel(state::JoinFacts::default());
        let wake = Arc::new(Notify::new());
        let target_status = TargetStatus { object, facts: Arc::new(facts_sender), trigger: self.trigger.clone() };
        let membership = etcd::Membership {
            specs: spec_receiver.clone(),
            target_status: target_status.clone(),
            management: self.management.clone(),
            events: self.events.clone(),
            learners_since: BTreeMap::new(),
        };
        let probes = rotation_probes::Probes {
            specs: spec_receiver.clone(),
            target_status: target_status.clone(),
            management: self.management.clone(),
        };
        let at_rest = encryption::AtRest {
            specs: spec_receiver.clone(),
            target_status: target_status.clone(),
            management: self.management.clone(),
        };
        let csr_forwarder = forward_csrs::CsrForwarder {
            specs: spec_receiver.clone(),
            target_status: target_status.clone(),
            management: self.management.clone(),
            events: self.events.clone(),
        };
        let referenced_secrets =
            referenced_secrets::watch(spec_receiver.clone(), target_status.clone(), self.management.clone());
        let session = session::Session {
            specs: spec_receiver,
            target_status,
            join: join_sender,
            wake: Arc::clone(&wake),
            pool_trigger: self.pool_trigger.clone(),
            management: self.management.clone(),
            events: self.events.clone(),
            metrics: self.metrics.clone(),
        };
        let token = stop.clone();
        tokio::spawn(async move {
            let csr_forwarder = Box::pin(on_each_spec(csr_forwarder));
            let all = futures::future::join5(
                Box::pin(futures::future::join(session.run(), csr_forwarder)),
                Box::pin(on_each_spec(membership)),
                Box::pin(on_each_spec(probes)),
                Box::pin(on_each_spec(at_rest)),
                Box::pin(referenced_secrets),
            );
            token.run_until_cancelled(all).await;
        });
        Handle { specs, facts, join, wake, _stop: stop.drop_guard() }
    }
}

/// A task beside the session that follows the session spec.
trait SessionTask: Send {
    /// Returns the receiver of session specs.
    fn specs(&self) -> watch::Receiver<Arc<SessionSpec>>;

    /// Works with one spec. A return restarts the task with the current spec.
    fn work(&mut self, spec: &SessionSpec) -> impl Future<Output = ()> + Send;
}

/// Runs the task with the current spec in a loop. A new spec cancels the running work. A dropped sender ends the loop.
async fn on_each_spec(mut task: impl SessionTask) {
    let mut specs = task.specs();
    loop {
        let spec = Arc::clone(&specs.borrow_and_update());
        tokio::select! {
            changed = specs.changed() => if changed.is_err() { return },
            () = task.work(&spec) => {}
        }
    }
}

fn object(spec: &SessionSpec) -> ObjectRef<DeserializeGuard<ClusterSpec>> {
    ObjectRef::new(&spec.cluster.name).within(&spec.cluster.namespace)
}
