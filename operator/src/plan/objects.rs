//! Names, labels and shapes of the objects in the management cluster.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keyplane_crds::{CLUSTER_API_LABEL, CLUSTER_LABEL, NODE_LABEL};
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use super::observed::Slot;
use super::{Authorities, Observed, Plan, Step, initial_cluster, kubelet_turns};
use crate::agents::RESTART_TURN_ANNOTATION;
pub(crate) use crate::checksum::checksum;
use crate::cluster::{Cluster, Node};
use crate::manifests::{self, systemd};
use crate::pki::inventory::AuthorityName;
use crate::rollout::Rollout;
use crate::rotation::reload::ETCD_MARK;

/// Tells who keeps an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Keyplane does.
pub const MANAGED_BY: &str = "keyplane";
/// The type of the Secrets of Cluster API's contract.
pub const CLUSTER_API_SECRET_TYPE: &str = "cluster.x-k8s.io/secret";
/// Annotation: the earliest end of a certificate in the object (RFC 3339).
pub const NOT_AFTER_ANNOTATION: &str = "keyplane.io/not-after";
/// Annotation: the SHA-256 of the authorities that signed what is in the object.
pub const ISSUER_CHECKSUM_ANNOTATION: &str = "keyplane.io/issuer-checksum";
/// Annotation: the SHA-256 of the object's data.
pub const CONTENT_CHECKSUM_ANNOTATION: &str = "keyplane.io/content-checksum";
/// Annotation on a Secret: the stage of a rotation, or `Completed`.
pub const ROTATION_STAGE_ANNOTATION: &str = "keyplane.io/rotation-stage";
/// Annotation on an authority's Secret without a key: its owner signs outside. Without it a key that is not there is lost.
pub const SIGNED_OUTSIDE_ANNOTATION: &str = "keyplane.io/signed-outside";
/// The key under which an object lists its files.
pub const INDEX_KEY: &str = "index.json";

/// The key of the kubeadm configuration in a node's ConfigMap. It is for people and tools: kubeadm keeps it in the
/// target, not on a machine, so the index has no path for it.
pub const KUBEADM_CONFIG_KEY: &str = "kubeadm-config.yaml";

/// The Secret of an authority.
#[must_use]
pub fn authority_secret(cluster: &str, authority: AuthorityName) -> String {
    format!("{cluster}-{}", authority.secret_suffix())
}

/// The Secret of the service-account pair.
#[must_use]
pub fn service_account_secret(cluster: &str) -> String {
    format!("{cluster}-sa")
}

/// The Secret of the keys with which objects are encrypted.
#[must_use]
pub fn encryption_secret(cluster: &str) -> String {
    format!("{cluster}-encryption")
}

/// The Secret of the cluster's own kubeconfig.
#[must_use]
pub fn kubeconfig_secret(cluster: &str) -> String {
    format!("{cluster}-kubeconfig")
}

/// The Secret of a user's kubeconfig.
#[must_use]
pub fn user_secret(cluster: &str, user: &str) -> String {
    format!("{cluster}-user-{user}-kubeconfig")
}

/// The Secret of a node.
#[must_use]
pub fn node_secret(cluster: &str, node: &str) -> String {
    format!("{cluster}-{node}-pki")
}

/// The Secret of the keys of a node, or of the cluster, that wait for certificates.
#[must_use]
pub fn requests_secret(cluster: &str, node: Option<&str>) -> String {
    match node {
        Some(node) => format!("{cluster}-{node}-requests"),
        None => format!("{cluster}-requests"),
    }
}

/// The ConfigMap that asks for a certificate of a node, or of the cluster.
#[must_use]
pub fn request_config_map(cluster: &str, node: Option<&str>, id: &str) -> String {
    match node {
        Some(node) => format!("{cluster}-{node}-{id}-csr"),
        None => format!("{cluster}-{id}-csr"),
    }
}

/// The Secret of Keyplane's own certificates for a target whose authorities sign outside.
#[must_use]
pub fn own_secret(cluster: &str) -> String {
    format!("{cluster}-keyplane")
}

