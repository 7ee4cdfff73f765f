//! Who sees when a request is there and when it is approved: one watch of its own, the same for every approver.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use futures::TryStreamExt;
use kube::Client;
use kube::core::WatchEvent;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::cluster::REQUESTS;

/// A request that was seen to be approved.
pub(super) struct Sight {
    pub(super) name: String,
    pub(super) at: Instant,
}

/// The watch; it ends with this.
pub(super) struct Observer {
    approved: mpsc::UnboundedReceiver<Sight>,
    created: Arc<Mutex<HashMap<String, Instant>>>,
    task: JoinHandle<()>,
}

/// The little that is read of a request: reading all of it would take processor time from the approvers.
#[derive(Clone, Debug, Deserialize)]
struct Seen {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
}

#[derive(Deserialize)]
struct List {
    metadata: ListMetadata,
}

#[derive(Deserialize)]
struct ListMetadata {
    #[serde(rename = "resourceVersion")]
    resource_version: String,
}

impl Observer {
    /// Sees what happens from now on.
    pub(super) async fn start(client: &Client) -> Result<Self> {
        let get = |query: &str| http::Request::get(format!("{REQUESTS}?{query}")).body(vec![]);
        let list: List = client.request(get("limit=1")?).await.context("cannot list the requests")?;
        let version = list.metadata.resource_version;
        let watch = get(&format!("watch=true&timeoutSeconds=3600&resourceVersion={version}"))?;
        let events = client.request_events::<Seen>(watch).await.context("cannot watch the requests")?;
        let (sights, approved) = mpsc::unbounded_channel();
        let created: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
        let seen = Arc::clone(&created);
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(events);
            while let Ok(Some(event)) = events.try_next().await {
                let (WatchEvent::Added(request) | WatchEvent::Modified(request)) = event else { continue };
                let (name, at) = (request.metadata.name, Instant::now());
                if request.status.conditions.iter().any(|condition| condition.type_ == "Approved") {
                    if sights.send(Sight { name, at }).is_err() {
                        return;
                    }
                } else {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_insert(at);
                }
            }
        });
        Ok(Self { approved, created, task })
    }

    /// The next one that is approved; nothing if the watch has ended.
    pub(super) async fn next(&mut self) -> Option<Sight> {
        self.approved.recv().await
    }

    /// When each request was made.
    pub(super) fn created(&self) -> HashMap<String, Instant> {
        self.created.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
