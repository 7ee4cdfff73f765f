//! The NodePool controller: writes the files of the pool's nodes, and reports their progress. The session with the
//! target cluster manages tokens and join data.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::keys::{self, NODE_POOL_LABEL};
use keyplane_crds::{ClusterSpec, NodePool, NodePoolCondition, NodePoolStatus, reasons, set_condition};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::node_pool_state::{Basis, Known, State, is_held, report};
use super::sessions::SessionSpec;
use super::{Context, Error, RESYNC, config, drive, pool_deletion, watch_config};
use keyplane_client::write::{Written, write};
use keyplane_core::join::objects::{is_of_pool, worker_config, worker_config_map};
use keyplane_core::join::{Pool, state};
use keyplane_core::manifests::systemd::PodRanges;
use keyplane_core::names::{MANAGED_BY, MANAGED_BY_LABEL};
use keyplane_core::objects::config_map_to_write;

type Guarded = DeserializeGuard<NodePool>;
type Clusters = mpsc::UnboundedReceiver<ObjectRef<DeserializeGuard<ClusterSpec>>>;

/// Requeue delay of a pool that the ClusterSpec controller has not processed yet.
const SOON: Duration = Duration::from_secs(5);

/// Creates the controller and its cache.
#[must_use]
pub fn controller(client: Client, concurrency: u16) -> (Controller<Guarded>, Store<Guarded>) {
    let clusters: Api<PartialObjectMeta<ClusterSpec>> = Api::all(client.clone());
    let controller = Controller::new(Api::<Guarded>::all(client), watch_config()).with_config(config(concurrency));
    let store = controller.store();
    let pools = store.clone();
    let controller = controller.watches(clusters, watcher::Config::default(), move |cluster| {
        of_cluster(&pools, cluster.namespace().as_deref(), &cluster.name_any())
    });
    (controller, store)
}

fn of_cluster(pools: &Store<Guarded>, namespace: Option<&str>, cluster: &str) -> Vec<ObjectRef<Guarded>> {
    let of_cluster = |pool: &Arc<Guarded>| {
        let Ok(pool) = &pool.0 else { return false };
        pool.namespace().as_deref() == namespace && pool.spec.cluster_ref.name == cluster
    };
    pools.state().into_iter().filter(of_cluster).map(|pool| ObjectRef::from_obj(&*pool)).collect()
}

/// Runs until `stop`. `clusters` receives the clusters whose session has changes for its pools.
pub async fn run(
    controller: Controller<Guarded>,
    context: Context,
    clusters: Clusters,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let client = context.client.clone();
    let written: Arc<Mutex<Known>> = Arc::default();
    let ours = watch_config().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY},{NODE_POOL_LABEL}"));
    let config_maps: Api<PartialObjectMeta<ConfigMap>> = Api::all(client.clone());
    let secrets: Api<PartialObjectMeta<Secret>> = Api::all(client);
    let (known, targets) = (Arc::clone(&written), Arc::clone(&context.targets));
    let pools = context.node_pools.clone();
    let triggers = UnboundedReceiverStream::new(clusters).flat_map(move |cluster| {
        futures::stream::iter(of_cluster(&pools, cluster.namespace.as_deref(), &cluster.name))
    });
    let controller = controller
        .watches(config_maps, ours.clone(), move |config_map| {
            let pool = owner(&config_map)?;
            // The ConfigMap may have been changed manually, so it is read again.
            known.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(&pool));
            Some(pool)
        })
        .watches(secrets, ours, move |secret| {
            let namespace = secret.namespace()?;
            targets.wake(&namespace, secret.labels().get(keys::CLUSTER_LABEL)?);
            owner(&secret)
        })
        .reconcile_on(triggers);
    drive(controller, Arc::new(State { context, written }), reconcile, stop).await;
}

fn owner<K: Resource<DynamicType = ()>>(object: &K) -> Option<ObjectRef<Guarded>> {
    let pool = object.meta().labels.as_ref()?.get(keys::NODE_POOL_LABEL)?;
    Some(ObjectRef::new(pool).within(object.meta().namespace.as_deref()?))
}

fn key(pool: &ObjectRef<Guarded>) -> (String, String) {
    (pool.namespace.clone().unwrap_or_default(), pool.name.clone())
}

/// Content of the condition `Ready`.
struct Verdict {
    ready: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn bad(reason: &'static str, message: String) -> Self {
        Self { ready: false, reason, message }
    }
}

