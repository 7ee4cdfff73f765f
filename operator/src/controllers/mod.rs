//! The controllers: one file per watched kind, each of which observes, plans, acts and reports.

mod act;
pub mod agents;
pub mod certificate_policy;
pub mod cluster_spec;
mod deletion;
mod due;
pub mod issued;
mod news;
pub mod node_pool;
mod observe;
pub mod own_cluster;
mod pool_deletion;
pub mod sessions;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use keyplane_crds::{CertificatePolicy, NodePool};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::Store;
use kube::runtime::{controller, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use crate::metrics::Metrics;
use agents::Agents;
use issued::IssuedKubeconfigs;
use keyplane_client::events::Events;
use keyplane_client::{backoff, causes};
use sessions::Targets;

/// Objects are looked at again after about this long even if nothing has changed: a watch can miss an event.
const RESYNC: Duration = Duration::from_hours(1);

/// One reconciliation may take this long: three RSA-4096 authorities and a node's keys take about a minute on a slow core.
const RECONCILE_TIMEOUT: Duration = Duration::from_mins(5);

/// Several changes of one object within this time are one reconciliation.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// What every controller has.
#[derive(Clone)]
pub struct Context {
    /// The management cluster.
    pub client: Client,
    /// Events on the objects there.
    pub events: Events,
    /// Counters.
    pub metrics: Metrics,
    /// The target clusters.
    pub targets: Arc<Targets>,
    /// The pools, as the watch knows them.
    pub node_pools: Store<DeserializeGuard<NodePool>>,
    /// The policies, as the watch knows them.
    pub certificate_policies: Store<DeserializeGuard<CertificatePolicy>>,
    /// The kubeconfigs of users, as the watch knows them.
    pub issued_kubeconfigs: IssuedKubeconfigs,
    /// The agents of the machines, as the watches know them.
    pub agents: Agents,
}

/// How every controller is set up.
fn config(concurrency: u16) -> controller::Config {
    // kube's default is no limit: every start would work on all objects at once.
    controller::Config::default().concurrency(concurrency).debounce(DEBOUNCE)
}

/// Runs a controller whose objects are soon done with, until `stop`.
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
                // It was deleted while it was in the queue.
                Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
                Err(error) => tracing::warn!(kind = %K::kind(&()), error = causes(&error), "controller"),
            }
        })
        .await;
}

/// How every kind is watched. Pages keep the first list small in memory.
fn watch_config() -> watcher::Config {
    watcher::Config::default().page_size(100)
}

/// Why an object could not be worked on; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The management cluster's API server refused or failed.
    #[error("{what}: {source}")]
    Api {
        /// What was tried.
        what: String,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// A key or certificate could not be made.
    #[error(transparent)]
    Issuance(#[from] keyplane_issuance::IssuanceError),
    /// Somebody else wrote at the same time.
    #[error("{0} was changed by somebody else meanwhile")]
    Conflict(String),
    /// It took too long.
    #[error("not done within {} s", RECONCILE_TIMEOUT.as_secs())]
    Timeout,
    /// A thread of ours has failed.
    #[error("work was broken off: {0}")]
    Broken(String),
}

impl Error {
    fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Api { what, source: Box::new(source) }
    }

    /// A metric label.
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
