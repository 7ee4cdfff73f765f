//! The Secrets of users that a ClusterSpec refers to. They bear no label of Keyplane's, so the watch of its own Secrets
//! does not tell of them; one watch each of their metadata does.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::select_all;
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::watch;

use super::{Brief, Findings};
use keyplane_core::names;
use keyplane_core::objects;

/// Asks for a reconciliation whenever one of them changes, until it is cancelled.
pub(super) async fn watch(mut briefs: watch::Receiver<Arc<Brief>>, findings: Findings, management: Client) {
    loop {
        let brief = Arc::clone(&briefs.borrow_and_update());
        let names = names::referenced_secret_names(&brief.cluster);
        let mut events = select_all(names.map(|name| {
            let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(management.clone(), &brief.cluster.namespace);
            let one = watcher::Config::default().fields(&format!("metadata.name={name}"));
            watcher(secrets, one).default_backoff().boxed()
        }));
        loop {
            tokio::select! {
                changed = briefs.changed() => if changed.is_ok() { break } else { return },
                Some(event) = events.next() => match event {
                    // Once after the list: it may have changed since it was read.
                    Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => findings.ask_for_reconciliation(),
                    Ok(Event::Init | Event::InitApply(_)) => {}
                    Err(error) => tracing::debug!(cluster = %findings.object, %error, "watching a Secret of a user"),
                },
            }
        }
    }
}