async fn reconcile(pool: Arc<Guarded>, state: Arc<State>) -> Result<Action, Error> {
    let Ok(pool) = &pool.0 else { return Ok(Action::requeue(RESYNC)) };
    if pool.metadata.deletion_timestamp.is_some() {
        forget(&state, pool);
        return pool_deletion::handle(pool, &state).await;
    }
    let namespace = pool.namespace().unwrap_or_default();
    let cluster = &pool.spec.cluster_ref.name;
    let clusters: Api<ClusterSpec> = Api::namespaced(state.context.client.clone(), &namespace);
    let found = clusters.get_metadata_opt(cluster).await.map_err(Error::api("reading the ClusterSpec"))?;
    let now = Timestamp::now();
    let mut status = pool.status.clone().unwrap_or_default();
    status.observed_generation = pool.metadata.generation;
    status.declared_nodes = i32::try_from(pool.spec.machines.len()).ok();
    let spec = state.context.targets.spec(&namespace, cluster);
    let (verdict, next) = match (found, spec) {
        (None, _) => {
            let message = format!(
                "spec.clusterRef: ClusterSpec {cluster} does not exist in namespace {namespace}: create it, or correct \
                 the name"
            );
            (Verdict::bad(reasons::CLUSTER_SPEC_NOT_FOUND, message), RESYNC)
        }
        (Some(_), None) => (in_force(cluster), RESYNC),
        (Some(_), Some(spec)) => with_session(pool, &spec, &mut status, &state, now).await?,
    };
    let Verdict { ready, reason, message } = verdict;
    let (facts, generation) = (state.context.targets.join_facts(&namespace, cluster), pool.metadata.generation);
    state::report_waiting(&mut status.conditions, &pool.name_any(), &facts, generation, now);
    set_condition(&mut status.conditions, NodePoolCondition::Ready.name(), ready, reason, &message, generation, now);
    report(pool, &status, &state).await?;
    Ok(Action::requeue(next))
}

fn in_force(cluster: &str) -> Verdict {
    let message = format!("CSRs of kubelets of ClusterSpec {cluster} are evaluated with this declaration");
    Verdict { ready: true, reason: reasons::IN_FORCE, message }
}

/// Reconciles the parts that need the cluster's session; returns the condition and the requeue delay.
async fn with_session(
    pool: &NodePool,
    spec: &Arc<SessionSpec>,
    status: &mut NodePoolStatus,
    state: &State,
    now: Timestamp,
) -> Result<(Verdict, Duration), Error> {
    let parsed = match Pool::parse(&pool.name_any(), &pool.spec, &spec.cluster) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Ok((in_force(&spec.cluster.name), RESYNC)),
        Err(error) => return Ok((Verdict::bad(reasons::INVALID_SPEC, error.to_string()), RESYNC)),
    };
    if !is_held(pool) {
        pool_deletion::set_finalizer(pool, true, &state.context.client).await?;
    }
    let (namespace, cluster) = (&spec.cluster.namespace, &spec.cluster.name);
    let mut next = RESYNC;
    if !spec.workers.contains(&parsed) {
        // The session spec is older than this version of the pool.
        state.context.targets.refresh(namespace, cluster);
        next = SOON;
    }
    let facts = state.context.targets.join_facts(namespace, cluster);
    let basis = Basis {
        pool: parsed.clone(),
        spec: Arc::clone(spec),
        ranges: facts.pod_ranges.clone().filter(|_| routed(spec)),
    };
    let blocked = write_files(pool, basis, state).await?;
    status.machines = state::machines(&parsed, &facts, &status.machines, now);
    status.ready_nodes = i32::try_from(state::ready(&status.machines)).ok();
    status.desired_nodes = i32::try_from(status.machines.len()).ok();
    state::report(&mut status.conditions, &status.machines, &facts, pool.metadata.generation, now);
    let mut verdict = in_force(cluster);
    match facts.tokens.get(&parsed.name) {
        None => {}
        Some(state::TokenState::None) => status.token_expires = None,
        Some(state::TokenState::Valid(expires)) => status.token_expires = Some(Time(*expires)),
        Some(state::TokenState::Failed(message)) => {
            verdict = Verdict::bad(reasons::NO_TOKEN, format!("nodes can't join: {message}"));
        }
    }
    if let Some(message) = blocked {
        verdict = Verdict::bad(reasons::FOREIGN_OBJECT, message);
    }
    if let Some(time) = state::next_check(&parsed, &facts, now) {
        let wait = Duration::try_from(time.duration_since(now)).unwrap_or_default();
        next = next.min(wait + Duration::from_secs(1));
    }
    Ok((verdict, next))
}

