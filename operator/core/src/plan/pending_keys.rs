//! Private keys that wait for certificates of an external signer. Each key is stored with its CSR in a Secret of the
//! node or of the cluster. A ConfigMap publishes each CSR.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret as SecretObject};
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{KeyAlgorithm, keys};
use kube::ResourceExt;

use crate::external_signer::request::REQUEST_KEY;
use crate::model::Cluster;
use crate::observed::{Observed, Slot};
use crate::pki::{CaName, CertificateTemplate};
use crate::{names, objects};

/// A key to generate, and the template of its CSR.
#[derive(Debug)]
pub struct KeyRequest {
    /// The id of the key in its Secret.
    pub id: String,
    /// The template of the CSR.
    pub order: CertificateTemplate,
    /// The key algorithm.
    pub algorithm: KeyAlgorithm,
    /// The time of the request.
    pub since: Timestamp,
}

/// A key that waits for its certificate.
pub(crate) struct PendingKey {
    pub(crate) key: String,
    pub(crate) request: String,
    pub(crate) since: Timestamp,
}

const KEY: &str = ".key";
const REQUEST: &str = ".csr";
const SINCE: &str = ".since";

pub(crate) fn pending_keys(secret: &SecretObject) -> BTreeMap<String, PendingKey> {
    let ids = secret.data.iter().flatten().filter_map(|(key, _)| key.strip_suffix(KEY));
    let pending = |id: &str| {
        let text = |ending: &str| objects::text(secret, &format!("{id}{ending}")).map(str::to_owned);
        let since = text(SINCE)?.parse().ok()?;
        Some(PendingKey { key: text(KEY)?, request: text(REQUEST)?, since })
    };
    // An unreadable key still exists, and is replaced.
    let unreadable = || PendingKey { key: String::new(), request: String::new(), since: Timestamp::UNIX_EPOCH };
    ids.map(|id| (id.to_owned(), pending(id).unwrap_or_else(unreadable))).collect()
}

/// Returns the names of the ConfigMaps that publish the CSRs of the cluster, of its nodes and of departed nodes. The
/// names follow from the Secrets with the keys.
pub fn request_config_maps<'a>(
    cluster: &'a Cluster,
    departed: impl Iterator<Item = &'a str>,
    secrets: &BTreeMap<String, SecretObject>,
) -> Vec<String> {
    let nodes = cluster.all_nodes().map(|node| node.name.as_str()).chain(departed);
    nodes.map(Some).chain([None]).flat_map(|node| published(cluster, node, secrets)).collect()
}

/// Returns the names of the ConfigMaps of a node, or of the cluster.
pub(crate) fn published(
    cluster: &Cluster,
    node: Option<&str>,
    secrets: &BTreeMap<String, SecretObject>,
) -> Vec<String> {
    let secret = secrets.get(&names::requests_secret(&cluster.name, node));
    let ids = secret.map(pending_keys).unwrap_or_default().into_keys();
    ids.map(|id| names::request_config_map(&cluster.name, node, &id)).collect()
}

/// Composes the Secret with the pending keys: adds the requested ones and removes the dropped ones. `make` generates a
/// key and its CSR, both as PEM.
///
/// # Errors
/// Returns the error of `make`.
pub fn compose<E>(
    cluster: &Cluster,
    name: &str,
    found: Option<&SecretObject>,
    new_keys: Vec<KeyRequest>,
    dropped: &[String],
    make: impl Fn(&CertificateTemplate, KeyAlgorithm) -> Result<(String, String), E>,
) -> Result<SecretObject, E> {
    let mut keys = found.map(pending_keys).unwrap_or_default();
    keys.retain(|id, _| !dropped.contains(id));
    for KeyRequest { id, order, algorithm, since } in new_keys {
        let (key, request) = make(&order, algorithm)?;
        keys.insert(id, PendingKey { key, request, since });
    }
    let data = keys.into_iter().flat_map(|(id, PendingKey { key, request, since })| {
        [(KEY, key), (REQUEST, request), (SINCE, since.to_string())]
            .map(|(ending, value)| (format!("{id}{ending}"), value))
    });
    Ok(objects::secret(cluster, name.to_owned(), None, "Opaque", data.collect(), []))
}

/// Composes the ConfigMap that publishes a CSR. Data of the signer for the same CSR is kept.
pub(crate) fn publish(
    cluster: &Cluster,
    name: &str,
    ca: CaName,
    ours: BTreeMap<String, String>,
    since: Timestamp,
    observed: &Observed,
) -> ConfigMap {
    let found = match observed.config_map(&cluster.name, name) {
        Slot::Ours(found) => found.data.as_ref().filter(|data| data.get(REQUEST_KEY) == ours.get(REQUEST_KEY)),
        Slot::Free | Slot::Foreign(_) => None,
    };
    let signers: Vec<_> = found.into_iter().flatten().filter(|(key, _)| !ours.contains_key(*key)).collect();
    let signers: BTreeMap<_, _> = signers.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut config_map = objects::config_map(cluster, name.to_owned(), None, ours);
    config_map.data.get_or_insert_default().extend(signers);
    config_map.labels_mut().insert(keys::SIGNING_REQUEST_LABEL.to_owned(), ca.name().to_owned());
    config_map.annotations_mut().insert(keys::REQUESTED_AT_ANNOTATION.to_owned(), since.to_string());
    config_map
}
