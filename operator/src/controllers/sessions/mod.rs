//! The target clusters: one session each, which keeps what belongs in the target there, watches its Nodes, and judges
//! its kubelets' requests.
//!
//! A session is a task of its own, so that a target which does not answer holds up nobody else. The ClusterSpec's
//! controller starts and stops sessions and reads what they have learned; a session that learns something new asks for
//! a reconciliation. Beside it, `etcd.rs` looks after the target's etcd, and `rotation.rs` probes its servers while
//! something is rotated.

mod addons;
mod credentials;
mod dial;
mod encryption;
mod etcd;
mod given_secrets;
mod hand_on;
mod listing;
mod machines;
mod nodes;
mod preparation;
mod rewriting;
mod rotation;
mod serving;
mod session;
pub(super) mod signing_requests;
mod static_pods;
mod telling;
mod tokens;
pub(super) mod verdicts;
pub(super) mod waiting;
pub(in crate::controllers) mod watched;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

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
pub(super) use serving::presented_by_each;

/// What a session has to know of its cluster. It holds no key: see `credentials.rs`.
#[derive(Debug, Clone, PartialEq)]
pub struct Brief {
    /// The cluster.
    pub cluster: Cluster,
    /// The version that belongs into kubeadm-config: in an upgrade not yet the spec's.
    pub configuration: Version,
    /// The version that the add-ons are for: the control plane's, once all of it runs it.
    pub addons: Version,
    /// The bundle that the target's servers are verified with.
    pub trust: String,
    /// The checksum of Keyplane's own certificates, where authorities sign outside.
    pub own_credential: Option<String>,
    /// Whether an authority or key is being rotated.
    pub is_rotating: bool,
    /// The fingerprint of the authority that the kubelets of a pool are to have certificates from, by pool; while one is
    /// rotated, and for the pools whose turn has come.
    pub kubelet_authorities: BTreeMap<String, String>,
    /// The annotation of machines' objects that lists revoked authorities; nothing where none was.
    pub revoked: Option<(String, String)>,
    /// The pools of the cluster, by name.
    pub pools: BTreeMap<String, NodePoolSpec>,
    /// Those of them whose machines join with a token.
    pub workers: Vec<Pool>,
    /// Pools that are being deleted, whose tokens are to be revoked.
    pub leaving: Vec<String>,
    /// What is to be done about encryption at rest; nothing while nothing changes.
    pub encryption: Option<Work>,
    /// The ClusterSpec, for Events.
    pub reference: ObjectReference,
}

/// What asks for a reconciliation of a ClusterSpec.
pub type Trigger = mpsc::UnboundedSender<ObjectRef<DeserializeGuard<ClusterSpec>>>;

/// What asks for a reconciliation of all NodePools of a ClusterSpec.
pub type PoolTrigger = mpsc::UnboundedSender<ObjectRef<DeserializeGuard<ClusterSpec>>>;

/// Where a session keeps what it has learned.
#[derive(Clone)]
struct Findings {
    object: ObjectRef<DeserializeGuard<ClusterSpec>>,
    facts: Arc<watch::Sender<TargetFacts>>,
    trigger: Trigger,
}

impl Findings {
    /// Keeps new facts, and asks for a reconciliation if they differ.
    fn learn(&self, change: impl FnOnce(&mut TargetFacts)) {
        let modified = self.facts.send_if_modified(|facts| {
            let before = facts.clone();
            change(facts);
            *facts != before
        });
        if modified {
            self.ask_for_reconciliation();
        }
    }

    fn ask_for_reconciliation(&self) {
        // The receiver is gone only when the process ends.
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
    briefs: watch::Sender<Arc<Brief>>,
    facts: watch::Receiver<TargetFacts>,
    join: watch::Receiver<state::Facts>,
    wake: Arc<Notify>,
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
        let object = object(&brief);
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !sessions.contains_key(&key);
        let handle = sessions.entry(key).or_insert_with(|| self.start(Arc::clone(&brief)));
        let changed = handle.briefs.send_if_modified(|current| {
            let changed = **current != *brief;
            *current = brief;
            changed
        });
        if is_new || changed {
            // The receiver is gone only when the process ends.
            let _ = self.pool_trigger.send(object);
        }
        handle.facts.borrow().clone()
    }

