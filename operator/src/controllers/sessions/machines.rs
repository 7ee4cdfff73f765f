//! Observes the control-plane nodes of a target cluster while a session is connected: their static pods, and the
//! certificates that their API servers present.

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

use super::serving_certificates::presented_by_each;
use super::session::Session;
use super::static_pods::{self, StaticPods};
use super::unavailable::Unavailable;
use super::{HANDSHAKE_TIMEOUT, SessionSpec};
use keyplane_client::backoff;

/// Interval of reading the API servers' certificates, plus up to half a minute.
const INSPECTION_PERIOD: Duration = Duration::from_mins(5);
/// The sixth backoff delay is about half a minute with jitter, so that not all target clusters are read at once.
const INSPECTION_JITTER: u32 = 6;
/// Delay after a change of a static pod: the pod may change again, and an API server needs time to start.
const SETTLING_TIME: Duration = Duration::from_secs(20);

impl Session {
    /// Observes until an error occurs.
    pub(super) async fn observe_control_plane(&self, client: &Client, spec: &SessionSpec) -> Unavailable {
        let changed = Notify::new();
        tokio::select! {
            ended = self.watch_static_pods(client, &changed) => ended,
            ended = self.inspect_certificates(spec, &changed) => ended,
        }
    }

    async fn watch_static_pods(&self, client: &Client, changed: &Notify) -> Unavailable {
        let api = Api::<Pod>::namespaced(client.clone(), static_pods::NAMESPACE);
        let mut events = pin!(watcher(api, static_pods::selection()).default_backoff());
        let mut pods = StaticPods::default();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) if pods.take(&event) && pods.are_listed() => {
                    self.target_status.update(|facts| facts.static_pods = Some(pods.facts()));
                    changed.notify_one();
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(cluster = %self.target_status.object, %error, "watching static pods"),
            }
        }
        Unavailable::new(reasons::WATCH_ENDED, "the watch of static pods ended")
    }

    /// Reads the certificates periodically, and when a static pod has changed.
    async fn inspect_certificates(&self, spec: &SessionSpec, changed: &Notify) -> Unavailable {
        loop {
            let presented = presented_by_each(&spec.cluster, HANDSHAKE_TIMEOUT).await;
            self.target_status.update(|facts| facts.serving = presented);
            tokio::select! {
                () = sleep(INSPECTION_PERIOD + backoff::delay(INSPECTION_JITTER)) => {}
                () = changed.notified() => sleep(SETTLING_TIME).await,
            }
        }
    }
}
