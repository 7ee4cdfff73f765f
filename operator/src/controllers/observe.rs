//! Reads the state of a cluster from the management cluster: one GET for each desired object, no LIST.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use keyplane_crds::ClusterSpecStatus;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::{Context, Error};
use keyplane_core::certificate_authorities::is_revoking;
use keyplane_core::model::Cluster;
use keyplane_core::names;
use keyplane_core::observed::Observed;
use keyplane_core::pki::CaName;
use keyplane_core::plan::{departed, request_config_maps};
use keyplane_core::rotation::Subject;

/// Reads the cluster's Secrets and ConfigMaps, the leftover objects of removed nodes, and the referenced user-provided
/// Secrets.
pub(super) async fn gather(context: &Context, cluster: &Cluster, status: ClusterSpecStatus) -> Result<Observed, Error> {
    let (client, issued) = (&context.client, &context.issued_kubeconfigs);
    let departed = departed(cluster, &status);
    let departed_config_maps = departed.iter().map(|node| names::node_config_map(&cluster.name, node));
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &cluster.namespace);
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), &cluster.namespace);
    let names: BTreeSet<_> = names::secret_names(cluster)
        .chain(names::referenced_secret_names(cluster))
        .chain(issued.of(cluster))
        .chain(departed.iter().flat_map(|node| names::departed_secret_names(cluster, node)))
        .collect();
    let config_map_names: BTreeSet<_> = names::config_map_names(cluster).chain(departed_config_maps).collect();
    let read_both = futures::future::try_join(read(&secrets, names), read(&config_maps, config_map_names));
    let (found_secrets, mut found_config_maps) = read_both.await?;
    // The keys that wait for certificates determine the names of the published requests.
    let requests = request_config_maps(cluster, departed.iter().map(String::as_str), &found_secrets);
    found_config_maps.extend(read(&config_maps, requests.into_iter().collect()).await?);
    // Before the caches are synced, the cluster would seem to have no agents.
    context.agents.known(cluster).await;
    let mut observed = Observed {
        agents: context.agents.facts(cluster),
        workers: context.agents.workers(cluster),
        secrets: found_secrets,
        config_maps: found_config_maps,
        status,
        ..Observed::default()
    };
    // Worker nodes have a Secret only during a revocation.
    if is_revoking(cluster, &observed, Subject::CertificateAuthority(CaName::Cluster)) {
        let names = observed.workers.keys().map(|node| names::node_secret(&cluster.name, node));
        let missing: BTreeSet<_> = names.filter(|name| !observed.secrets.contains_key(name)).collect();
        observed.secrets.extend(read(&secrets, missing).await?);
    }
    Ok(observed)
}

/// Reads the existing objects, by name.
async fn read<K>(api: &Api<K>, names: BTreeSet<String>) -> Result<BTreeMap<String, K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let read = try_join_all(names.into_iter().map(async |name| {
        let found = api.get_opt(&name).await.map_err(Error::api(format!("reading {} {name}", K::kind(&()))))?;
        Ok::<_, Error>(found.map(|object| (name, object)))
    }));
    Ok(read.await?.into_iter().flatten().collect())
}