/// Whether an authority's Secret says that its owner signs outside.
#[must_use]
pub fn is_signed_outside(secret: &Secret) -> bool {
    secret.annotations().get(SIGNED_OUTSIDE_ANNOTATION).is_some_and(|value| value == "true")
        && text(secret, "tls.key").is_none()
}

/// The ConfigMap of a node.
#[must_use]
pub fn node_config_map(cluster: &str, node: &str) -> String {
    format!("{cluster}-{node}-config")
}

/// The ConfigMap of the trust bundle.
#[must_use]
pub fn trust_bundle_config_map(cluster: &str) -> String {
    format!("{cluster}-ca-bundle")
}

/// The name of every Secret that belongs to the cluster.
pub fn secret_names(cluster: &Cluster) -> impl Iterator<Item = String> {
    AuthorityName::of(cluster)
        .map(|authority| authority_secret(&cluster.name, authority))
        .chain([service_account_secret(&cluster.name), kubeconfig_secret(&cluster.name)])
        // There may be keys of a cluster that no longer encrypts anything.
        .chain([encryption_secret(&cluster.name)])
        .chain(cluster.machines().map(|node| node_secret(&cluster.name, &node.name)))
        .chain(cluster.users.iter().map(|user| user_secret(&cluster.name, &user.name)))
        .chain(signing_secret_names(cluster))
}

/// The names of the Secrets of a control-plane node that has departed.
pub fn departed_secret_names(cluster: &Cluster, node: &str) -> impl Iterator<Item = String> {
    let requests = cluster.spec.certificate_authorities.is_some().then(|| requests_secret(&cluster.name, Some(node)));
    // The node is remembered for as long as the other one is there.
    requests.into_iter().chain([node_secret(&cluster.name, node)])
}

/// The names of the Secrets that there are only where authorities sign outside, which only given ones do.
fn signing_secret_names(cluster: &Cluster) -> impl Iterator<Item = String> {
    let is_given = cluster.spec.certificate_authorities.is_some();
    let nodes = cluster.machines().map(|node| requests_secret(&cluster.name, Some(&node.name)));
    let names = nodes.chain([requests_secret(&cluster.name, None), own_secret(&cluster.name)]);
    names.filter(move |_| is_given)
}

/// The Secrets of others that the ClusterSpec refers to.
pub fn referenced_secret_names(cluster: &Cluster) -> impl Iterator<Item = String> {
    let webhook = cluster.spec.audit.as_ref().and_then(|audit| audit.webhook.as_ref());
    let webhook = webhook.map(|webhook| webhook.secret_ref.name.clone());
    let authorities = AuthorityName::of(cluster).filter_map(|name| cluster.given_authority(name).map(str::to_owned));
    let external = cluster.external_etcd().map(|external| external.secret_ref.name.clone());
    webhook.into_iter().chain(external).chain(authorities)
}

/// The name of every ConfigMap that belongs to the cluster.
pub fn config_map_names(cluster: &Cluster) -> impl Iterator<Item = String> {
    std::iter::once(trust_bundle_config_map(&cluster.name))
        .chain(cluster.nodes.iter().map(|node| node_config_map(&cluster.name, &node.name)))
}

/// A file in an object's `index.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Its key in the object.
    pub key: String,
    /// Its path on the machine.
    pub path: String,
    /// Its mode, octal.
    pub mode: String,
    /// Its user and group.
    pub owner: String,
}

impl IndexEntry {
    pub(crate) fn new(key: &str, path: &str, mode: u32) -> Self {
        let (key, path) = (key.to_owned(), path.to_owned());
        Self { key, path, mode: format!("{mode:04o}"), owner: "root:root".to_owned() }
    }
}

/// An index as text: one entry a line, for people who read it.
pub(crate) fn index(entries: &[IndexEntry]) -> String {
    let lines: Vec<_> = entries.iter().map(|entry| serde_json::to_string(entry).unwrap_or_default()).collect();
    format!("[\n  {}\n]\n", lines.join(",\n  "))
}

