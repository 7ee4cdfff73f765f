//! Looks at the management cluster: one GET for each object that a cluster should have, no LIST.

use std::collections::BTreeSet;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};

use super::Error;
use super::issued::IssuedKubeconfigs;
use crate::cluster::Cluster;
use crate::plan::{Observed, objects};

/// Gathers the cluster's Secrets and ConfigMaps, and the Secrets of others that it refers to.
pub(super) async fn gather(client: &Client, cluster: &Cluster, issued: &IssuedKubeconfigs) -> Result<Observed, Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &cluster.namespace);
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), &cluster.namespace);
    let names: BTreeSet<_> = objects::secret_names(cluster)
        .chain(objects::referenced_secret_names(cluster))
        .chain(issued.of(cluster))
        .collect();
    let secrets = try_join_all(names.into_iter().map(|name| {
        let secrets = secrets.clone();
        async move {
            let found = secrets.get_opt(&name).await.map_err(Error::api(format!("reading Secret {name}")))?;
            Ok::<_, Error>(found.map(|secret| (name, secret)))
        }
    }));
    let config_maps = try_join_all(objects::config_map_names(cluster).map(|name| {
        let config_maps = config_maps.clone();
        async move {
            let found = config_maps.get_opt(&name).await.map_err(Error::api(format!("reading ConfigMap {name}")))?;
            Ok::<_, Error>(found.map(|config_map| (name, config_map)))
        }
    }));
    let (secrets, config_maps) = futures::future::try_join(secrets, config_maps).await?;
    Ok(Observed {
        secrets: secrets.into_iter().flatten().collect(),
        config_maps: config_maps.into_iter().flatten().collect(),
        ..Observed::default()
    })
}
