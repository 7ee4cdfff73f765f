//! The target clusters: one session each, which keeps what belongs in the target there, watches its Nodes, and judges
//! its kubelets' requests.
//!
//! A session is a task of its own, so that a target which does not answer holds up nobody else. The ClusterSpec's
//! controller starts and stops sessions and reads what they have learned; a session that learns something new asks for
//! a reconciliation.

mod credentials;
mod nodes;
mod preparation;
mod session;
pub(super) mod signing_requests;
pub(super) mod verdicts;
pub(super) mod waiting;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use keyplane_crds::{ClusterSpec, NodePool, NodePoolSpec};
use kube::Client;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cluster::Cluster;
use crate::kube::events::Events;
use crate::metrics::Metrics;
use crate::plan::TargetFacts;

/// What a session has to know of its cluster. It holds no key: see `credentials.rs`.
#[derive(Debug, Clone, PartialEq)]
pub struct Brief {
    /// The cluster.
    pub cluster: Cluster,
    /// The bundle that the target's servers are verified with.
    pub trust: String,
    /// The pools of the cluster, by name.
    pub pools: BTreeMap<String, NodePoolSpec>,
    /// The ClusterSpec, for Events.
    pub reference: ObjectReference,
}

/// What asks for a reconciliation of a ClusterSpec.
pub type Trigger = mpsc::UnboundedSender<ObjectRef<DeserializeGuard<ClusterSpec>>>;

/// What asks for a reconciliation of a NodePool.
pub type PoolTrigger = mpsc::UnboundedSender<ObjectRef<DeserializeGuard<NodePool>>>;

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
    briefs: watch::Sender<Arc<Brief>>,
    facts: watch::Receiver<TargetFacts>,
    // Dropping the handle ends the session.
    _stop: DropGuard,
}

impl Targets {
    /// No session yet.
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

    /// Makes sure that the cluster has a session with this brief, and says what it has learned so far.
    pub fn ensure(&self, brief: Brief) -> TargetFacts {
        let key = (brief.cluster.namespace.clone(), brief.cluster.name.clone());
        let brief = Arc::new(brief);
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = sessions.entry(key).or_insert_with(|| self.start(Arc::clone(&brief)));
        handle.briefs.send_if_modified(|current| {
            let changed = **current != *brief;
            *current = brief;
            changed
        });
        handle.facts.borrow().clone()
    }

    /// What the cluster's session has learned; nothing without one.
    #[must_use]
    pub fn facts(&self, namespace: &str, name: &str) -> TargetFacts {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = sessions.get(&(namespace.to_owned(), name.to_owned()));
        handle.map(|handle| handle.facts.borrow().clone()).unwrap_or_default()
    }

    /// Ends the cluster's session: from now on nothing is written to its target.
    pub fn stop(&self, namespace: &str, name: &str) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Ends all sessions.
    pub fn stop_all(&self) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn start(&self, brief: Arc<Brief>) -> Handle {
        let object = ObjectRef::new(&brief.cluster.name).within(&brief.cluster.namespace);
        let stop = CancellationToken::new();
        let (briefs, brief_receiver) = watch::channel(brief);
        let (facts_sender, facts) = watch::channel(TargetFacts::default());
        let session = session::Session {
            object,
            briefs: brief_receiver,
            facts: facts_sender,
            management: self.management.clone(),
            trigger: self.trigger.clone(),
            pool_trigger: self.pool_trigger.clone(),
            events: self.events.clone(),
            metrics: self.metrics.clone(),
        };
        let token = stop.clone();
        tokio::spawn(async move {
            token.run_until_cancelled(Box::pin(session.run())).await;
        });
        Handle { briefs, facts, _stop: stop.drop_guard() }
    }
}
