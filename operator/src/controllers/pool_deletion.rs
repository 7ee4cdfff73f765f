//! The end of a NodePool: its token is revoked, then its objects go.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{ClusterSpec, NodePool, NodePoolCondition, keys, reasons, set_condition};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Error;
use super::node_pool::{FINALIZER, State, is_held, report};
use keyplane_core::join::objects::{bootstrap_secret, is_of_pool, worker_config_map};
use keyplane_core::join::state::TokenState;
use keyplane_core::names::node_secret;

/// How soon a pool is looked at again whose token is not revoked yet.
const SOON: Duration = Duration::from_secs(5);

/// Does what the deletion asks for.
pub(super) async fn handle(pool: &NodePool, state: &State) -> Result<Action, Error> {
    if !is_held(pool) {
        return Ok(Action::await_change());
    }
    let (namespace, name) = (pool.namespace().unwrap_or_default(), pool.name_any());
    let cluster = &pool.spec.cluster_ref.name;
    let clusters: Api<ClusterSpec> = Api::namespaced(state.context.client.clone(), &namespace);
    let found = clusters.get_metadata_opt(cluster).await.map_err(Error::api("reading the ClusterSpec"))?;
    // Without a ClusterSpec nobody can revoke a token: it ends by itself.
    let stays = found.is_some_and(|found| found.metadata.deletion_timestamp.is_none());
    if let Some(message) = still_waits(pool, state, Timestamp::now()).filter(|_| stays) {
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
    let machines: std::collections::BTreeSet<_> = listed.chain(seen).collect();
    for machine in machines {
        delete_files(&state.context.client, &namespace, cluster, &name, machine).await?;
    }
    set_finalizer(pool, false, &state.context.client).await?;
    tracing::info!(namespace, pool = name, "a NodePool and its token are gone");
    Ok(Action::await_change())
}

/// Why the pool can't go yet. A token that has ended needs no revoking.
fn still_waits(pool: &NodePool, state: &State, now: Timestamp) -> Option<String> {
    let (namespace, name) = (pool.namespace().unwrap_or_default(), pool.name_any());
    let cluster = &pool.spec.cluster_ref.name;
    let targets = &state.context.targets;
    let brief = targets.brief(&namespace, cluster);
    let knows = brief.as_ref().is_some_and(|brief| brief.leaving.contains(&name));
    if brief.is_some() && !knows {
        targets.refresh(&namespace, cluster);
    }
    let facts = targets.join_facts(&namespace, cluster);
    let token = facts.tokens.get(&name);
    if knows && token == Some(&TokenState::None) {
        return None;
    }
    let noted = pool.status.as_ref().and_then(|status| status.token_expires.as_ref()).map(|time| time.0);
    let expires = match token {
        Some(TokenState::Good(expires)) => Some(*expires),
        _ => noted,
    };
    // A target that answers says so soon; one that does not may hold a token only if there was one.
    if expires.is_none_or(|expires| expires <= now) && facts.nodes.is_none() {
        return None;
    }
    let why = match token {
        Some(TokenState::Failed(message)) => message.clone(),
        _ => format!("the target of ClusterSpec {cluster} has to answer for that"),
    };
    let end = expires.map_or(String::new(), |expires| format!(" (it ends by itself at {expires})"));
    Some(format!("its bootstrap token is being revoked{end}: {why}"))
}

/// Deletes the objects with the files of a machine, if they are the pool's.
pub(super) async fn delete_files(
    client: &Client,
    namespace: &str,
    cluster: &str,
    pool: &str,
    machine: &str,
) -> Result<(), Error> {
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    delete(&config_maps, cluster, pool, &worker_config_map(cluster, machine)).await?;
    let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(client.clone(), namespace);
    delete(&secrets, cluster, pool, &node_secret(cluster, machine)).await
}

async fn delete<K>(api: &Api<K>, cluster: &str, pool: &str, name: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let found = api.get_metadata_opt(name).await.map_err(Error::api(format!("reading {name}")))?;
    let Some(found) = found.filter(|found| is_of_pool(&found.metadata, cluster, pool)) else { return Ok(()) };
    // The very object that was seen, not one that somebody has put in its place meanwhile.
    let preconditions = Preconditions { uid: found.uid(), resource_version: found.resource_version() };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::api(format!("deleting {name}"))(error)),
    }
}

/// Sets or takes the finalizer.
pub(super) async fn set_finalizer(pool: &NodePool, held: bool, client: &Client) -> Result<(), Error> {
    let mut finalizers: Vec<_> =
        pool.finalizers().iter().filter(|other| *other != keys::NODEPOOL_FINALIZER).cloned().collect();
    if held {
        finalizers.push(keys::NODEPOOL_FINALIZER.to_owned());
    }
    // The list is replaced as a whole: the version makes sure that it is the one that was seen.
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": pool.metadata.resource_version}});
    let api: Api<NodePool> = Api::namespaced(client.clone(), &pool.namespace().unwrap_or_default());
    match api.patch(&pool.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::api("setting the finalizer")(error)),
    }
}