/// The trust bundle: the certificates that sign for the cluster's API. The roots above them are beside it and not in it:
/// whoever has another authority below a root would be one of the cluster's.
pub(super) fn trust_bundle(cluster: &Cluster, authorities: &Authorities) -> ConfigMap {
    let roots = authorities.cluster().roots().map(|roots| ("root.crt".to_owned(), roots));
    let data = std::iter::once(("ca.crt".to_owned(), authorities.trust())).chain(roots).collect();
    config_map(cluster, trust_bundle_config_map(&cluster.name), None, data)
}

/// All that isn't secret on a control-plane machine, as far as it is rolled out.
pub(super) fn node_config(
    cluster: &Cluster,
    node: &Node,
    authorities: &Authorities,
    rollout: &Rollout,
    observed: &Observed,
) -> ConfigMap {
    let name = node_config_map(&cluster.name, &node.name);
    let before = match observed.config_map(&cluster.name, &name) {
        Slot::Ours(found) => found.data.as_ref(),
        Slot::Free | Slot::Foreign(_) => None,
    };
    let network = systemd::pod_network(cluster, node, observed.target.pod_ranges.as_ref(), before);
    let files: Vec<_> = rollout.files(node).iter().chain(&network).collect();
    let entries: Vec<_> = files.iter().map(|file| IndexEntry::new(&file.key, &file.path, file.mode)).collect();
    let configuration = manifests::cluster_configuration(cluster, rollout.configuration);
    let mut data =
        BTreeMap::from([(INDEX_KEY.to_owned(), index(&entries)), (KUBEADM_CONFIG_KEY.to_owned(), configuration)]);
    data.extend(files.iter().map(|file| (file.key.to_string(), file.content.clone())));
    let joins = initial_cluster::of(cluster, node, observed);
    let mut config_map = config_map(cluster, name, Some(node), data);
    let authority = kubelet_turns::of_machine(cluster, node, authorities, observed);
    config_map
        .annotations_mut()
        .extend(authority.map(|authority| (KUBELET_AUTHORITY_ANNOTATION.to_owned(), authority)));
    let restart = rollout.etcd_restart(node).map(|mark| (ETCD_MARK.to_owned(), mark.to_owned()));
    config_map.annotations_mut().extend(restart);
    if cluster.spec.node_agent.is_some() {
        config_map.annotations_mut().insert(RESTART_TURN_ANNOTATION.to_owned(), rollout.turn(node).to_owned());
    }
    if cluster.external_etcd().is_none() {
        config_map.metadata.annotations.get_or_insert_default().extend([
            (initial_cluster::INITIAL_CLUSTER_ANNOTATION.to_owned(), joins.flags.to_text()),
            (initial_cluster::MEMBER_ANNOTATION.to_owned(), joins.known.name().to_owned()),
        ]);
    }
    config_map
}

/// Annotation on the ConfigMap of a machine with a kubelet: the fingerprint of the authority that the kubelet's certificates
/// are to come from. It is there once the cluster's authority is rotated: otherwise the kubelet's own renewal is enough.
pub const KUBELET_AUTHORITY_ANNOTATION: &str = "keyplane.io/kubelet-authority";

/// A ConfigMap's object from its content.
pub(crate) fn config_map(
    cluster: &Cluster,
    name: String,
    node: Option<&Node>,
    data: BTreeMap<String, String>,
) -> ConfigMap {
    let checksum = checksum(data.iter().map(|(key, value)| (key.as_str(), value.as_bytes())));
    ConfigMap {
        metadata: metadata(cluster, name, node, [(CONTENT_CHECKSUM_ANNOTATION, checksum)]),
        data: Some(data),
        ..ConfigMap::default()
    }
}