/// Writes the nodes' ConfigMaps that differ, and deletes those of nodes that were removed from the list. Returns the
/// message of a blocker, if any.
async fn write_files(pool: &NodePool, basis: Basis, state: &State) -> Result<Option<String>, Error> {
    let key = (basis.spec.cluster.namespace.clone(), basis.pool.name.clone());
    let known = |written: &Known| {
        written.get(&key).is_some_and(|known| {
            (&known.pool, &known.ranges) == (&basis.pool, &basis.ranges)
                && known.spec.cluster == basis.spec.cluster
                && known.spec.trust == basis.spec.trust
                && known.spec.kubelet_cas == basis.spec.kubelet_cas
                && known.spec.revoked == basis.spec.revoked
        })
    };
    if known(&state.written.lock().unwrap_or_else(PoisonError::into_inner)) {
        return Ok(None);
    }
    // The entry is inserted before the writes: a concurrent manual change removes the entry again.
    let (parsed, spec, ranges) = (basis.pool.clone(), Arc::clone(&basis.spec), basis.ranges.clone());
    state.written.lock().unwrap_or_else(PoisonError::into_inner).insert(key, basis);
    let result = write_each(pool, &parsed, &spec, ranges.as_ref(), state).await;
    if !matches!(result, Ok(None)) {
        forget(state, pool);
    }
    result
}

/// Returns whether the Pod ranges of Nodes matter, which is the case only with routes to Pods.
fn routed(spec: &SessionSpec) -> bool {
    spec.cluster.has_pod_routes()
}

async fn write_each(
    pool: &NodePool,
    parsed: &Pool,
    spec: &SessionSpec,
    ranges: Option<&PodRanges>,
    state: &State,
) -> Result<Option<String>, Error> {
    let cluster = &spec.cluster;
    let config_maps: Api<ConfigMap> = Api::namespaced(state.context.client.clone(), &cluster.namespace);
    let mut blocked = None;
    for machine in &parsed.machines {
        let name = worker_config_map(&cluster.name, &machine.name);
        let found = config_maps.get_opt(&name).await.map_err(Error::api(format!("reading ConfigMap {name}")))?;
        if found.as_ref().is_some_and(|found| !is_of_pool(found.meta(), &cluster.name, &parsed.name)) {
            blocked = Some(format!(
                "ConfigMap {name} exists and does not belong to this pool: Keyplane does not change it; rename the node {}, \
                 or remove it from the other pool that lists it",
                machine.name
            ));
            continue;
        }
        let before = found.as_ref().and_then(|found| found.data.as_ref());
        let mut wanted = worker_config(cluster, parsed, machine, &spec.trust, ranges, before);
        if let Some(ca) = spec.kubelet_cas.get(&parsed.name) {
            wanted.annotations_mut().insert(keys::KUBELET_CA_ANNOTATION.to_owned(), ca.clone());
        }
        wanted.annotations_mut().extend(spec.revoked.clone());
        let Some(wanted) = config_map_to_write(found.as_ref(), wanted) else { continue };
        match write(&config_maps, &wanted).await.map_err(Error::api(format!("writing ConfigMap {name}")))? {
            Written::Done(_) => state.context.metrics.writes.with_label_values(&["ConfigMap"]).inc(),
            Written::Conflict => return Err(Error::Conflict(format!("ConfigMap {name}"))),
        }
        tracing::info!(namespace = cluster.namespace, pool = parsed.name, name, "wrote the files of a node");
    }
    let before = pool.status.iter().flat_map(|status| &status.machines);
    for removed in before.filter(|machine| parsed.machine(&machine.name).is_none()) {
        let (client, namespace) = (&state.context.client, &cluster.namespace);
        pool_deletion::delete_files(client, namespace, &cluster.name, &parsed.name, &removed.name).await?;
    }
    Ok(blocked)
}

/// Removes the cache entry, so that the pool's ConfigMaps are read again.
fn forget(state: &State, pool: &NodePool) {
    let key = (pool.namespace().unwrap_or_default(), pool.name_any());
    state.written.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
}
