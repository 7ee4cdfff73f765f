//! The names of the objects in the management cluster.

use crate::model::Cluster;
use crate::pki::CaName;

/// The label that names the manager of an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// The value of the managed-by label.
pub const MANAGED_BY: &str = "keyplane";
/// The type of Secrets in the contract of Cluster API.
pub const CLUSTER_API_SECRET_TYPE: &str = "cluster.x-k8s.io/secret";
/// The key of the file index in an object.
pub const INDEX_KEY: &str = "index.json";
/// The key of the kubeadm configuration in the ConfigMap of a node, for users and tools. kubeadm stores its
/// configuration in the target cluster and not on a node, so the file index has no path for this key.
pub const KUBEADM_CONFIG_KEY: &str = "kubeadm-config.yaml";

/// Returns the Secret name of a CA.
#[must_use]
pub fn ca_secret(cluster: &str, ca: CaName) -> String {
    format!("{cluster}-{}", ca.secret_suffix())
}

/// Returns the Secret name of the service-account keys.
#[must_use]
pub fn service_account_secret(cluster: &str) -> String {
    format!("{cluster}-sa")
}

/// Returns the Secret name of the keys for encryption at rest.
#[must_use]
pub fn encryption_secret(cluster: &str) -> String {
    format!("{cluster}-encryption")
}

/// Returns the Secret name of the admin kubeconfig.
#[must_use]
pub fn kubeconfig_secret(cluster: &str) -> String {
    format!("{cluster}-kubeconfig")
}

/// Returns the Secret name of the kubeconfig of a user.
#[must_use]
pub fn user_secret(cluster: &str, user: &str) -> String {
    format!("{cluster}-user-{user}-kubeconfig")
}

/// Returns the Secret name of a node.
#[must_use]
pub fn node_secret(cluster: &str, node: &str) -> String {
    format!("{cluster}-{node}-pki")
}

/// Returns the Secret name of private keys that wait for certificates of an external signer. The keys belong to a node,
/// or to the cluster.
#[must_use]
pub fn requests_secret(cluster: &str, node: Option<&str>) -> String {
    match node {
        Some(node) => format!("{cluster}-{node}-requests"),
        None => format!("{cluster}-requests"),
    }
}

/// Returns the ConfigMap name of a certificate request for a node, or for the cluster.
#[must_use]
pub fn request_config_map(cluster: &str, node: Option<&str>, id: &str) -> String {
    match node {
        Some(node) => format!("{cluster}-{node}-{id}-csr"),
        None => format!("{cluster}-{id}-csr"),
    }
}

/// Returns the Secret name of Keyplane's client certificates for a target cluster with external CAs.
#[must_use]
pub fn own_secret(cluster: &str) -> String {
    format!("{cluster}-keyplane")
}

/// Returns the ConfigMap name of a node.
#[must_use]
pub fn node_config_map(cluster: &str, node: &str) -> String {
    format!("{cluster}-{node}-config")
}

/// Returns the ConfigMap name of the trust bundle.
#[must_use]
pub fn trust_bundle_config_map(cluster: &str) -> String {
    format!("{cluster}-ca-bundle")
}

/// Returns the names of all Secrets that belong to the cluster.
pub fn secret_names(cluster: &Cluster) -> impl Iterator<Item = String> {
    cluster
        .ca_names()
        .map(|ca| ca_secret(&cluster.name, ca))
        .chain([service_account_secret(&cluster.name), kubeconfig_secret(&cluster.name)])
        // A cluster that no longer uses encryption at rest may still have keys.
        .chain([encryption_secret(&cluster.name)])
        .chain(cluster.all_nodes().map(|node| node_secret(&cluster.name, &node.name)))
        .chain(cluster.users.iter().map(|user| user_secret(&cluster.name, &user.name)))
        .chain(signing_secret_names(cluster))
}

/// Returns the Secret names of a removed control-plane node.
pub fn departed_secret_names(cluster: &Cluster, node: &str) -> impl Iterator<Item = String> {
    let requests = cluster.spec.certificate_authorities.is_some().then(|| requests_secret(&cluster.name, Some(node)));
    // The Secret of the node keeps the node known, so the requests Secret is deleted first.
    requests.into_iter().chain([node_secret(&cluster.name, node)])
}

/// Returns the Secret names that exist only with external CAs, which are always user-provided CAs.
fn signing_secret_names(cluster: &Cluster) -> impl Iterator<Item = String> {
    let has_user_provided_ca = cluster.spec.certificate_authorities.is_some();
    let nodes = cluster.all_nodes().map(|node| requests_secret(&cluster.name, Some(&node.name)));
    let names = nodes.chain([requests_secret(&cluster.name, None), own_secret(&cluster.name)]);
    names.filter(move |_| has_user_provided_ca)
}

/// Returns the names of user-provided Secrets that the ClusterSpec refers to.
pub fn referenced_secret_names(cluster: &Cluster) -> impl Iterator<Item = String> {
    let webhook = cluster.spec.audit.as_ref().and_then(|audit| audit.webhook.as_ref());
    let webhook = webhook.map(|webhook| webhook.secret_ref.name.clone());
    let cas = cluster.ca_names().filter_map(|name| cluster.user_provided_ca(name).map(str::to_owned));
    let external = cluster.external_etcd().map(|external| external.secret_ref.name.clone());
    webhook.into_iter().chain(external).chain(cas)
}

/// Returns the names of all ConfigMaps that belong to the cluster.
pub fn config_map_names(cluster: &Cluster) -> impl Iterator<Item = String> {
    std::iter::once(trust_bundle_config_map(&cluster.name))
        .chain(cluster.nodes.iter().map(|node| node_config_map(&cluster.name, &node.name)))
}

/// Returns the ServiceAccount name of an agent. The Role and the RoleBinding have the same name.
#[must_use]
pub fn agent_service_account(cluster: &str, node: &str) -> String {
    format!("{cluster}-{node}-agent")
}

/// Returns the Secret name of the bootstrap credential of an agent.
#[must_use]
pub fn agent_bootstrap_secret(cluster: &str, node: &str) -> String {
    format!("{cluster}-{node}-agent-bootstrap")
}

/// Returns the Lease name of an agent.
#[must_use]
pub fn agent_lease(cluster: &str, node: &str) -> String {
    format!("{cluster}-{node}")
}
