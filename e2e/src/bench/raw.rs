//! A client that approves every request without looking: as fast as the API server lets anybody be.

use std::pin::pin;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use kube::core::WatchEvent;
use kube::{Client, Config};
use serde::Deserialize;
use serde_json::json;
use tokio::runtime::Runtime;

use super::cluster::REQUESTS;

/// How many approvals are under way at once.
const WRITERS: usize = 16;

/// What is read of a request.
#[derive(Clone, Debug, Deserialize)]
struct Request {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    resource_version: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct List {
    metadata: ListMetadata,
    items: Vec<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
}

/// Approves what is there and what comes, in the cluster of `KUBECONFIG`, until it is ended.
///
/// # Errors
/// When the API server does not answer, or ends the watch.
pub fn run() -> Result<()> {
    Runtime::new().context("cannot start threads")?.block_on(approve_everything())
}

async fn approve_everything() -> Result<()> {
    let client = Client::try_from(Config::infer().await?)?;
    let get = |query: &str| http::Request::get(format!("{REQUESTS}?{query}")).body(vec![]);
    // The version 0 lets the API server answer out of its cache.
    let list: List = client.request(get("resourceVersion=0")?).await.context("cannot list the requests")?;
    stream::iter(list.items)
        .map(|request| approve(&client, request))
        .buffer_unordered(WRITERS)
        .try_collect::<()>()
        .await?;
    let version = list.metadata.resource_version;
    let watch = get(&format!("watch=true&resourceVersion={version}"))?;
    let events = pin!(client.request_events::<Request>(watch).await.context("cannot watch the requests")?);
    let added = events.into_stream().try_filter_map(async |event| match event {
        WatchEvent::Added(request) => Ok(Some(request)),
        _ => Ok(None),
    });
    added.err_into().try_for_each_concurrent(WRITERS, |request| approve(&client, request)).await
}

async fn approve(client: &Client, request: Request) -> Result<()> {
    if !request.status.conditions.is_empty() {
        return Ok(());
    }
    let Metadata { name, resource_version } = request.metadata;
    let patch = json!({
        "metadata": {"resourceVersion": resource_version},
        "status": {"conditions": [{"type": "Approved", "status": "True", "reason": "Raw", "message": "not looked at"}]},
    });
    let patch = http::Request::patch(format!("{REQUESTS}/{name}/approval"))
        .header("Content-Type", "application/merge-patch+json")
        .body(serde_json::to_vec(&patch)?)?;
    client.request_text(patch).await.with_context(|| format!("cannot approve {name}"))?;
    Ok(())
}
