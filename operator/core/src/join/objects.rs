//! The objects of a pool in the management cluster.

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
use crate::objects::trust_checksum;
use crate::objects::{IndexEntry, config_map, index, is_ours, secret, to_write};

/// The type of a Secret with join data, as Cluster API has it.
const BOOTSTRAP_SECRET_TYPE: &str = "cluster.x-k8s.io/secret";

/// The ConfigMap of a machine.
#[must_use]
pub fn worker_config_map(cluster: &str, machine: &str) -> String {
    node_config_map(cluster, machine)
}

/// The Secret with the join data of a pool.
#[must_use]
pub fn bootstrap_secret(cluster: &str, pool: &str) -> String {
    format!("{cluster}-{pool}-bootstrap")
}

/// All files of a declared machine that aren't secret. `ranges` are those of the Nodes' Pods as far as they are known,
/// `before` is what the ConfigMap held.
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
    if let Some(node) = cluster.machines().find(|node| node.name == machine.name) {
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

/// The join data of a pool.
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

/// Whether an object is Keyplane's, for this pool of this cluster.
#[must_use]
pub fn is_of_pool(metadata: &ObjectMeta, cluster: &str, pool: &str) -> bool {
    is_ours(metadata, cluster, (keys::NODE_POOL_LABEL, pool))
}

/// The Secret to write over what was found; nothing if that is as it should be.
#[must_use]
pub fn secret_to_write(found: Option<&Secret>, mut wanted: Secret) -> Option<Secret> {
    if let Some(found) = found {
        // A Secret's type can't be changed.
        wanted.type_.clone_from(&found.type_);
    }
    to_write(found, wanted, |found, wanted| found.data == wanted.data)
}
