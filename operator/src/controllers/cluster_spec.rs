//! The ClusterSpec controller: observes, plans, applies the plan, and writes the status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference, Secret};
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{
    AT_ONCE, CertificatePolicy, ClusterSpec, ClusterSpecStatus, NodePool, NodePoolRole, keys, reasons,
};
use kube::core::{ApiResource, DeserializeGuard, DynamicObject, PartialObjectMeta};
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::apply::act;
use super::requeue::{requeue_after, wait_until};
use super::sessions::{SessionSpec, presented_by_each};
use super::{
    Context, Error, RECONCILE_TIMEOUT, RESYNC, config, deletion, node_pool_state, observe, status_events, unversioned,
    watch_config,
};
use keyplane_client::apply::update_status;
use keyplane_client::backoff::{self, Backoff};
use keyplane_client::causes;
use keyplane_core::blocker::Blocker;
use keyplane_core::certificate_authorities::ClusterCas;
use keyplane_core::join::Pool;
use keyplane_core::model::{Cluster, Policy};
use keyplane_core::names::{self, MANAGED_BY, MANAGED_BY_LABEL};
use keyplane_core::observed::Observed;
use keyplane_core::plan::{as_observed, encryption_work, is_unknown, kubelet_rotation_order};
use keyplane_core::{rollout, status};

/// Time for the first probe of the API servers. A running cluster answers at once, and a new cluster does not answer.
const FIRST_PROBE_TIMEOUT: Duration = Duration::from_secs(2);

type Guarded = DeserializeGuard<ClusterSpec>;

struct State {
    context: Context,
    backoff: Backoff<(String, String)>,
}

/// Runs until `stop`.
pub async fn run(
    context: Context,
    concurrency: u16,
    triggers: mpsc::UnboundedReceiver<ObjectRef<Guarded>>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let client = context.client.clone();
    // Metadata is enough to see that a Secret has changed. Keys are read when they are needed, and not cached.
    let ours = watch_config().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
    // Includes user-provided Secrets that their owners have labelled, so that a change triggers a reconciliation.
    let labelled = watch_config().labels(keys::CLUSTER_LABEL);
    let secrets: Api<PartialObjectMeta<Secret>> = Api::all(client.clone());
    let config_maps: Api<PartialObjectMeta<ConfigMap>> = Api::all(client.clone());
    let policies: Api<DeserializeGuard<CertificatePolicy>> = Api::all(client.clone());
    let pools: Api<DeserializeGuard<NodePool>> = Api::all(client.clone());
    let controller = Controller::new(Api::<Guarded>::all(client), watch_config()).with_config(config(concurrency));
    let clusters = controller.store();
    // The controller's main watch does not report deletions. A secondary watch of the same resource does.
    let deleted: Api<PartialObjectMeta<ClusterSpec>> = Api::all(context.client.clone());
    let state = Arc::new(State { context: context.clone(), backoff: Backoff::default() });
    controller
        .watches(deleted, watch_config(), |cluster| {
            Some(ObjectRef::new(&cluster.name_any()).within(cluster.namespace()?.as_str()))
        })
        .watches(secrets, labelled, |secret| owner(&secret))
        .watches(config_maps, ours, |config_map| owner(&config_map))
        .watches(policies, watcher::Config::default(), move |policy| {
            let (namespace, name) = (policy.namespace(), policy.name_any());
            clusters
                .state()
                .into_iter()
                .filter(move |cluster| cluster.namespace() == namespace && refers_to(cluster, &name))
                .map(|cluster| ObjectRef::from_obj(&*cluster))
                .collect::<Vec<_>>()
        })
        .watches(pools, watcher::Config::default(), |pool| {
            let pool = pool.0.as_ref().ok()?;
            Some(ObjectRef::new(&pool.spec.cluster_ref.name).within(pool.namespace()?.as_str()))
        })
        .reconcile_on(UnboundedReceiverStream::new(triggers))
        .graceful_shutdown_on(stop)
        .run(reconcile, on_error, state)
        .for_each(|result| {
            match result {
                Err(controller::Error::ObjectNotFound(deleted)) => {
                    forget(&context, deleted.namespace.as_deref().unwrap_or_default(), &deleted.name);
                }
                // Failed reconciliations are logged where they fail.
                Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
                Err(error) => tracing::warn!(kind = "ClusterSpec", error = causes(&error), "controller"),
            }
            std::future::ready(())
        })
        .await;
}

