//! A target cluster as Keyplane understands it: a `ClusterSpec` and its `CertificatePolicy`, parsed.
//!
//! The API types hold text; everything behind this room works with addresses, ranges and durations. Whoever has a
//! [`Cluster`] knows that it makes sense: what admission refuses is refused here too, with the same words, because
//! `keyplane render` reads files that no API server has seen.

mod addons;
mod authorities;
mod maintenance;
mod node_agent;
mod options;
mod policy;
mod restore;
mod rotate;
mod settings;
mod sizing;
mod users;
mod version;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use keyplane_crds::{ClusterSpecSpec, ControlPlaneNode, ExternalEtcd, Layout, NodePoolSpec};

use crate::encryption::Settings;
use crate::pki::inventory::AuthorityName;
pub use authorities::given_authority_field;
pub use maintenance::Window;
pub use policy::{LeafTerms, Policy};
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

/// The host part of the API servers' endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A DNS name.
    Name(String),
}

impl fmt::Display for Host {
    /// As in a URL: an IPv6 address has brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Where an API server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The port of every API server on its own machine, as kubeadm's `localAPIEndpoint.bindPort`.
pub const API_SERVER_PORT: u16 = 6443;

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The Node's name.
    pub name: String,
    /// Every address of the machine.
    pub addresses: Vec<IpAddr>,
    /// The one that its API server advertises, its etcd listens on and its kubelet reports.
    pub advertise_address: IpAddr,
    /// Where the machine stands.
    pub failure_domain: Option<String>,
}

impl Node {
    /// The machine's own API server.
    #[must_use]
    pub fn local_endpoint(&self) -> Endpoint {
        Endpoint { host: Host::Address(self.advertise_address), port: API_SERVER_PORT }
    }

    /// The loopback address of the family that the machine advertises.
    #[must_use]
    pub fn loopback(&self) -> &'static str {
        if self.advertise_address.is_ipv6() { "::1" } else { "127.0.0.1" }
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

/// Ranges as a flag takes them: joined by commas.
#[must_use]
pub fn joined(cidrs: &[IpNet]) -> String {
    cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn nth_address(range: &IpNet, n: u32) -> Option<IpAddr> {
    let address = match range.network() {
        IpAddr::V4(network) => IpAddr::V4(u32::from(network).checked_add(n)?.into()),
        IpAddr::V6(network) => IpAddr::V6(u128::from(network).checked_add(u128::from(n))?.into()),
    };
    range.contains(&address).then_some(address)
}

fn parse_endpoint(spec: &ClusterSpecSpec) -> Result<Endpoint, FieldError> {
    let written = &spec.control_plane_endpoint;
    let host = match written.host.parse::<IpAddr>() {
        Ok(address) => Host::Address(address),
        Err(_) if is_dns_name(&written.host) => Host::Name(written.host.clone()),
        Err(_) => {
            return Err(FieldError::new(
                "spec.controlPlaneEndpoint.host",
                format!("{:?} is neither an IP address nor a lower-case DNS name", written.host),
            ));
        }
    };
    let port = u16::try_from(written.port).ok().filter(|port| *port > 0).ok_or_else(|| {
        FieldError::new("spec.controlPlaneEndpoint.port", format!("{} is no port: write 1 to 65535", written.port))
    })?;
    Ok(Endpoint { host, port })
}

fn parse_cidrs(field: &str, written: &[String]) -> Result<Vec<IpNet>, FieldError> {
    let ranges = written
        .iter()
        .map(|text| match text.parse::<IpNet>() {
            Ok(range) if range.trunc() == range => Ok(range),
            Ok(range) => Err(FieldError::new(field, format!("{text} has host bits: write {}", range.trunc()))),
            Err(_) => Err(FieldError::new(field, format!("{text:?} is no range: write one like 10.96.0.0/12"))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    match ranges.as_slice() {
        [] | [_] => Ok(ranges),
        [a, b] if a.addr().is_ipv4() != b.addr().is_ipv4() => Ok(ranges),
        _ => Err(FieldError::new(field, "two ranges mean dual stack: write one IPv4 and one IPv6 range")),
    }
}

fn refuse_overlaps(service_cidrs: &[IpNet], pod_cidrs: &[IpNet]) -> Result<(), FieldError> {
    for service in service_cidrs {
        for pod in pod_cidrs {
            if service.contains(pod) || pod.contains(service) {
                return Err(FieldError::new(
                    "spec.network",
                    format!("serviceCIDRs {service} and podCIDRs {pod} overlap: choose ranges apart from each other"),
                ));
            }
        }
    }
    Ok(())
}

fn parse_nodes(written: &[ControlPlaneNode]) -> Result<Vec<Node>, FieldError> {
    const FIELD: &str = "spec.controlPlane.nodes";
    if written.is_empty() {
        return Err(FieldError::new(FIELD, "is empty: write at least one machine"));
    }
    let mut nodes: Vec<Node> = vec![];
    for node in written {
        let name = node.name.clone();
        if !is_dns_name(&name) {
            return Err(FieldError::new(FIELD, format!("{name:?} is no lower-case DNS name, for example cp1")));
        }
        let parse = |text: &String| {
            text.parse::<IpAddr>().map_err(|_| {
                FieldError::new(format!("{FIELD}[{name}].addresses"), format!("{text:?} is no IP address"))
            })
        };
        let addresses = node.addresses.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let advertise_address = match &node.node_ip {
            None => addresses.first().copied(),
            Some(text) => Some(parse(text)?).filter(|address| addresses.contains(address)),
        };
        let Some(advertise_address) = advertise_address else {
            return Err(FieldError::new(
                format!("{FIELD}[{name}]"),
                "addresses must have at least one address, and nodeIP must be one of them",
            ));
        };
        for other in &nodes {
            if other.name == name {
                return Err(FieldError::new(FIELD, format!("the name {name} is there twice")));
            }
            if let Some(address) = addresses.iter().find(|address| other.addresses.contains(address)) {
                return Err(FieldError::new(FIELD, format!("{address} is listed for {} and for {name}", other.name)));
            }
        }
        let failure_domain = node.failure_domain.clone();
        if failure_domain.as_deref().is_some_and(|domain| !settings::is_label_value(domain)) {
            return Err(FieldError::new(
                format!("{FIELD}[{name}].failureDomain"),
                "is a label's value: letters, digits, '-', '_' and '.', for example zone-a",
            ));
        }
        nodes.push(Node { name, addresses, advertise_address, failure_domain });
    }
    Ok(nodes)
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
