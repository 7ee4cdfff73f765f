//! The parsed model of a target cluster: a `ClusterSpec` and its `CertificatePolicy`.
//!
//! The API types hold text; all other modules work with parsed addresses, CIDRs and durations. A [`Cluster`] is always
//! valid: parsing refuses everything that admission refuses, with the same messages, because `keyplane render` reads
//! files that no API server has validated.

mod addons;
mod certificate_authorities;
mod endpoint;
mod maintenance;
mod node;
mod node_agent;
mod options;
mod policy;
mod ranges;
mod restore;
mod rotate;
mod settings;
mod sizing;
mod users;
mod version;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use keyplane_crds::{ClusterSpecSpec, ExternalEtcd, Layout, NodePoolSpec};

use crate::encryption::Settings;
use crate::pki::CaName;
pub use certificate_authorities::user_provided_ca_field;
use endpoint::parse_endpoint;
pub use endpoint::{API_SERVER_PORT, Endpoint, Host};
pub use maintenance::Window;
pub use node::Node;
use node::parse_nodes;
pub use policy::Policy;
pub use ranges::joined;
use ranges::{nth_address, parse_cidrs, refuse_overlaps};
pub use restore::Restore;
pub use rotate::RotateRequests;
pub(crate) use settings::refuse_kubelet_settings;
pub use sizing::Sizing;
pub use users::User;
pub use version::Version;
pub use workers::Worker;

/// An invalid field, with the reason and the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldError {
    /// The field's path, for example `spec.network.serviceCIDRs`.
    pub field: String,
    /// The problem, and the fix.
    pub message: String,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// The current state of encryption at rest in a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncryptionUse {
    /// Whether the API servers have an encryption configuration.
    pub configured: bool,
    /// The resources whose objects are being re-encrypted.
    pub reencrypted: BTreeSet<String>,
}

/// A target cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// The ClusterSpec's name.
    pub name: String,
    /// The ClusterSpec's namespace.
    pub namespace: String,
    /// The control plane's version.
    pub version: Version,
    /// The endpoint of the API servers for clients.
    pub endpoint: Endpoint,
    /// The control-plane nodes, the first node of the cluster first.
    pub nodes: Vec<Node>,
    /// The worker nodes that have a Secret and a ConfigMap of their own: the nodes that NodePools list by name in a
    /// cluster with the layout `Systemd`. Set by [`Cluster::with_pools`].
    pub workers: Vec<Worker>,
    /// The CIDRs of Services; at least one.
    pub service_cidrs: Vec<IpNet>,
    /// The CIDRs of Pods.
    pub pod_cidrs: Vec<IpNet>,
    /// The users that get a kubeconfig.
    pub users: Vec<User>,
    /// Lifetimes and key algorithms.
    pub policy: Policy,
    /// The requested renewals, rotations and revocations.
    pub rotate: RotateRequests,
    /// Whether a backup restores missing Secrets.
    pub restore: Restore,
    /// The desired encryption at rest.
    pub encryption: Option<Settings>,
    /// The observed encryption at rest, which may differ from the spec. Set by [`Cluster::with_encryption`].
    pub encryption_use: EncryptionUse,
    /// The external CAs: their keys are not in the management cluster, and their owners sign.
    pub external_cas: BTreeSet<CaName>,
    /// The rest of the spec, which needs no parsing.
    pub spec: ClusterSpecSpec,
}