/// Stops the session and removes the metrics of a deleted ClusterSpec.
fn forget(context: &Context, namespace: &str, name: &str) {
    context.targets.stop(namespace, name);
    context.metrics.forget(namespace, name);
}

fn owner<K: Resource<DynamicType = ()>>(object: &K) -> Option<ObjectRef<Guarded>> {
    let cluster = object.meta().labels.as_ref()?.get(keys::CLUSTER_LABEL)?;
    Some(ObjectRef::new(cluster).within(object.meta().namespace.as_deref()?))
}

fn refers_to(cluster: &Guarded, policy: &str) -> bool {
    let Ok(cluster) = &cluster.0 else { return false };
    cluster.spec.certificate_policy_ref.as_ref().is_some_and(|reference| reference.name == policy)
}

async fn reconcile(cached: Arc<Guarded>, state: Arc<State>) -> Result<Action, Error> {
    reconcile_within(RECONCILE_TIMEOUT, &cached, &state).await
}

async fn reconcile_within(timeout: Duration, cached: &Guarded, state: &State) -> Result<Action, Error> {
    let started = std::time::Instant::now();
    let metrics = &state.context.metrics;
    let key = (cached.namespace().unwrap_or_default(), cached.name_any());
    let result = match tokio::time::timeout(timeout, Box::pin(one_pass(&key, &state.context))).await {
        Ok(result) => result,
        Err(_) => Err(Error::Timeout),
    };
    metrics.reconcile_seconds.with_label_values(&["ClusterSpec"]).observe(started.elapsed().as_secs_f64());
    let label = result.as_ref().err().map_or("ok", Error::reason);
    metrics.reconciliations.with_label_values(&["ClusterSpec", label]).inc();
    if result.is_ok() {
        state.backoff.forget(&key);
    }
    result
}

// kube passes these arguments by value.
#[allow(clippy::needless_pass_by_value)]
fn on_error(cached: Arc<Guarded>, error: &Error, state: Arc<State>) -> Action {
    let key = (cached.namespace().unwrap_or_default(), cached.name_any());
    if matches!(error, Error::Conflict(_)) {
        return Action::requeue(backoff::delay(1));
    }
    let wait = state.backoff.failed(key.clone());
    tracing::warn!(namespace = key.0, cluster = key.1, %error, retry_seconds = wait.as_secs(), "reconciliation failed");
    Action::requeue(wait)
}

async fn one_pass((namespace, name): &(String, String), context: &Context) -> Result<Action, Error> {
    let api: Api<Guarded> = Api::namespaced(context.client.clone(), namespace);
    // The cache may be older than our last status update, and the status is the record of generated keys. So the object
    // is read from the API server.
    let found = api.get_opt(name).await.map_err(Error::api("reading the ClusterSpec"))?;
    let Some(found) = found else {
        forget(context, namespace, name);
        return Ok(Action::await_change());
    };
    let found = match found.0 {
        Ok(found) => found,
        Err(invalid) => {
            tracing::warn!(namespace, cluster = name, error = %invalid, "skipped a ClusterSpec that can't be parsed");
            let blocker =
                Blocker { reason: reasons::UNREADABLE, message: format!("the object can't be parsed: {invalid}") };
            if let Err(error) = report_unreadable(namespace, name, &blocker, context).await {
                tracing::warn!(namespace, cluster = name, %error, "writing the status of a ClusterSpec that can't be parsed failed");
            }
            return Ok(Action::requeue(RESYNC));
        }
    };
    if let Some(action) = deletion::handle(&found, context).await? {
        return Ok(action);
    }
    let now = Timestamp::now();
    if let Some(action) = paused(&found, context, now).await? {
        return Ok(action);
    }
    let cluster = match parse(&found, context) {
        Ok(cluster) => cluster,
        Err(blocker) => {
            context.targets.stop(namespace, name);
            let previous = found.status.clone().unwrap_or_default();
            let status = status::refused(&previous, &blocker, found.metadata.generation, now);
            report(&found, status, context).await?;
            return Ok(Action::requeue(RESYNC));
        }
    };
    let status = found.status.clone().unwrap_or_default();
    let mut observed = observe::gather(context, &cluster, status).await?;
    let cluster = as_observed(&cluster, &observed);
    observed.target = context.targets.facts(namespace, name);
    observed.at_once = found.annotations().get(keys::ROLLOUT_ANNOTATION).is_some_and(|value| value == AT_ONCE);
    if is_unknown(&cluster, &observed) {
        observed.target.serving = presented_by_each(&cluster, FIRST_PROBE_TIMEOUT).await;
    }
    let reference = unversioned(&found);
    let blockers = act(&cluster, &mut observed, &reference, now, context).await?;
    let agents = context.agents.keep(&cluster, &pools(&cluster, context), &reference, now, context).await;
    if let Some(spec) = session_spec(&cluster, &observed, reference, context) {
        observed.target = context.targets.ensure(spec);
    }
    let status = status::report(&cluster, &observed, &blockers, found.metadata.generation, now);
    let next = requeue_after(&cluster, &observed, &status, &blockers, now).min(agents);
    report(&found, status, context).await?;
    Ok(Action::requeue(next))
}

