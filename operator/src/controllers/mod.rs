//! The controllers: one file per reconciled resource.

pub mod agent_access;
mod apply;
pub mod certificate_policy;
pub mod cluster_spec;
mod deletion;
pub mod management_approver;
pub mod node_pool;
mod node_pool_state;
mod observe;
mod pool_deletion;
mod requeue;
#[cfg(test)]
mod scripted;
pub mod sessions;
mod status_events;
pub mod user_kubeconfigs;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use keyplane_crds::{CertificatePolicy, NodePool};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use crate::metrics::Metrics;
use agent_access::Agents;
use keyplane_client::events::Events;
use keyplane_client::{backoff, causes};
use sessions::Targets;
use user_kubeconfigs::IssuedKubeconfigs;

/// Requeue delay without any change, because a watch can miss an event.
const RESYNC: Duration = Duration::from_hours(1);

/// Time for one reconciliation: three RSA-4096 CAs and a node's keys take about a minute on a slow core.
const RECONCILE_TIMEOUT: Duration = Duration::from_mins(5);

/// Changes of one object within this time are combined into one reconciliation.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// Dependencies of the controllers.
#[derive(Clone)]
pub struct Context {
    /// Client of the management cluster.
    pub client: Client,
    /// Recorder of Events in the management cluster.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
    /// Sessions with the target clusters.
    pub targets: Arc<Targets>,
    /// Cache of NodePools.
    pub node_pools: Store<DeserializeGuard<NodePool>>,
    /// Cache of CertificatePolicies.
    pub certificate_policies: Store<DeserializeGuard<CertificatePolicy>>,
    /// Cache of the Secrets with users' kubeconfigs.
    pub issued_kubeconfigs: IssuedKubeconfigs,
    /// Caches of the agents' objects.
    pub agents: Agents,
}

/// Configuration of every controller.
fn config(concurrency: u16) -> controller::Config {
    // kube's default is no limit: at each start, all objects would be reconciled at once.
    controller::Config::default().concurrency(concurrency).debounce(DEBOUNCE)
}

/// Runs a controller with short reconciliations until `stop`.
async fn drive<K, State, Work>(
    controller: Controller<K>,
    state: Arc<State>,
    reconcile: fn(Arc<K>, Arc<State>) -> Work,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
    State: Send + Sync + 'static,
    Work: Future<Output = Result<Action, Error>> + Send + 'static,
{
    controller
        .graceful_shutdown_on(stop)
        .run(reconcile, |_, _, _| Action::requeue(backoff::delay(3)), state)
        .for_each(|result| async move {
            match result {
                // The object was deleted while it was in the queue.
                Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
                Err(error) => tracing::warn!(kind = %K::kind(&()), error = causes(&error), "controller"),
            }
        })
        .await;
}

/// Configuration of every watch. Pages limit the memory of the first list.
fn watch_config() -> watcher::Config {
    watcher::Config::default().page_size(100)
}

/// The reason why a reconciliation failed; the object is requeued.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server of the management cluster returned an error.
    #[error("{what}: {source}")]
    Api {
        /// The request.
        what: String,
        /// The error.
        source: Box<kube::Error>,
    },
    /// A key can't be generated, or a certificate can't be issued.
    #[error(transparent)]
    Issuance(#[from] keyplane_issuance::IssuanceError),
    /// Another client has changed the object at the same time.
    #[error("{0} was changed by another client at the same time")]
    Conflict(String),
    /// The reconciliation took too long.
    #[error("the reconciliation did not finish within {} s", RECONCILE_TIMEOUT.as_secs())]
    Timeout,
    /// The reconciliation was aborted.
    #[error("the reconciliation was aborted: {0}")]
    Broken(String),
}

impl Error {
    fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Api { what, source: Box::new(source) }
    }

    /// Returns the value of the metric label `result`.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Api { .. } => "api",
            Self::Issuance(_) => "issuance",
            Self::Conflict(_) => "conflict",
            Self::Timeout => "timeout",
            Self::Broken(_) => "broken",
        }
    }
}

/// Returns the reference of an object for Events, without the resource version.
fn unversioned<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    ObjectReference { resource_version: None, ..object.object_ref(&()) }
}
