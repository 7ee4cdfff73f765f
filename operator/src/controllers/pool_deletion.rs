//! Deletion of a NodePool: revokes its token, then deletes its objects.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{ClusterSpec, NodePool, NodePoolCondition, keys, reasons, set_condition};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::controller::Action;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Error;
use super::node_pool_state::{State, is_held, report};
use keyplane_core::join::objects::{bootstrap_secret, is_of_pool, worker_config_map};
use keyplane_core::join::state::TokenState;
use keyplane_core::names::node_secret;

/// Requeue delay while the token is not revoked yet.
const SOON: Duration = Duration::from_secs(5);

/// Handles the deletion.
pub(super) async fn handle(pool: &NodePool, state: &State) -> Result<Action, Error> {
    if !is_held(pool) {
        return Ok(Action::await_change());
    }
    let (namespace, name) = (pool.namespace().unwrap_or_default(), pool.name_any());
    let cluster = &pool.spec.cluster_ref.name;
    let clusters: Api<ClusterSpec> = Api::namespaced(state.context.client.clone(), &namespace);
    let found = clusters.get_metadata_opt(cluster).await.map_err(Error::api("reading the ClusterSpec"))?;
    // Without a ClusterSpec there is no session that could revoke the token. The token expires.
    let cluster_exists = found.is_some_and(|found| found.metadata.deletion_timestamp.is_none());
    if let Some(message) = still_waits(pool, state, Timestamp::now()).filter(|_| cluster_exists) {
        let mut status = pool.status.clone().unwrap_or_default();
        let generation = pool.metadata.generation;
        set_condition(
            &mut status.conditions,
            NodePoolCondition::Ready.name(),
            false,
            reasons::REVOKING_TOKEN,
            &message,
            generation,
            Timestamp::now(),
        );
        report(pool, &status, state).await?;
        return Ok(Action::requeue(SOON));
    }
    let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(state.context.client.clone(), &namespace);
    delete(&secrets, cluster, &name, &bootstrap_secret(cluster, &name)).await?;
    let listed = pool.spec.machines.iter().map(|machine| &machine.name);
    let seen = pool.status.iter().flat_map(|status| status.machines.iter().map(|machine| &machine.name));
    let nodes: std::collections::BTreeSet<_> = listed.chain(seen).collect();
    for node in nodes {
        delete_files(&state.context.client, &namespace, cluster, &name, node).await?;
    }
    set_finalizer(pool, false, &state.context.client).await?;
    tracing::info!(namespace, pool = name, "deleted a NodePool and its token");
    Ok(Action::await_change())
}

/// Returns the reason why the pool can't be deleted yet. An expired token needs no revocation.
fn still_waits(pool: &NodePool, state: &State, now: Timestamp) -> Option<String> {
    let (namespace, name) = (pool.namespace().unwrap_or_default(), pool.name_any());
    let cluster = &pool.spec.cluster_ref.name;
    let targets = &state.context.targets;
    let spec = targets.spec(&namespace, cluster);
    let knows = spec.as_ref().is_some_and(|spec| spec.leaving.contains(&name));
    if spec.is_some() && !knows {
        targets.refresh(&namespace, cluster);
    }
    let facts = targets.join_facts(&namespace, cluster);
    let token = facts.tokens.get(&name);
    if knows && token == Some(&TokenState::None) {
        return None;
    }
    let recorded = pool.status.as_ref().and_then(|status| status.token_expires.as_ref()).map(|time| time.0);
    let expires = match token {
        Some(TokenState::Valid(expires)) => Some(*expires),
        _ => recorded,
    };
    // An available target cluster reports its tokens soon. An unavailable one can have a token only if one was created.
    if expires.is_none_or(|expires| expires <= now) && facts.nodes.is_none() {
        return None;
    }
    let why = match token {
        Some(TokenState::Failed(message)) => message.clone(),
        _ => format!("waiting for the target cluster of ClusterSpec {cluster} to answer"),
    };
    let expiry = expires.map_or(String::new(), |expires| format!(" (the token expires at {expires})"));
    Some(format!("the bootstrap token of the pool is being revoked{expiry}: {why}"))
}

/// Deletes the objects with the files of a node, if they belong to the pool.
pub(super) async fn delete_files(
    client: &Client,
    namespace: &str,
    cluster: &str,
    pool: &str,
    node: &str,
) -> Result<(), Error> {
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    delete(&config_maps, cluster, pool, &worker_config_map(cluster, node)).await?;
    let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(client.clone(), namespace);
    delete(&secrets, cluster, pool, &node_secret(cluster, node)).await
}

async fn delete<K>(api: &Api<K>, cluster: &str, pool: &str, name: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let found = api.get_metadata_opt(name).await.map_err(Error::api(format!("reading {name}")))?;
    let Some(found) = found.filter(|found| is_of_pool(&found.metadata, cluster, pool)) else { return Ok(()) };
    // The preconditions protect an object that was recreated meanwhile.
    let preconditions = Preconditions { uid: found.uid(), resource_version: found.resource_version() };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::api(format!("deleting {name}"))(error)),
    }
}

/// Sets or removes the finalizer.
pub(super) async fn set_finalizer(pool: &NodePool, held: bool, client: &Client) -> Result<(), Error> {
    let mut finalizers: Vec<_> =
        pool.finalizers().iter().filter(|other| *other != keys::NODEPOOL_FINALIZER).cloned().collect();
    if held {
        finalizers.push(keys::NODEPOOL_FINALIZER.to_owned());
    }
    // The patch replaces the whole list. The resource version ensures that no other finalizer is lost.
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": pool.metadata.resource_version}});
    let api: Api<NodePool> = Api::namespaced(client.clone(), &pool.namespace().unwrap_or_default());
    match api.patch(&pool.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::api("setting the finalizer")(error)),
    }
}

#[cfg(test)]
mod tests;
