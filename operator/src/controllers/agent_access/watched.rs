//! Caches of the agents' objects. The watches start at once if Keyplane has the permissions, or when a ClusterSpec
//! needs agents: an installation without agents needs none of these permissions.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::keys;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::controllers::sessions::Targets;
use crate::controllers::watch_config;
use keyplane_client::causes;
use keyplane_core::model::Cluster;
use keyplane_core::names::{MANAGED_BY, MANAGED_BY_LABEL};
use keyplane_core::observed::{AgentFacts, Workers};

/// Interval of checks for silent agents.
const SILENCE_PERIOD: Duration = Duration::from_mins(1);

/// Time until a created object appears in the watch.
const WATCH_LAG: Duration = Duration::from_secs(10);

/// The caches of the agents' objects.
#[derive(Clone)]
pub struct Agents(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) client: Client,
    pub(super) accounts: Store<ServiceAccount>,
    pub(super) roles: Store<Role>,
    pub(super) bindings: Store<RoleBinding>,
    pub(super) leases: Store<Lease>,
    /// Metadata of the bootstrap Secrets.
    pub(super) secrets: Store<PartialObjectMeta<Secret>>,
    workers: Store<PartialObjectMeta<ConfigMap>>,
    required: Notify,
    /// Objects that may not be in the caches yet.
    recently_created: Mutex<HashMap<String, Instant>>,
    /// The last state of each Lease: a heartbeat with the same state causes no reconciliation.
    reported: Mutex<HashMap<(String, String), LeaseState>>,
}

#[derive(Debug, PartialEq)]
struct LeaseState {
    report: Option<String>,
    silent: bool,
    clock_difference: Option<bool>,
}

impl Agents {
    /// Waits until the caches that every installation needs are synced; returns whether they are. A `false` means that
    /// the watch has ended.
    pub async fn wait_until_ready(&self) -> bool {
        self.0.workers.wait_until_ready().await.is_ok() && self.0.secrets.wait_until_ready().await.is_ok()
    }

    /// Waits until the caches are synced, if the cluster has agents; returns whether they are.
    pub(in crate::controllers) async fn known(&self, cluster: &Cluster) -> bool {
        let inner = &self.0;
        if cluster.spec.node_agent.is_some() {
            inner.required.notify_one();
        }
        let all = async {
            inner.accounts.wait_until_ready().await.is_ok()
                && inner.roles.wait_until_ready().await.is_ok()
                && inner.bindings.wait_until_ready().await.is_ok()
                && inner.leases.wait_until_ready().await.is_ok()
        };
        let limit = if cluster.spec.node_agent.is_some() { WATCH_LAG } else { Duration::ZERO };
        tokio::time::timeout(limit, all).await.unwrap_or(false)
    }

    /// Returns the reports of a cluster's agents.
    pub(in crate::controllers) fn facts(&self, cluster: &Cluster) -> BTreeMap<String, AgentFacts> {
        let node = |lease: &Lease| lease.labels().get(keys::NODE_LABEL).cloned();
        of_cluster(&self.0.leases, &cluster.namespace, &cluster.name)
            .filter_map(|lease| Some((node(&lease)?, AgentFacts::of(&lease))))
            .collect()
    }

    /// Returns the metadata of the ConfigMaps of a cluster's worker nodes.
    pub(in crate::controllers) fn workers(&self, cluster: &Cluster) -> Workers {
        of_cluster(&self.0.workers, &cluster.namespace, &cluster.name)
            .filter_map(|found| Some((found.labels().get(keys::NODE_LABEL)?.clone(), found.metadata.clone())))
            .collect()
    }

    /// Returns whether the object was just created, so that the caches may not have it yet, and remembers the object.
    pub(super) fn is_recently_created(&self, object: String) -> bool {
        let mut recently_created = self.0.recently_created.lock().unwrap_or_else(PoisonError::into_inner);
        recently_created.retain(|_, since| since.elapsed() < WATCH_LAG);
        let known = recently_created.contains_key(&object);
        recently_created.entry(object).or_insert_with(Instant::now);
        known
    }
}

/// Returns the objects of a cluster in a cache.
pub(super) fn of_cluster<K>(store: &Store<K>, namespace: &str, cluster: &str) -> impl Iterator<Item = Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let belongs = |object: &Arc<K>| {
        object.meta().namespace.as_deref() == Some(namespace)
            && object.labels().get(keys::CLUSTER_LABEL).is_some_and(|found| found == cluster)
    };
    store.state().into_iter().filter(belongs).collect::<Vec<_>>().into_iter()
}

