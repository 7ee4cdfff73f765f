//! Cache of the Secrets with users' kubeconfigs: a watch of their metadata. The spec lists only the desired users. The
//! Secret of a removed user is found only with this cache.

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use keyplane_crds::keys::{self, USER_LABEL};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};

use super::watch_config;
use keyplane_core::model::Cluster;
use keyplane_core::names::{MANAGED_BY, MANAGED_BY_LABEL};

/// Cache of the metadata of Secrets with users' kubeconfigs.
#[derive(Clone)]
pub struct IssuedKubeconfigs(Store<PartialObjectMeta<Secret>>);

impl IssuedKubeconfigs {
    /// Waits until the cache is synced; returns whether it is. A `false` means that the watch has ended.
    pub async fn wait_until_ready(&self) -> bool {
        self.0.wait_until_ready().await.is_ok()
    }

    /// Returns the names of a cluster's Secrets, also of removed users.
    pub(super) fn of(&self, cluster: &Cluster) -> Vec<String> {
        let belongs = |secret: &PartialObjectMeta<Secret>| {
            secret.namespace().as_deref() == Some(&cluster.namespace)
                && secret.labels().get(keys::CLUSTER_LABEL) == Some(&cluster.name)
        };
        self.0.state().iter().filter(|secret| belongs(secret)).map(|secret| secret.name_any()).collect()
    }
}

/// Returns the watch, which runs while it is polled, and its cache.
pub fn watch(client: Client) -> (impl Future<Output = ()>, IssuedKubeconfigs) {
    let ours = watch_config().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY},{USER_LABEL}"));
    let secrets: Api<PartialObjectMeta<Secret>> = Api::all(client);
    let (store, writer) = reflector::store();
    let events = reflector::reflector(writer, watcher::watcher(secrets, ours)).default_backoff();
    let work = events.for_each(|event| {
        if let Err(error) = event {
            tracing::debug!(%error, "watching the kubeconfigs of users");
        }
        std::future::ready(())
    });
    (work, IssuedKubeconfigs(store))
}