/// Reports in the status that the spec can't be parsed. The status is the record of generated keys: a status that can't
/// be parsed either is not overwritten.
async fn report_unreadable(
    namespace: &str,
    name: &str,
    blocker: &Blocker,
    context: &Context,
) -> Result<(), kube::Error> {
    let untyped = ApiResource::erase::<ClusterSpec>(&());
    let untyped: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &untyped);
    let Some(found) = untyped.get_opt(name).await? else { return Ok(()) };
    let before = match found.data.get("status") {
        None => None,
        Some(status) => match serde_json::from_value::<ClusterSpecStatus>(status.clone()) {
            Ok(status) => Some(status),
            Err(_) => return Ok(()),
        },
    };
    let previous = before.clone().unwrap_or_default();
    let status = status::refused(&previous, blocker, found.metadata.generation, Timestamp::now());
    let api: Api<Guarded> = Api::namespaced(context.client.clone(), namespace);
    update_status(&api, name, before.as_ref(), &status).await.map(|_| ())
}

/// Handles a paused ClusterSpec: only its status is written, and nothing in the target cluster.
async fn paused(found: &ClusterSpec, context: &Context, now: Timestamp) -> Result<Option<Action>, Error> {
    let until = found.spec.paused_until.as_ref().map(|time| time.0).filter(|until| *until > now);
    let (until, message) = match (found.spec.paused, until) {
        (true, _) => (None, "spec.paused is true: nothing is written or approved until it is false".to_owned()),
        (false, Some(until)) => {
            (Some(until), format!("spec.pausedUntil: nothing is written or approved until {until}"))
        }
        (false, None) => return Ok(None),
    };
    context.targets.stop(&found.namespace().unwrap_or_default(), &found.name_any());
    let previous = found.status.clone().unwrap_or_default();
    report(found, status::paused(&previous, &message, found.metadata.generation, now), context).await?;
    Ok(Some(Action::requeue(wait_until(until, now))))
}

fn parse(found: &ClusterSpec, context: &Context) -> Result<Cluster, Blocker> {
    let namespace = found.namespace().unwrap_or_default();
    let policy = match &found.spec.certificate_policy_ref {
        None => Policy::default(),
        Some(reference) => {
            let key = ObjectRef::new(&reference.name).within(&namespace);
            let stored = context.certificate_policies.get(&key);
            let missing = || Blocker {
                reason: reasons::CERTIFICATE_POLICY_NOT_FOUND,
                message: format!(
                    "spec.certificatePolicyRef: CertificatePolicy {} does not exist in namespace {namespace}: create the \
                     policy, or remove the reference",
                    reference.name
                ),
            };
            let policy = stored.as_ref().and_then(|guard| guard.0.as_ref().ok()).ok_or_else(missing)?;
            Policy::parse(&policy.spec).map_err(|error| Blocker {
                reason: reasons::CERTIFICATE_POLICY_INVALID,
                message: format!("CertificatePolicy {}: {error}", reference.name),
            })?
        }
    };
    let cluster = Cluster::parse(&found.name_any(), &namespace, &found.spec, policy)
        .map_err(|error| Blocker { reason: reasons::INVALID_SPEC, message: error.to_string() })?;
    let pools = pools(&cluster, context);
    let staying = pools.iter().filter(|pool| pool.metadata.deletion_timestamp.is_none());
    Ok(cluster.with_annotations(found.annotations()).with_pools(staying.map(|pool| (pool.name_any(), &pool.spec))))
}

