//! The keys that wait for certificates, each with its request, in a Secret of a machine or of the cluster; and the ConfigMaps
//! that publish the requests.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret as SecretObject};
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{KeyAlgorithm, keys};
use kube::ResourceExt;

use crate::external_signer::request::REQUEST_KEY;
use crate::model::Cluster;
use crate::names;
use crate::objects;
use crate::observed::Observed;
use crate::observed::Slot;
use crate::pki::AuthorityName;
use crate::pki::CertificateOrder;

/// A key to be made, and what is to be asked for with it.
#[derive(Debug)]
pub struct Ask {
    /// By which it is known in its Secret.
    pub id: String,
    /// What is asked for.
    pub order: CertificateOrder,
    /// Its key.
    pub algorithm: KeyAlgorithm,
    /// Since when.
    pub since: Timestamp,
}

/// A key that waits for its certificate.
pub(super) struct PendingKey {
    pub(super) key: String,
    pub(super) request: String,
    pub(super) since: Timestamp,
}

const KEY: &str = ".key";
const REQUEST: &str = ".csr";
const SINCE: &str = ".since";

pub(super) fn pending_keys(secret: &SecretObject) -> BTreeMap<String, PendingKey> {
    let ids = secret.data.iter().flatten().filter_map(|(key, _)| key.strip_suffix(KEY));
    let pending = |id: &str| {
        let text = |ending: &str| objects::text(secret, &format!("{id}{ending}")).map(str::to_owned);
        let since = text(SINCE)?.parse().ok()?;
        Some(PendingKey { key: text(KEY)?, request: text(REQUEST)?, since })
    };
    // One that can't be read is there all the same, and is replaced.
    let unreadable = || PendingKey { key: String::new(), request: String::new(), since: Timestamp::UNIX_EPOCH };
    ids.map(|id| (id.to_owned(), pending(id).unwrap_or_else(unreadable))).collect()
}

/// The names of the ConfigMaps that publish the requests of the cluster's machines, of those that have departed, and of the
/// cluster, as the Secrets with their keys tell.
pub fn request_config_maps<'a>(
    cluster: &'a Cluster,
    departed: impl Iterator<Item = &'a str>,
    secrets: &BTreeMap<String, SecretObject>,
) -> Vec<String> {
    let nodes = cluster.machines().map(|node| node.name.as_str()).chain(departed);
    nodes.map(Some).chain([None]).flat_map(|node| published(cluster, node, secrets)).collect()
}

/// Those of a machine, or of the cluster.
pub(super) fn published(
    cluster: &Cluster,
    node: Option<&str>,
    secrets: &BTreeMap<String, SecretObject>,
) -> Vec<String> {
    let secret = secrets.get(&names::requests_secret(&cluster.name, node));
    let ids = secret.map(pending_keys).unwrap_or_default().into_keys();
    ids.map(|id| names::request_config_map(&cluster.name, node, &id)).collect()
}

/// The Secret with the keys that wait, with those that are asked for and without those that are dropped. `make` makes a key
/// and the request with it, both as PEM.
///
/// # Errors
/// If `make` fails.
pub fn compose<E>(
    cluster: &Cluster,
    name: &str,
    found: Option<&SecretObject>,
    asked: Vec<Ask>,
    dropped: &[String],
    make: impl Fn(&CertificateOrder, KeyAlgorithm) -> Result<(String, String), E>,
) -> Result<SecretObject, E> {
    let mut keys = found.map(pending_keys).unwrap_or_default();
    keys.retain(|id, _| !dropped.contains(id));
    for Ask { id, order, algorithm, since } in asked {
        let (key, request) = make(&order, algorithm)?;
        keys.insert(id, PendingKey { key, request, since });
    }
    let data = keys.into_iter().flat_map(|(id, PendingKey { key, request, since })| {
        [(KEY, key), (REQUEST, request), (SINCE, since.to_string())]
            .map(|(ending, value)| (format!("{id}{ending}"), value))
    });
    Ok(objects::secret(cluster, name.to_owned(), None, "Opaque", data.collect(), []))
}

/// The ConfigMap with a request.
pub(super) fn publish(
    cluster: &Cluster,
    name: &str,
    authority: AuthorityName,
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
    config_map.labels_mut().insert(keys::SIGNING_REQUEST_LABEL.to_owned(), authority.name().to_owned());
    config_map.annotations_mut().insert(keys::REQUESTED_AT_ANNOTATION.to_owned(), since.to_string());
    config_map
}