/// Returns the watches, which run while they are polled, and the caches.
pub fn watch(client: Client, targets: Arc<Targets>) -> (impl Future<Output = ()>, Agents) {
    let (accounts, account_writer) = reflector::store();
    let (roles, role_writer) = reflector::store();
    let (bindings, binding_writer) = reflector::store();
    let (leases, lease_writer) = reflector::store();
    let (secrets, secret_writer) = reflector::store();
    let (workers, worker_writer) = reflector::store();
    let agents = Agents(Arc::new(Inner {
        client: client.clone(),
        accounts,
        roles,
        bindings,
        leases,
        secrets,
        workers,
        required: Notify::new(),
        recently_created: Mutex::default(),
        reported: Mutex::default(),
    }));
    let watched = agents.clone();
    let work = async move {
        let refresh = |object: &dyn Owned| {
            if let Some((namespace, cluster)) = object.cluster() {
                targets.refresh(&namespace, &cluster);
            }
        };
        let always = futures::future::join(
            follow(client.clone(), worker_writer, keys::NODE_POOL_LABEL, |_, config_map| refresh(config_map)),
            follow(client.clone(), secret_writer, keys::AGENT_BOOTSTRAP_LABEL, |_, secret| refresh(secret)),
        );
        let with_agents = async {
            while !may_watch(&client).await {
                watched.0.required.notified().await;
            }
            let leases = follow(client.clone(), lease_writer, keys::NODE_LABEL, |change, lease: &Lease| {
                if watched.has_changed(lease, change) {
                    refresh(lease);
                }
            });
            let others = futures::future::join3(
                follow(client.clone(), account_writer, keys::NODE_LABEL, |_, account: &ServiceAccount| {
                    refresh(account);
                }),
                follow(client.clone(), role_writer, keys::NODE_LABEL, |_, role: &Role| refresh(role)),
                follow(client.clone(), binding_writer, keys::NODE_LABEL, |_, binding: &RoleBinding| refresh(binding)),
            );
            let silence = async {
                let mut period = tokio::time::interval(SILENCE_PERIOD);
                loop {
                    period.tick().await;
                    for lease in watched.0.leases.state() {
                        if watched.has_changed(&lease, Change::Other) {
                            refresh(&*lease);
                        }
                    }
                }
            };
            futures::future::join3(leases, others, silence).await;
        };
        futures::future::join(Box::pin(always), Box::pin(with_agents)).await;
    };
    (work, agents)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Deleted,
    Other,
}

impl Agents {
    fn has_changed(&self, lease: &Lease, change: Change) -> bool {
        let key = (lease.namespace().unwrap_or_default(), lease.name_any());
        let mut reported = self.0.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if change == Change::Deleted {
            reported.remove(&key);
            return true;
        }
        let facts = AgentFacts::of(lease);
        let now = LeaseState {
            report: lease.annotations().get(keys::AGENT_REPORT_ANNOTATION).cloned(),
            silent: facts.is_silent(Timestamp::now()),
            clock_difference: facts.clock_difference().map(|off| off.is_negative()),
        };
        if reported.get(&key) == Some(&now) {
            return false;
        }
        reported.insert(key, now);
        true
    }
}

/// Returns whether Keyplane may watch the agents' objects, which the chart's value `nodeAgents` allows.
async fn may_watch(client: &Client) -> bool {
    let leases: Api<PartialObjectMeta<Lease>> = Api::all(client.clone());
    // After any other error, the watch retries by itself.
    let found = leases.list(&ListParams::default().labels(keys::NODE_LABEL).limit(1)).await;
    !matches!(found, Err(kube::Error::Api(status)) if status.code == 403)
}

/// An object with a cluster label.
trait Owned {
    fn cluster(&self) -> Option<(String, String)>;
}

impl<K: Resource<DynamicType = ()>> Owned for K {
    fn cluster(&self) -> Option<(String, String)> {
        Some((self.meta().namespace.clone()?, self.labels().get(keys::CLUSTER_LABEL)?.clone()))
    }
}

async fn follow<K>(client: Client, writer: Writer<K>, label: &str, mut notify: impl FnMut(Change, &K))
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
{
    let ours = watch_config().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY},{label}"));
    let events = reflector::reflector(writer, watcher::watcher(Api::<K>::all(client), ours)).default_backoff();
    let work = events.for_each(|event| {
        match event {
            Ok(watcher::Event::Delete(object)) => notify(Change::Deleted, &object),
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => notify(Change::Other, &object),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => tracing::debug!(kind = %K::kind(&()), error = causes(&error), "watching the agents' objects"),
        }
        std::future::ready(())
    });
    work.await;
}