/// A Secret's object from its content.
pub(crate) fn secret<const N: usize>(
    cluster: &Cluster,
    name: String,
    node: Option<&Node>,
    type_: &str,
    data: BTreeMap<String, String>,
    annotations: [(&'static str, String); N],
) -> Secret {
    let checksum = checksum(data.iter().map(|(key, value)| (key.as_str(), value.as_bytes())));
    let mut metadata = metadata(cluster, name, node, [(CONTENT_CHECKSUM_ANNOTATION, checksum)]);
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
        (CLUSTER_LABEL.to_owned(), cluster.name.clone()),
        (CLUSTER_API_LABEL.to_owned(), cluster.name.clone()),
    ]);
    if let Some(node) = node {
        labels.insert(NODE_LABEL.to_owned(), node.name.clone());
    }
    ObjectMeta {
        name: Some(name),
        namespace: Some(cluster.namespace.clone()),
        labels: Some(labels),
        annotations: Some(annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ..ObjectMeta::default()
    }
}

/// Whether an object has all that it should have. More labels and annotations than ours are others' business; more
/// data is not.
pub(crate) fn has_metadata(found: &ObjectMeta, wanted: &ObjectMeta) -> bool {
    let contains = |found: &Option<BTreeMap<String, String>>, wanted: &Option<BTreeMap<String, String>>| {
        wanted.iter().flatten().all(|(key, value)| found.as_ref().and_then(|map| map.get(key)) == Some(value))
    };
    contains(&found.labels, &wanted.labels) && contains(&found.annotations, &wanted.annotations)
}

/// The metadata for a write: others' labels and annotations stay, and what is replaced is the version that was seen.
pub(crate) fn onto(found: Option<&ObjectMeta>, wanted: ObjectMeta) -> ObjectMeta {
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

/// Whether an object is Keyplane's, for this cluster and with this label besides.
#[must_use]
pub(crate) fn is_ours(found: &ObjectMeta, cluster: &str, (label, value): (&str, &str)) -> bool {
    let labels = [(MANAGED_BY_LABEL, MANAGED_BY), (CLUSTER_LABEL, cluster), (label, value)];
    let found = |label: &str| found.labels.as_ref().and_then(|labels| labels.get(label));
    labels.into_iter().all(|(label, value)| found(label).is_some_and(|found| found == value))
}

/// The write that makes what was found what is wanted; nothing if it is. `same` compares what is not metadata.
#[must_use]
pub fn to_write<K: kube::Resource>(found: Option<&K>, mut wanted: K, same: impl Fn(&K, &K) -> bool) -> Option<K> {
    let Some(found) = found else { return Some(wanted) };
    if same(found, &wanted) && has_metadata(found.meta(), wanted.meta()) {
        return None;
    }
    let metadata = std::mem::take(wanted.meta_mut());
    *wanted.meta_mut() = onto(Some(found.meta()), metadata);
    Some(wanted)
}

/// The ConfigMap to write over what was found; nothing if that is as it should be.
#[must_use]
pub fn config_map_to_write(found: Option<&ConfigMap>, wanted: ConfigMap) -> Option<ConfigMap> {
    to_write(found, wanted, |found, wanted| {
        found.data == wanted.data && found.binary_data.as_ref().is_none_or(BTreeMap::is_empty)
    })
}

/// Plans a ConfigMap that is derived from the spec.
pub(super) fn plan_config_map(wanted: ConfigMap, observed: &Observed, plan: &mut Plan) {
    let name = wanted.metadata.name.as_deref().unwrap_or_default();
    let cluster = wanted.metadata.labels.as_ref().and_then(|labels| labels.get(CLUSTER_LABEL));
    match observed.config_map(cluster.map_or("", String::as_str), name) {
        Slot::Foreign(blocker) => plan.blockers.push(blocker),
        Slot::Ours(found) => {
            let write = config_map_to_write(Some(found), wanted);
            plan.steps.extend(write.map(|wanted| Step::ConfigMap(Box::new(wanted))));
        }
        Slot::Free => plan.steps.push(Step::ConfigMap(Box::new(wanted))),
    }
}

/// Certificate (or public key) and private key of an authority's or the service account's Secret.
///
/// # Errors
/// If one of them is missing.
pub fn key_pair(secret: &Secret) -> Result<(&str, &str), String> {
    let texts = text(secret, "tls.crt").zip(text(secret, "tls.key"));
    texts.ok_or_else(|| "it lacks tls.crt or tls.key".to_owned())
}

/// A text in a Secret.
#[must_use]
pub fn text<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    std::str::from_utf8(&secret.data.as_ref()?.get(key)?.0).ok()
}