impl Cluster {
    /// Parses a ClusterSpec.
    ///
    /// # Errors
    /// Returns the first invalid field.
    pub fn parse(name: &str, namespace: &str, spec: &ClusterSpecSpec, policy: Policy) -> Result<Self, FieldError> {
        settings::refuse_name(name)?;
        settings::refuse_settings(spec)?;
        let encryption = options::parse(spec)?;
        node_agent::refuse(spec)?;
        certificate_authorities::refuse(name, spec)?;
        let users = users::parse_users(spec)?;
        let version = Version::parse(&spec.kubernetes_version)?;
        let endpoint = parse_endpoint(spec)?;
        let service_cidrs = parse_cidrs("spec.network.serviceCIDRs", &spec.network.service_cidrs)?;
        let pod_cidrs = parse_cidrs("spec.network.podCIDRs", &spec.network.pod_cidrs)?;
        if service_cidrs.is_empty() {
            return Err(FieldError::new(
                "spec.network.serviceCIDRs",
                "is empty: write a range, for example 10.96.0.0/12",
            ));
        }
        refuse_overlaps(&service_cidrs, &pod_cidrs)?;
        let nodes = parse_nodes(&spec.control_plane.nodes)?;
        for node in &nodes {
            for address in &node.addresses {
                if let Some(range) = service_cidrs.iter().chain(&pod_cidrs).find(|range| range.contains(address)) {
                    return Err(FieldError::new(
                        "spec.controlPlane.nodes[].addresses",
                        format!(
                            "{address} of {} is in {range}, a CIDR of Services or Pods: choose another address",
                            node.name
                        ),
                    ));
                }
            }
        }
        Ok(Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            version,
            endpoint,
            nodes,
            workers: vec![],
            service_cidrs,
            pod_cidrs,
            users,
            policy,
            rotate: RotateRequests::of_spec(spec),
            restore: Restore::default(),
            external_cas: BTreeSet::new(),
            encryption_use: EncryptionUse { configured: encryption.is_some(), ..EncryptionUse::default() },
            encryption,
            spec: spec.clone(),
        })
    }

    /// Adds the requests of the ClusterSpec's annotations.
    #[must_use]
    pub fn with_annotations(mut self, annotations: &BTreeMap<String, String>) -> Self {
        self.rotate = self.rotate.and_annotations(annotations);
        self.restore = Restore::of(annotations);
        self
    }

    /// Sets the observed encryption at rest.
    #[must_use]
    pub fn with_encryption(mut self, encryption_use: EncryptionUse) -> Self {
        self.encryption_use = encryption_use;
        self
    }

    /// Sets the worker nodes from the NodePools of this cluster.
    #[must_use]
    pub fn with_pools<'a>(mut self, pools: impl IntoIterator<Item = (String, &'a NodePoolSpec)>) -> Self {
        self.workers = if self.layout() == Layout::Systemd { workers::listed(&self.nodes, pools) } else { vec![] };
        self
    }

    /// The layout of the control plane.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.spec.control_plane.layout
    }

    /// Returns whether the node is a control-plane node.
    #[must_use]
    pub fn is_control_plane(&self, node: &Node) -> bool {
        self.nodes.iter().any(|other| other.name == node.name)
    }

    /// Returns whether the node runs a kubelet, and so has a Node object.
    #[must_use]
    pub fn has_kubelet(&self, node: &Node) -> bool {
        self.spec.control_plane.register_nodes || !self.is_control_plane(node)
    }

    /// All nodes with files of their own: control-plane nodes and `workers`.
    pub fn all_nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().chain(self.workers.iter().map(|worker| &worker.node))
    }

    /// The NodePool that lists the node.
    #[must_use]
    pub fn pool_of(&self, node: &Node) -> Option<&str> {
        self.workers.iter().find(|worker| worker.node.name == node.name).map(|worker| worker.pool.as_str())
    }

    /// Returns whether static routes on the nodes are the Pod network. Flannel distributes Pod CIDRs itself.
    #[must_use]
    pub fn has_pod_routes(&self) -> bool {
        self.layout() == Layout::Systemd && !self.pod_cidrs.is_empty() && !self.spec.addons.flannel.enabled
    }

    /// The address of the Service `kubernetes`: the first address of the first CIDR, which the API server chooses too.
    #[must_use]
    pub fn api_server_service_address(&self) -> Option<IpAddr> {
        nth_address(self.service_cidrs.first()?, 1)
    }

    /// The address of the cluster DNS: the tenth address of the first CIDR, as in kubeadm.
    #[must_use]
    pub fn dns_service_address(&self) -> Option<IpAddr> {
        nth_address(self.service_cidrs.first()?, 10)
    }

    /// The addresses for `--node-ip`: the primary address, and in a dual-stack cluster the first of the other family.
    /// With one address the kubelet reports no other, and its Pods with `hostNetwork` would have one family only.
    #[must_use]
    pub fn node_ips(&self, primary: IpAddr, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let is_dual_stack = self.pod_cidrs.len() > 1 || self.service_cidrs.len() > 1;
        let other = addresses.iter().find(|address| is_dual_stack && address.is_ipv4() != primary.is_ipv4());
        std::iter::once(primary).chain(other.copied()).collect()
    }

    /// The proxy for connections to the API servers.
    #[must_use]
    pub fn proxy_url(&self) -> Option<&str> {
        self.spec.access.as_ref()?.proxy_url.as_deref()
    }

    /// The external etcd. `None` where every control-plane node has a member.
    #[must_use]
    pub fn external_etcd(&self) -> Option<&ExternalEtcd> {
        self.spec.etcd.external.as_ref()
    }

    /// Returns whether the node is the first one, on which `kubeadm init` would have run.
    #[must_use]
    pub fn is_first(&self, node: &Node) -> bool {
        self.nodes.first().is_some_and(|first| first.name == node.name)
    }
}

/// Returns whether `name` is an RFC 1123 subdomain, by the rules of Kubernetes.
pub(crate) fn is_dns_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}

#[cfg(test)]
mod tests;
