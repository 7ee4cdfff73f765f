//! What the watches know of agents. They run once a ClusterSpec has agents, or at once where Keyplane may: an
//! installation without agents needs none of these rights.

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
use keyplane_core::observed::AgentFacts;
use keyplane_core::observed::Workers;

/// How often silence is looked for.
const SILENCE_PERIOD: Duration = Duration::from_mins(1);

/// What was just made comes back through the watch within this time.
const LAG: Duration = Duration::from_secs(10);

/// The agents' objects, as the watches know them.
#[derive(Clone)]
pub struct Agents(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) client: Client,
    pub(super) accounts: Store<ServiceAccount>,
    pub(super) roles: Store<Role>,
    pub(super) bindings: Store<RoleBinding>,
    pub(super) leases: Store<Lease>,
    /// Those with which agents begin, without what is in them.
    pub(super) secrets: Store<PartialObjectMeta<Secret>>,
    workers: Store<PartialObjectMeta<ConfigMap>>,
    wanted: Notify,
    /// What was made a moment ago.
    made: Mutex<HashMap<String, Instant>>,
    /// What was told of each Lease: a heartbeat that says the same is no news.
    told: Mutex<HashMap<(String, String), Told>>,
}

#[derive(Debug, PartialEq)]
struct Told {
    report: Option<String>,
    silent: bool,
    clock_is_off: Option<bool>,
}

impl Agents {
    /// Waits until the watches know what everybody needs. Nothing comes after an error: the watch has ended.
    pub async fn wait_until_ready(&self) -> bool {
        self.0.workers.wait_until_ready().await.is_ok() && self.0.secrets.wait_until_ready().await.is_ok()
    }

    /// Waits until the watches know the agents of a cluster that has some.
    pub(in crate::controllers) async fn known(&self, cluster: &Cluster) -> bool {
        let inner = &self.0;
        if cluster.spec.node_agent.is_some() {
            inner.wanted.notify_one();
        }
        let all = async {
            inner.accounts.wait_until_ready().await.is_ok()
                && inner.roles.wait_until_ready().await.is_ok()
                && inner.bindings.wait_until_ready().await.is_ok()
                && inner.leases.wait_until_ready().await.is_ok()
        };
        let patience = if cluster.spec.node_agent.is_some() { LAG } else { Duration::ZERO };
        tokio::time::timeout(patience, all).await.unwrap_or(false)
    }

    /// What the agents of a cluster report.
    pub(in crate::controllers) fn facts(&self, cluster: &Cluster) -> BTreeMap<String, AgentFacts> {
        let node = |lease: &Lease| lease.labels().get(keys::NODE_LABEL).cloned();
        of_cluster(&self.0.leases, &cluster.namespace, &cluster.name)
            .filter_map(|lease| Some((node(&lease)?, AgentFacts::of(&lease))))
            .collect()
    }

    /// The ConfigMaps of a cluster's workers.
    pub(in crate::controllers) fn workers(&self, cluster: &Cluster) -> Workers {
        of_cluster(&self.0.workers, &cluster.namespace, &cluster.name)
            .filter_map(|found| Some((found.labels().get(keys::NODE_LABEL)?.clone(), found.metadata.clone())))
            .collect()
    }

    /// Whether it was made a moment ago, so that the watches do not know it yet; if not, it is from now on.
    pub(super) fn is_on_its_way(&self, object: String) -> bool {
        let mut made = self.0.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|_, since| since.elapsed() < LAG);
        let known = made.contains_key(&object);
        made.entry(object).or_insert_with(Instant::now);
        known
    }
}

/// The objects of a cluster in a store.
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

/// The watches, which work as long as they are polled, and what they know.
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
        wanted: Notify::new(),
        made: Mutex::default(),
        told: Mutex::default(),
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
                watched.0.wanted.notified().await;
            }
            let leases = follow(client.clone(), lease_writer, keys::NODE_LABEL, |change, lease: &Lease| {
                if watched.is_news(lease, change) {
                    refresh(lease);
                }
            });
            let others = futures::future::join3(
                follow(client.clone(), account_writer, keys::NODE_LABEL, |_, account: &ServiceAccount| {
                    refresh(account)
                }),
                follow(client.clone(), role_writer, keys::NODE_LABEL, |_, role: &Role| refresh(role)),
                follow(client.clone(), binding_writer, keys::NODE_LABEL, |_, binding: &RoleBinding| refresh(binding)),
            );
            let silence = async {
                let mut period = tokio::time::interval(SILENCE_PERIOD);
                loop {
                    period.tick().await;
                    for lease in watched.0.leases.state() {
                        if watched.is_news(&lease, Change::Other) {
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

/// What happened to an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// It is gone.
    Deleted,
    /// Anything else.
    Other,
}

impl Agents {
    fn is_news(&self, lease: &Lease, change: Change) -> bool {
        let key = (lease.namespace().unwrap_or_default(), lease.name_any());
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        if change == Change::Deleted {
            told.remove(&key);
            return true;
        }
        let facts = AgentFacts::of(lease);
        let now = Told {
            report: lease.annotations().get(keys::AGENT_REPORT_ANNOTATION).cloned(),
            silent: facts.is_silent(Timestamp::now()),
            clock_is_off: facts.clock_is_off().map(|off| off.is_negative()),
        };
        if told.get(&key) == Some(&now) {
            return false;
        }
        told.insert(key, now);
        true
    }
}

/// Whether the chart was told that there are agents.
async fn may_watch(client: &Client) -> bool {
    let leases: Api<PartialObjectMeta<Lease>> = Api::all(client.clone());
    // Whatever else is wrong: the watch itself tries again.
    let found = leases.list(&ListParams::default().labels(keys::NODE_LABEL).limit(1)).await;
    !matches!(found, Err(kube::Error::Api(status)) if status.code == 403)
}

/// Whose an object is.
trait Owned {
    fn cluster(&self) -> Option<(String, String)>;
}

impl<K: Resource<DynamicType = ()>> Owned for K {
    fn cluster(&self) -> Option<(String, String)> {
        Some((self.meta().namespace.clone()?, self.labels().get(keys::CLUSTER_LABEL)?.clone()))
    }
}

async fn follow<K>(client: Client, writer: Writer<K>, label: &str, mut tell: impl FnMut(Change, &K))
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
{
    let ours = watch_config().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY},{label}"));
    let events = reflector::reflector(writer, watcher::watcher(Api::<K>::all(client), ours)).default_backoff();
    let work = events.for_each(|event| {
        match event {
            Ok(watcher::Event::Delete(object)) => tell(Change::Deleted, &object),
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => tell(Change::Other, &object),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => tracing::debug!(kind = %K::kind(&()), error = causes(&error), "watching what agents have"),
        }
        std::future::ready(())
    });
    work.await;
}
