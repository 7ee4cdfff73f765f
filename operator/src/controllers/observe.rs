//! Looks at the management cluster: one GET for each object that a cluster should have, no LIST.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use keyplane_crds::ClusterSpecStatus;
use kube::Api;

use super::{Context, Error};
use crate::cluster::Cluster;
use crate::plan::{Observed, departed, objects, request_config_maps};

/// Gathers the cluster's Secrets and ConfigMaps, what is left of nodes that have gone, and the Secrets of others that it
/// refers to.
pub(super) async fn gather(context: &Context, cluster: &Cluster, status: ClusterSpecStatus) -> Result<Observed, Error> {
    let (client, issued) = (&context.client, &context.issued_kubeconfigs);
    let departed = departed(cluster, &status);
    let departed_config_maps = departed.iter().map(|node| objects::node_config_map(&cluster.name, node));
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &cluster.namespace);
    let config_maps_api: Api<ConfigMap> = Api::namespaced(client.clone(), &cluster.namespace);
    let names: BTreeSet<_> = objects::secret_names(cluster)
        .chain(objects::referenced_secret_names(cluster))
        .chain(issued.of(cluster))
        .chain(departed.iter().flat_map(|node| objects::departed_secret_names(cluster, node)))
        .collect();
    let secrets = try_join_all(names.into_iter().map(|name| {
        let secrets = secrets.clone();
        async move {
            let found = secrets.get_opt(&name).await.map_err(Error::api(format!("reading Secret {name}")))?;
            Ok::<_, Error>(found.map(|secret| (name, secret)))
        }
    }));
    let names = objects::config_map_names(cluster).chain(departed_config_maps);
    let config_maps = try_join_all(names.map(|name| read(&config_maps_api, name)));
    let (secrets, config_maps) = futures::future::try_join(secrets, config_maps).await?;
    let secrets: BTreeMap<_, _> = secrets.into_iter().flatten().collect();
    // The keys that wait for certificates tell which requests are published.
    let requests = request_config_maps(cluster, departed.iter().map(String::as_str), &secrets);
    let requests = try_join_all(requests.into_iter().map(|name| read(&config_maps_api, name))).await?;
    // Agents that are not known yet would seem to be none.
    context.agents.known(cluster).await;
    Ok(Observed {
        agents: context.agents.facts(cluster),
        workers: context.agents.workers(cluster),
        secrets,
        config_maps: config_maps.into_iter().chain(requests).flatten().collect(),
        status,
        ..Observed::default()
    })
}

/// A ConfigMap with its name, if it is there.
async fn read(config_maps: &Api<ConfigMap>, name: String) -> Result<Option<(String, ConfigMap)>, Error> {
    let found = config_maps.get_opt(&name).await.map_err(Error::api(format!("reading ConfigMap {name}")))?;
    Ok(found.map(|config_map| (name, config_map)))
}