    /// What the cluster's session works with; nothing while there is none: its keys are not there yet, or it is paused.
    #[must_use]
    pub fn brief(&self, namespace: &str, name: &str) -> Option<Arc<Brief>> {
        self.with(namespace, name, |handle| Arc::clone(&handle.briefs.borrow()))
    }

    /// What the cluster's session has learned about machines of its pools.
    #[must_use]
    pub fn join_facts(&self, namespace: &str, name: &str) -> state::Facts {
        self.with(namespace, name, |handle| handle.join.borrow().clone()).unwrap_or_default()
    }

    /// Has the cluster's session look at its tokens and join data again.
    pub fn wake(&self, namespace: &str, name: &str) {
        self.with(namespace, name, |handle| handle.wake.notify_one());
    }

    /// Asks for a reconciliation of the ClusterSpec, whose session may have an old brief.
    pub fn refresh(&self, namespace: &str, name: &str) {
        // The receiver is gone only when the process ends.
        let _ = self.trigger.send(ObjectRef::new(name).within(namespace));
    }

    fn with<T>(&self, namespace: &str, name: &str, ask: impl FnOnce(&Handle) -> T) -> Option<T> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(&(namespace.to_owned(), name.to_owned())).map(ask)
    }

    /// What the cluster's session has learned; nothing without one.
    #[must_use]
    pub fn facts(&self, namespace: &str, name: &str) -> TargetFacts {
        self.with(namespace, name, |handle| handle.facts.borrow().clone()).unwrap_or_default()
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
        let object = object(&brief);
        let stop = CancellationToken::new();
        let (briefs, brief_receiver) = watch::channel(brief);
        let (facts_sender, facts) = watch::channel(TargetFacts::default());
        let (join_sender, join) = watch::channel(state::Facts::default());
        let wake = Arc::new(Notify::new());
        let findings = Findings { object, facts: Arc::new(facts_sender), trigger: self.trigger.clone() };
        let membership = etcd::Membership {
            briefs: brief_receiver.clone(),
            findings: findings.clone(),
            management: self.management.clone(),
            events: self.events.clone(),
            learners_since: BTreeMap::new(),
        };
        let probes = rotation::Probes {
            briefs: brief_receiver.clone(),
            findings: findings.clone(),
            management: self.management.clone(),
        };
        let at_rest = encryption::AtRest {
            briefs: brief_receiver.clone(),
            findings: findings.clone(),
            management: self.management.clone(),
        };
        let handed_on = hand_on::HandOn {
            briefs: brief_receiver.clone(),
            findings: findings.clone(),
            management: self.management.clone(),
            events: self.events.clone(),
        };
        let given_secrets = given_secrets::watch(brief_receiver.clone(), findings.clone(), self.management.clone());
        let session = session::Session {
            briefs: brief_receiver,
            findings,
            join: join_sender,
            wake: Arc::clone(&wake),
            pool_trigger: self.pool_trigger.clone(),
            management: self.management.clone(),
            events: self.events.clone(),
            metrics: self.metrics.clone(),
        };
        let token = stop.clone();
        tokio::spawn(async move {
            let handed_on = Box::pin(on_each_brief(handed_on));
            let all = futures::future::join5(
                Box::pin(futures::future::join(session.run(), handed_on)),
                Box::pin(on_each_brief(membership)),
                Box::pin(on_each_brief(probes)),
                Box::pin(on_each_brief(at_rest)),
                Box::pin(given_secrets),
            );
            token.run_until_cancelled(all).await;
        });
        Handle { briefs, facts, join, wake, _stop: stop.drop_guard() }
    }
}

/// A task beside the session that goes by the brief.
trait Briefed: Send {
    /// Where briefs come from.
    fn briefs(&self) -> watch::Receiver<Arc<Brief>>;

    /// Works on one, until it is to begin anew.
    fn work(&mut self, brief: &Brief) -> impl Future<Output = ()> + Send;
}

/// Has the task work on the brief of the moment, again and again. Another brief breaks off what is under way; without a
/// sender there is nobody any more to work for.
async fn on_each_brief(mut task: impl Briefed) {
    let mut briefs = task.briefs();
    loop {
        let brief = Arc::clone(&briefs.borrow_and_update());
        tokio::select! {
            changed = briefs.changed() => if changed.is_err() { return },
            () = task.work(&brief) => {}
        }
    }
}

fn object(brief: &Brief) -> ObjectRef<DeserializeGuard<ClusterSpec>> {
    ObjectRef::new(&brief.cluster.name).within(&brief.cluster.namespace)
}
