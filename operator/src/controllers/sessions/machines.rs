//! What the control-plane machines of a target run: their static pods, and the certificates that their API servers
//! present. Only looked at, while a session is connected.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use keyplane_crds::reasons;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watcher;
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::Brief;
use super::preparation::Unavailable;
use super::serving::presented_by_each;
use super::session::Session;
use super::static_pods::{self, StaticPods};
use keyplane_client::backoff;

/// How long a server has to answer. One that is down says nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How often the certificates of the API servers are looked at, plus up to half a minute.
const INSPECTION_PERIOD: Duration = Duration::from_mins(5);
/// The sixth wait of the backoff is about half a minute, and never the same: not all targets are dialled at once.
const INSPECTION_JITTER: u32 = 6;
/// A static pod that has changed may change again within this time, and an API server needs some to come up.
const SETTLING_TIME: Duration = Duration::from_secs(20);

impl Session {
    /// Looks until it can't any more.
    pub(super) async fn look_at_machines(&self, client: &Client, brief: &Brief) -> Unavailable {
        let changed = Notify::new();
        tokio::select! {
            ended = self.watch_static_pods(client, &changed) => ended,
            ended = self.inspect_certificates(brief, &changed) => ended,
        }
    }

    async fn watch_static_pods(&self, client: &Client, changed: &Notify) -> Unavailable {
        let api = Api::<Pod>::namespaced(client.clone(), static_pods::NAMESPACE);
        let mut events = pin!(watcher(api, static_pods::selection()).default_backoff());
        let mut pods = StaticPods::default();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) if pods.take(&event) && pods.are_listed() => {
                    self.findings.learn(|facts| facts.static_pods = Some(pods.facts()));
                    changed.notify_one();
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(cluster = %self.findings.object, %error, "watching static pods"),
            }
        }
        Unavailable::new(reasons::WATCH_ENDED, "the watch of static pods ended")
    }

    /// From time to time, and when a static pod has changed.
    async fn inspect_certificates(&self, brief: &Brief, changed: &Notify) -> Unavailable {
        loop {
            let presented = presented_by_each(&brief.cluster, PATIENCE).await;
            self.findings.learn(|facts| facts.serving = presented);
            tokio::select! {
                () = sleep(INSPECTION_PERIOD + backoff::delay(INSPECTION_JITTER)) => {}
                () = changed.notified() => sleep(SETTLING_TIME).await,
            }
        }
    }
}
