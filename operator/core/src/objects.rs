//! Builds, compares and updates objects in the management cluster.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keyplane_crds::CLUSTER_API_LABEL;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use crate::checksum::checksum;
use crate::model::{Cluster, Node};
use crate::names::{MANAGED_BY, MANAGED_BY_LABEL};
use keyplane_crds::keys;

/// Returns whether the Secret of a CA is annotated as an external CA and has no key.
#[must_use]
pub fn is_external_ca(secret: &Secret) -> bool {
    secret.annotations().get(keys::EXTERNAL_CA_ANNOTATION).is_some_and(|value| value == "true")
        && text(secret, "tls.key").is_none()
}

/// A file in the `index.json` of an object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IndexEntry {
    /// The key in the object.
    pub key: String,
    /// The path on the node.
    pub path: String,
    /// The file mode in octal.
    pub mode: String,
    /// The user and group.
    pub owner: String,
}

impl IndexEntry {
    /// The entry of a file of root.
    #[must_use]
    pub fn new(key: &str, path: &str, mode: u32) -> Self {
        let (key, path) = (key.to_owned(), path.to_owned());
        Self { key, path, mode: format!("{mode:04o}"), owner: "root:root".to_owned() }
    }
}

/// Renders a file index as text, with one entry per line for readability.
#[must_use]
pub fn index(entries: &[IndexEntry]) -> String {
    let lines: Vec<_> = entries.iter().map(|entry| serde_json::to_string(entry).unwrap_or_default()).collect();
    format!("[\n  {}\n]\n", lines.join(",\n  "))
}

/// Returns a ConfigMap with the data.
#[must_use]
pub fn config_map(cluster: &Cluster, name: String, node: Option<&Node>, data: BTreeMap<String, String>) -> ConfigMap {
    let checksum = checksum(data.iter().map(|(key, value)| (key.as_str(), value.as_bytes())));
    ConfigMap {
        metadata: metadata(cluster, name, node, [(keys::CONTENT_CHECKSUM_ANNOTATION, checksum)]),
        data: Some(data),
        ..ConfigMap::default()
    }
}

/// Returns a Secret with the data.
#[must_use]
pub fn secret<const N: usize>(
    cluster: &Cluster,
    name: String,
    node: Option<&Node>,
    type_: &str,
    data: BTreeMap<String, String>,
    annotations: [(&'static str, String); N],
) -> Secret {
    let checksum = checksum(data.iter().map(|(key, value)| (key.as_str(), value.as_bytes())));
    let mut metadata = metadata(cluster, name, node, [(keys::CONTENT_CHECKSUM_ANNOTATION, checksum)]);
    let more = annotations.into_iter().map(|(key, value)| (key.to_owned(), value));
    metadata.annotations.get_or_insert_default().extend(more);
    Secret {
        metadata,
        type_: Some(type_.to_owned()),
        data: Some(data.into_iter().map(|(key, value)| (key, ByteString(value.into_bytes()))).collect()),
        ..Secret::default()
    }
}

fn metadata<const N: usize>(
    cluster: &Cluster,
    name: String,
    node: Option<&Node>,
    annotations: [(&'static str, String); N],
) -> ObjectMeta {
    let mut labels = BTreeMap::from([
        (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
        (keys::CLUSTER_LABEL.to_owned(), cluster.name.clone()),
        (CLUSTER_API_LABEL.to_owned(), cluster.name.clone()),
    ]);
    if let Some(node) = node {
        labels.insert(keys::NODE_LABEL.to_owned(), node.name.clone());
    }
    ObjectMeta {
        name: Some(name),
        namespace: Some(cluster.namespace.clone()),
        labels: Some(labels),
        annotations: Some(annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ..ObjectMeta::default()
    }
}

/// Returns whether an object has all desired labels and annotations. Other clients may add labels and annotations, but
/// not data.
#[must_use]
pub fn has_metadata(found: &ObjectMeta, wanted: &ObjectMeta) -> bool {
    let contains = |found: &Option<BTreeMap<String, String>>, wanted: &Option<BTreeMap<String, String>>| {
        wanted.iter().flatten().all(|(key, value)| found.as_ref().and_then(|map| map.get(key)) == Some(value))
    };
    contains(&found.labels, &wanted.labels) && contains(&found.annotations, &wanted.annotations)
}

/// Returns the metadata for an update. Labels and annotations of other clients stay. The update replaces exactly the
/// observed resource version.
#[must_use]
pub fn merged_metadata(found: Option<&ObjectMeta>, wanted: ObjectMeta) -> ObjectMeta {
    let Some(found) = found else { return wanted };
    let merged = |found: &Option<BTreeMap<String, String>>, wanted: Option<BTreeMap<String, String>>| {
        let mut merged = found.clone().unwrap_or_default();
        merged.extend(wanted.unwrap_or_default());
        Some(merged)
    };
    ObjectMeta {
        labels: merged(&found.labels, wanted.labels),
        annotations: merged(&found.annotations, wanted.annotations),
        resource_version: found.resource_version.clone(),
        uid: found.uid.clone(),
        finalizers: found.finalizers.clone(),
        owner_references: found.owner_references.clone(),
        ..wanted
    }
}

/// Returns whether Keyplane manages an object for this cluster and the object has one further label.
#[must_use]
pub fn is_ours(found: &ObjectMeta, cluster: &str, (label, value): (&str, &str)) -> bool {
    let labels = [(MANAGED_BY_LABEL, MANAGED_BY), (keys::CLUSTER_LABEL, cluster), (label, value)];
    let found = |label: &str| found.labels.as_ref().and_then(|labels| labels.get(label));
    labels.into_iter().all(|(label, value)| found(label).is_some_and(|found| found == value))
}

/// Returns the object to write, or `None` if the observed object already matches. `same` compares all fields but
/// metadata.
#[must_use]
pub fn to_write<K: kube::Resource>(found: Option<&K>, mut wanted: K, same: impl Fn(&K, &K) -> bool) -> Option<K> {
    let Some(found) = found else { return Some(wanted) };
    if same(found, &wanted) && has_metadata(found.meta(), wanted.meta()) {
        return None;
    }
    let metadata = std::mem::take(wanted.meta_mut());
    *wanted.meta_mut() = merged_metadata(Some(found.meta()), metadata);
    Some(wanted)
}

/// Returns the ConfigMap to write, or `None` if the observed ConfigMap already matches.
#[must_use]
pub fn config_map_to_write(found: Option<&ConfigMap>, wanted: ConfigMap) -> Option<ConfigMap> {
    to_write(found, wanted, |found, wanted| {
        found.data == wanted.data && found.binary_data.as_ref().is_none_or(BTreeMap::is_empty)
    })
}

/// Returns `tls.crt` and `tls.key` of the Secret of a CA or of the service-account keys.
///
/// # Errors
/// If one of them is missing.
pub fn key_pair(secret: &Secret) -> Result<(&str, &str), String> {
    let texts = text(secret, "tls.crt").zip(text(secret, "tls.key"));
    texts.ok_or_else(|| "the Secret lacks tls.crt or tls.key".to_owned())
}

/// Returns a UTF-8 value of a Secret.
#[must_use]
pub fn text<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    std::str::from_utf8(&secret.data.as_ref()?.get(key)?.0).ok()
}

/// Returns the checksum of a trust bundle.
#[must_use]
pub fn trust_checksum(bundle: &str) -> String {
    checksum([("ca.crt", bundle.as_bytes())].into_iter())
}
