//! Looks at the management cluster: one GET for each object that a cluster should have, no LIST.

use std::collections::BTreeSet;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use keyplane_crds::ClusterSpecStatus;
use kube::Api;

use super::{Context, Error};
use crate::cluster::Cluster;
use crate::pki::inventory::AuthorityName;
use crate::plan::{Observed, departed, is_revoking, objects};
use crate::rotation::Subject;

/// Gathers the cluster's Secrets and ConfigMaps, what is left of nodes that have gone, and the Secrets of others that it
/// refers to.
pub(super) async fn gather(context: &Context, cluster: &Cluster, status: ClusterSpecStatus) -> Result<Observed, Error> {
    let (client, issued) = (&context.client, &context.issued_kubeconfigs);
    let departed = departed(cluster, &status);
    let departed_config_maps = departed.iter().map(|node| objects::node_config_map(&cluster.name, node));
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &cluster.namespace);
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), &cluster.namespace);
    let names: BTreeSet<_> = objects::secret_names(cluster)
        .chain(objects::referenced_secret_names(cluster))
        .chain(issued.of(cluster))
        .chain(departed.iter().map(|node| objects::node_secret(&cluster.name, node)))
        .collect();
    let config_maps = try_join_all(objects::config_map_names(cluster).chain(departed_config_maps).map(|name| {
        let config_maps = config_maps.clone();
        async move {
            let found = config_maps.get_opt(&name).await.map_err(Error::api(format!("reading ConfigMap {name}")))?;
            Ok::<_, Error>(found.map(|config_map| (name, config_map)))
        }
    }));
    let (found, config_maps) = futures::future::try_join(read(&secrets, names), config_maps).await?;
    // Agents that are not known yet would seem to be none.
    context.agents.known(cluster).await;
    let mut observed = Observed {
        agents: context.agents.facts(cluster),
        workers: context.agents.workers(cluster),
        secrets: found.into_iter().collect(),
        config_maps: config_maps.into_iter().flatten().collect(),
        status,
        ..Observed::default()
    };
    // Workers have one only then.
    if is_revoking(cluster, &observed, Subject::Authority(AuthorityName::Cluster)) {
        let names = observed.workers.keys().map(|node| objects::node_secret(&cluster.name, node));
        let missing: BTreeSet<_> = names.filter(|name| !observed.secrets.contains_key(name)).collect();
        observed.secrets.extend(read(&secrets, missing).await?);
    }
    Ok(observed)
}

async fn read(secrets: &Api<Secret>, names: BTreeSet<String>) -> Result<Vec<(String, Secret)>, Error> {
    let read = try_join_all(names.into_iter().map(async |name| {
        let found = secrets.get_opt(&name).await.map_err(Error::api(format!("reading Secret {name}")))?;
        Ok::<_, Error>(found.map(|secret| (name, secret)))
    }));
    Ok(read.await?.into_iter().flatten().collect())
}
