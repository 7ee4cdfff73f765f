//! The objects of a NodePool in the management cluster.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::keys;

use super::files::worker_files;
use super::pool::{Machine, Pool};
use super::token::Token;
use super::{AgentFiles, bootstrap_data};
use crate::manifests::systemd::{self, PodRanges};
use crate::model::Cluster;
use crate::names::{INDEX_KEY, node_config_map};
use crate::objects::{IndexEntry, config_map, index, is_ours, secret, to_write, trust_checksum};

/// The type of a Secret with join data, the same as in Cluster API.
const BOOTSTRAP_SECRET_TYPE: &str = "cluster.x-k8s.io/secret";

/// The name of the ConfigMap of a worker node.
#[must_use]
pub fn worker_config_map(cluster: &str, machine: &str) -> String {
    node_config_map(cluster, machine)
}

/// The name of the Secret with the join data of a pool.
#[must_use]
pub fn bootstrap_secret(cluster: &str, pool: &str) -> String {
    format!("{cluster}-{pool}-bootstrap")
}

/// Renders the ConfigMap with all non-secret files of a listed node. `ranges` are the known Pod CIDRs of the Nodes,
/// `before` is the current data of the ConfigMap.
#[must_use]
pub fn worker_config(
    cluster: &Cluster,
    pool: &Pool,
    machine: &Machine,
    trust: &str,
    ranges: Option<&PodRanges>,
    before: Option<&BTreeMap<String, String>>,
) -> ConfigMap {
    let mut files = worker_files(cluster, pool, machine, trust);
    if let Some(node) = cluster.all_nodes().find(|node| node.name == machine.name) {
        files.extend(systemd::pod_network(cluster, node, ranges, before));
    }
    let entries: Vec<_> = files.iter().map(|file| IndexEntry::new(&file.key, &file.path, file.mode)).collect();
    let mut data = BTreeMap::from([(INDEX_KEY.to_owned(), index(&entries))]);
    data.extend(files.into_iter().map(|file| (file.key.into_owned(), file.content)));
    let mut object = config_map(cluster, worker_config_map(&cluster.name, &machine.name), None, data);
    let labels = object.metadata.labels.get_or_insert_default();
    labels.insert(keys::NODE_LABEL.to_owned(), machine.name.clone());
    labels.insert(keys::NODE_POOL_LABEL.to_owned(), pool.name.clone());
    let annotations = object.metadata.annotations.get_or_insert_default();
    annotations.insert(keys::TRUST_CHECKSUM_ANNOTATION.to_owned(), trust_checksum(trust));
    object
}

/// Renders the Secret with the join data of a pool.
#[must_use]
pub fn bootstrap(
    cluster: &Cluster,
    pool: &Pool,
    trust: &str,
    token: &Token,
    expires: Timestamp,
    agents: &[AgentFiles],
) -> Secret {
    let data = BTreeMap::from([
        ("value".to_owned(), bootstrap_data(cluster, pool, trust, token, agents)),
        ("format".to_owned(), pool.bootstrap.format.name().to_owned()),
    ]);
    let name = bootstrap_secret(&cluster.name, &pool.name);
    let annotations = [(keys::TOKEN_EXPIRES_ANNOTATION, expires.to_string())];
    let mut object = secret(cluster, name, None, BOOTSTRAP_SECRET_TYPE, data, annotations);
    object.metadata.labels.get_or_insert_default().insert(keys::NODE_POOL_LABEL.to_owned(), pool.name.clone());
    object
}

/// Returns whether Keyplane manages the object for this pool of this cluster.
#[must_use]
pub fn is_of_pool(metadata: &ObjectMeta, cluster: &str, pool: &str) -> bool {
    is_ours(metadata, cluster, (keys::NODE_POOL_LABEL, pool))
}

/// Returns the Secret to write, or `None` if the found Secret is up to date.
#[must_use]
pub fn secret_to_write(found: Option<&Secret>, mut desired: Secret) -> Option<Secret> {
    if let Some(found) = found {
        // The type of a Secret is immutable.
        desired.type_.clone_from(&found.type_);
    }
    to_write(found, desired, |found, desired| found.data == desired.data)
}
