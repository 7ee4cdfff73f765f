//! The NodePool's controller: says whether what the pool declares is in force.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{ClusterSpec, NodePool, condition_of, set_condition};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::target::Targets;
use super::{Error, RESYNC, config, drive, watch_config};
use crate::kube::apply::update_status;

/// Whether the kubelets of the pool have the certificates that they have asked for.
const APPROVED: &str = "CertificatesApproved";

type Guarded = DeserializeGuard<NodePool>;

/// The controller and what its watch knows.
#[must_use]
pub fn controller(client: Client, concurrency: u16) -> (Controller<Guarded>, Store<Guarded>) {
    let clusters: Api<PartialObjectMeta<ClusterSpec>> = Api::all(client.clone());
    let controller = Controller::new(Api::<Guarded>::all(client), watch_config()).with_config(config(concurrency));
    let store = controller.store();
    let pools = store.clone();
    let controller = controller.watches(clusters, watcher::Config::default(), move |cluster| {
        let (namespace, name) = (cluster.namespace(), cluster.name_any());
        let of_cluster = move |pool: &Arc<Guarded>| {
            let Ok(pool) = &pool.0 else { return false };
            pool.namespace() == namespace && pool.spec.cluster_ref.name == name
        };
        pools.state().into_iter().filter(of_cluster).map(|pool| ObjectRef::from_obj(&*pool)).collect::<Vec<_>>()
    });
    (controller, store)
}

/// What the controller needs.
pub struct State {
    /// The management cluster.
    pub client: Client,
    /// What the targets' sessions know of requests that wait.
    pub targets: Arc<Targets>,
}

/// Runs until `stop`.
pub async fn run(
    controller: Controller<Guarded>,
    state: State,
    triggers: mpsc::UnboundedReceiver<ObjectRef<Guarded>>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let controller = controller.reconcile_on(UnboundedReceiverStream::new(triggers));
    drive(controller, state, reconcile, stop).await;
}

async fn reconcile(pool: Arc<Guarded>, state: Arc<State>) -> Result<Action, Error> {
    let client = &state.client;
    let Ok(pool) = &pool.0 else { return Ok(Action::requeue(RESYNC)) };
    let namespace = pool.namespace().unwrap_or_default();
    let cluster = &pool.spec.cluster_ref.name;
    let clusters: Api<ClusterSpec> = Api::namespaced(client.clone(), &namespace);
    let found = clusters.get_metadata_opt(cluster).await.map_err(Error::api("reading the ClusterSpec"))?;
    let (ready, reason, message) = match found {
        Some(_) => (true, "InForce", format!("kubelets of ClusterSpec {cluster} are judged by this declaration")),
        None => (
            false,
            "ClusterSpecNotFound",
            format!(
                "spec.clusterRef: there is no ClusterSpec {cluster} in namespace {namespace}: apply it, or mend the name"
            ),
        ),
    };
    let generation = pool.metadata.generation;
    let mut status = pool.status.clone().unwrap_or_default();
    status.observed_generation = generation;
    status.nodes = i32::try_from(pool.spec.machines.len()).ok();
    set_condition(&mut status.conditions, "Ready", ready, reason, &message, generation, Timestamp::now());
    if let Some(waiting) = state.targets.facts(&namespace, cluster).waiting {
        let waits = waiting.get(&pool.name_any());
        let told = condition_of(&status.conditions, APPROVED).is_some();
        match waits {
            Some((reason, message)) => {
                set_condition(&mut status.conditions, APPROVED, false, reason, message, generation, Timestamp::now());
            }
            // A pool of which there was never anything to tell has no such condition.
            None if told => {
                let message = "no kubelet's request has waited for long";
                set_condition(
                    &mut status.conditions,
                    APPROVED,
                    true,
                    "NothingWaits",
                    message,
                    generation,
                    Timestamp::now(),
                );
            }
            None => {}
        }
    }
    let api: Api<NodePool> = Api::namespaced(client.clone(), &namespace);
    let updated = update_status(&api, &pool.name_any(), pool.status.as_ref(), &status).await;
    updated.map_err(Error::api("writing the status"))?;
    Ok(Action::requeue(RESYNC))
}
