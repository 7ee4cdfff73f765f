//! A target cluster as Keyplane understands it: a `ClusterSpec` and its `CertificatePolicy`, parsed.
//!
//! The API types hold text; everything behind this room works with addresses, ranges and durations. Whoever has a
//! [`Cluster`] knows that it makes sense: what admission refuses is refused here too, with the same words, because
//! `keyplane render` reads files that no API server has seen.

mod addons;
mod authorities;
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
use crate::pki::AuthorityName;
pub use authorities::given_authority_field;
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

/// A field that makes no sense, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldError {
    /// The field's path, for example `spec.network.serviceCIDRs`.
    pub field: String,
    /// What is wrong with it, and the cure.
    pub message: String,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// What a cluster's encryption at rest needs now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncryptionUse {
    /// Whether the API servers have an encryption configuration.
    pub configured: bool,
    /// The resources of which every object is written anew.
    pub rewrites: BTreeSet<String>,
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
    /// Where clients reach the API servers.
    pub endpoint: Endpoint,
    /// The machines of the control plane, the first made first.
    pub nodes: Vec<Node>,
    /// The workers whose files Keyplane writes one by one: the machines that the pools of a cluster with the layout
    /// `Systemd` list by name, as [`Cluster::with_pools`] finds them.
    pub workers: Vec<Worker>,
    /// Ranges of Service addresses; at least one.
    pub service_cidrs: Vec<IpNet>,
    /// Ranges of Pod addresses.
    pub pod_cidrs: Vec<IpNet>,
    /// Who gets a kubeconfig.
    pub users: Vec<User>,
    /// Lifetimes and keys.
    pub policy: Policy,
    /// Who asks for new certificates.
    pub rotate: RotateRequests,
    /// Whether a backup brings what is missing.
    pub restore: Restore,
    /// What is to be stored encrypted.
    pub encryption: Option<Settings>,
    /// Whether the API servers have an encryption configuration, and which objects Keyplane writes anew: more than the spec
    /// says, as [`Cluster::with_encryption`] finds it.
    pub encryption_use: EncryptionUse,
    /// The authorities whose keys are not here: their owners sign outside.
    pub signed_outside: BTreeSet<AuthorityName>,
    /// The rest of the spec, which needs no parsing.
    pub spec: ClusterSpecSpec,
}

impl Cluster {
    /// Reads a cluster.
    ///
    /// # Errors
    /// The first field that makes no sense.
    pub fn parse(name: &str, namespace: &str, spec: &ClusterSpecSpec, policy: Policy) -> Result<Self, FieldError> {
        settings::refuse_name(name)?;
        settings::refuse_settings(spec)?;
        let encryption = options::parse(spec)?;
        node_agent::refuse(spec)?;
        authorities::refuse(name, spec)?;
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
                            "{address} of {} lies in {range}, which is the cluster's own: choose another",
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
            signed_outside: BTreeSet::new(),
            encryption_use: EncryptionUse { configured: encryption.is_some(), ..EncryptionUse::default() },
            encryption,
            spec: spec.clone(),
        })
    }

    /// Takes up what the ClusterSpec's annotations ask for.
    #[must_use]
    pub fn with_annotations(mut self, annotations: &BTreeMap<String, String>) -> Self {
        self.rotate = self.rotate.and_annotations(annotations);
        self.restore = Restore::of(annotations);
        self
    }

    /// Takes up what is encrypted already, whatever the spec says now.
    #[must_use]
    pub fn with_encryption(mut self, encryption_use: EncryptionUse) -> Self {
        self.encryption_use = encryption_use;
        self
    }

    /// Takes up the machines that these pools list. The pools must be those of this cluster.
    #[must_use]
    pub fn with_pools<'a>(mut self, pools: impl IntoIterator<Item = (String, &'a NodePoolSpec)>) -> Self {
        self.workers = if self.layout() == Layout::Systemd { workers::listed(&self.nodes, pools) } else { vec![] };
        self
    }

    /// How the components run.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.spec.control_plane.layout
    }

    /// Whether the machine is one of the control plane.
    #[must_use]
    pub fn is_control_plane(&self, node: &Node) -> bool {
        self.nodes.iter().any(|other| other.name == node.name)
    }

    /// Whether the machine has a kubelet, and so a Node.
    #[must_use]
    pub fn has_kubelet(&self, node: &Node) -> bool {
        self.spec.control_plane.register_nodes || !self.is_control_plane(node)
    }

    /// Every machine whose files Keyplane writes.
    pub fn machines(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().chain(self.workers.iter().map(|worker| &worker.node))
    }

    /// The NodePool that lists the machine.
    #[must_use]
    pub fn pool_of(&self, node: &Node) -> Option<&str> {
        self.workers.iter().find(|worker| worker.node.name == node.name).map(|worker| worker.pool.as_str())
    }

    /// Whether the machines' own routes are the network of the Pods: only then does Keyplane know where each range is.
    #[must_use]
    pub fn has_pod_routes(&self) -> bool {
        self.layout() == Layout::Systemd && !self.pod_cidrs.is_empty() && !self.spec.addons.flannel.enabled
    }

    /// The address of the Service `kubernetes`: the first of the first range, as the API server itself takes it.
    #[must_use]
    pub fn api_server_service_address(&self) -> Option<IpAddr> {
        nth_address(self.service_cidrs.first()?, 1)
    }

    /// The address of the cluster's DNS: the tenth of the first range, kubeadm's convention.
    #[must_use]
    pub fn dns_service_address(&self) -> Option<IpAddr> {
        nth_address(self.service_cidrs.first()?, 10)
    }

    /// The addresses that a machine's kubelet reports: its primary one, and in a dual-stack cluster the first of the other
    /// family, because a kubelet that is told one address reports no other (`--node-ip`), and its Node's pods that use
    /// the host's network then have one family only.
    #[must_use]
    pub fn node_ips(&self, primary: IpAddr, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let is_dual_stack = self.pod_cidrs.len() > 1 || self.service_cidrs.len() > 1;
        let other = addresses.iter().find(|address| is_dual_stack && address.is_ipv4() != primary.is_ipv4());
        std::iter::once(primary).chain(other.copied()).collect()
    }

    /// The proxy through which the API servers are reached from outside.
    #[must_use]
    pub fn proxy_url(&self) -> Option<&str> {
        self.spec.access.as_ref()?.proxy_url.as_deref()
    }

    /// The etcd that somebody else runs; nothing where every node has a member.
    #[must_use]
    pub fn external_etcd(&self) -> Option<&ExternalEtcd> {
        self.spec.etcd.external.as_ref()
    }

    /// Whether the node is the first, on which `kubeadm init` would have run.
    #[must_use]
    pub fn is_first(&self, node: &Node) -> bool {
        self.nodes.first().is_some_and(|first| first.name == node.name)
    }
}

/// RFC 1123 subdomain, as Kubernetes checks names.
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
