//! Which kubeconfigs of users there are: a watch of labels and names. The spec tells the users that there should be; of one
//! that was taken away only its Secret is left to tell.

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

/// The Secrets of users' kubeconfigs, without what is in them.
#[derive(Clone)]
pub struct IssuedKubeconfigs(Store<PartialObjectMeta<Secret>>);

impl IssuedKubeconfigs {
    /// Waits until the watch knows them. Nothing comes after an error: the watch has ended.
    pub async fn wait_until_ready(&self) -> bool {
        self.0.wait_until_ready().await.is_ok()
    }

    /// The names of those of a cluster, whether its users are still there or not.
    pub(super) fn of(&self, cluster: &Cluster) -> Vec<String> {
        let belongs = |secret: &PartialObjectMeta<Secret>| {
            secret.namespace().as_deref() == Some(&cluster.namespace)
                && secret.labels().get(keys::CLUSTER_LABEL) == Some(&cluster.name)
        };
        self.0.state().iter().filter(|secret| belongs(secret)).map(|secret| secret.name_any()).collect()
    }
}

/// The watch, which works as long as it is polled, and what it knows.
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
