//! Watches the user-provided Secrets that a ClusterSpec refers to. They lack Keyplane's labels, so the watch of
//! Keyplane's Secrets does not include them. Each one has its own watch of metadata.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::select_all;
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::watch;

use super::{SessionSpec, TargetStatus};
use keyplane_core::names;

/// Triggers a reconciliation whenever a referenced Secret changes, until the task is cancelled.
pub(super) async fn watch(
    mut specs: watch::Receiver<Arc<SessionSpec>>,
    target_status: TargetStatus,
    management: Client,
) {
    loop {
        let spec = Arc::clone(&specs.borrow_and_update());
        let names = names::referenced_secret_names(&spec.cluster);
        let mut events = select_all(names.map(|name| {
            let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(management.clone(), &spec.cluster.namespace);
            let one = watcher::Config::default().fields(&format!("metadata.name={name}"));
            watcher(secrets, one).default_backoff().boxed()
        }));
        loop {
            tokio::select! {
                changed = specs.changed() => if changed.is_ok() { break } else { return },
                Some(event) = events.next() => match event {
                    // Once after the list, because the Secret may have changed since the reconciliation.
                    Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => target_status.request_reconciliation(),
                    Ok(Event::Init | Event::InitApply(_)) => {}
                    Err(error) => tracing::debug!(cluster = %target_status.object, %error, "watching a user-provided Secret"),
                },
            }
        }
    }
}