/// Returns the pools of the cluster, ordered by name.
fn pools(cluster: &Cluster, context: &Context) -> Vec<NodePool> {
    let of_cluster = context.node_pools.state().into_iter().filter_map(|pool| {
        let pool = pool.0.as_ref().ok()?;
        let ours =
            pool.namespace().as_deref() == Some(&cluster.namespace) && pool.spec.cluster_ref.name == cluster.name;
        ours.then(|| (pool.name_any(), pool.clone()))
    });
    // The cache has no order. Without sorting, the session spec would seem to change.
    let of_cluster: BTreeMap<_, _> = of_cluster.collect();
    of_cluster.into_values().collect()
}

/// Builds the session spec; `None` until all keys exist.
fn session_spec(
    cluster: &Cluster,
    observed: &Observed,
    reference: ObjectReference,
    context: &Context,
) -> Option<SessionSpec> {
    let cas = ClusterCas::load(cluster, observed)?;
    let (leaving, staying): (Vec<_>, Vec<_>) =
        pools(cluster, context).into_iter().partition(|pool| pool.metadata.deletion_timestamp.is_some());
    // A pool whose role was Worker before may still have a token.
    let others = staying.iter().filter(|pool| pool.spec.role != NodePoolRole::Worker);
    let leaving = leaving.iter().chain(others).filter(|pool| node_pool_state::is_held(pool)).map(ResourceExt::name_any);
    let leaving = leaving.collect();
    // A pool gets a token only with the finalizer, so that the token is revoked when the pool is deleted.
    let workers = staying.iter().filter(|pool| node_pool_state::is_held(pool)).filter_map(|pool| {
        // The NodePool controller reports pools that can't be parsed.
        Pool::parse(&pool.name_any(), &pool.spec, cluster).ok()?
    });
    let rollout = rollout::rollout(cluster, observed);
    let own = observed.secrets.get(&names::own_secret(&cluster.name));
    Some(SessionSpec {
        own_credential: own.and_then(|own| own.annotations().get(keys::CONTENT_CHECKSUM_ANNOTATION).cloned()),
        configuration: rollout.configuration,
        addons: rollout.addons,
        is_rotating: cas.is_rotating(),
        kubelet_cas: kubelet_rotation_order::of_pools(&cas, observed),
        trust: cas.trust(),
        revoked: cas.revoked_annotation(),
        workers: workers.collect(),
        leaving,
        // The cache has no order. Without sorting, the session spec would seem to change.
        pools: staying.into_iter().map(|pool| (pool.name_any(), pool.spec)).collect(),
        reference,
        encryption: encryption_work(cluster, observed),
        cluster: cluster.clone(),
    })
}

/// Writes the status if it has changed, and records Events for the transitions.
async fn report(found: &ClusterSpec, status: ClusterSpecStatus, context: &Context) -> Result<(), Error> {
    let (namespace, name) = (found.namespace().unwrap_or_default(), found.name_any());
    context.metrics.record_status(&namespace, &name, &status, Timestamp::now());
    let api: Api<ClusterSpec> = Api::namespaced(context.client.clone(), &namespace);
    let updated = update_status(&api, &name, found.status.as_ref(), &status).await;
    if !updated.map_err(Error::api("writing the status"))? {
        return Ok(());
    }
    context.metrics.writes.with_label_values(&["ClusterSpec/status"]).inc();
    status_events::record_transitions(found, &status, context).await;
    Ok(())
}

#[cfg(test)]
mod tests;
