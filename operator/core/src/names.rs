//! What the objects in the management cluster are called.

use crate::model::Cluster;
use crate::pki::AuthorityName;

/// Tells who keeps an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Keyplane does.
pub const MANAGED_BY: &str = "keyplane";
/// The type of the Secrets of Cluster API's contract.
pub const CLUSTER_API_SECRET_TYPE: &str = "cluster.x-k8s.io/secret";
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
    cluster
        .authority_names()
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
    let authorities = cluster.authority_names().filter_map(|name| cluster.given_authority(name).map(str::to_owned));
    let external = cluster.external_etcd().map(|external| external.secret_ref.name.clone());
    webhook.into_iter().chain(external).chain(authorities)
}

/// The name of every ConfigMap that belongs to the cluster.
pub fn config_map_names(cluster: &Cluster) -> impl Iterator<Item = String> {
    std::iter::once(trust_bundle_config_map(&cluster.name))
        .chain(cluster.nodes.iter().map(|node| node_config_map(&cluster.name, &node.name)))
}

/// The ServiceAccount of a machine's agent. Its Role and the binding have the same name.
#[must_use]
pub fn agent_service_account(cluster: &str, node: &str) -> String {
    format!("{cluster}-{node}-agent")
}

/// The Secret with which a machine's agent begins.
#[must_use]
pub fn agent_bootstrap_secret(cluster: &str, node: &str) -> String {
    format!("{cluster}-{node}-agent-bootstrap")
}

/// The Lease of a machine's agent.
#[must_use]
pub fn agent_lease(cluster: &str, node: &str) -> String {
    format!("{cluster}-{node}")
}
