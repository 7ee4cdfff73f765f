//! The names and addresses that no node may have in its certificate, whatever the declarations and the Node say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use keyplane_crds::{ApproverSpec, ClusterSpecSpec};

use super::Nodes;
use super::declaration::{Declarations, parse_ranges};
use super::names::{DnsName, parse_address};

/// The reserved names and addresses of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// The endpoint and the names in the certificates of the API servers.
    endpoint_names: BTreeSet<DnsName>,
    endpoint_addresses: BTreeSet<IpAddr>,
    /// The addresses that the `ClusterSpec` lists for each control-plane node, or the policy for each node.
    control_plane: BTreeMap<String, BTreeSet<IpAddr>>,
    dns_domain: String,
    service_ranges: Vec<IpNet>,
    pod_ranges: Vec<IpNet>,
    other_ranges: Vec<IpNet>,
    listed_names: BTreeSet<String>,
    listed: BTreeMap<IpAddr, BTreeSet<String>>,
    unreadable: Vec<String>,
}

/// The reason why a name is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameReservation {
    /// `kubernetes`, alone or as the first label.
    #[error("reserved for the Service of the API server")]
    Kubernetes,
    /// `localhost`, and names in `localhost` and `localdomain`.
    #[error("a name of the local host")]
    Localhost,
    /// A name in the domain of the cluster DNS.
    #[error("in the domain of the cluster DNS, which is reserved for Services and Pods")]
    ClusterDns,
    /// The endpoint, or a name in the certificates of the API servers.
    #[error("a name of the API endpoint")]
    Endpoint,
    /// The name of another Node, or of another declared node.
    #[error("the name of another node")]
    AnotherNode,
}

/// The reason why an address is reserved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressReservation {
    /// Loopback, link-local, multicast, unspecified or broadcast.
    #[error("a loopback, link-local, multicast, unspecified or broadcast address")]
    Special,
    /// An address in a Service range.
    #[error("in {0}, which is reserved for Services")]
    Services(IpNet),
    /// An address in a Pod range.
    #[error("in {0}, which is reserved for Pods")]
    Pods(IpNet),
    /// An address in a range that the policy reserves.
    #[error("in {0}, which is reserved by the policy")]
    Other(IpNet),
    /// The endpoint, or an address in the certificates of the API servers.
    #[error("an address of the API endpoint")]
    Endpoint,
    /// An address that is listed for other nodes.
    #[error("declared for {0}")]
    Listed(String),
    /// An address that other Nodes report.
    #[error("in the status of the Node {0}")]
    Reported(String),
}

impl Reserved {
    /// Collects the reserved names and addresses of a target cluster.
    ///
    /// The reservations are incomplete in two cases: the addresses of an endpoint with a DNS name (list the address of
    /// a load balancer in `certSANs`), and names below a wildcard in `certSANs`.
    #[must_use]
    pub fn of_cluster(cluster: &ClusterSpecSpec, declarations: &Declarations) -> Self {
        let network = &cluster.network;
        let mut reserved = Self { dns_domain: network.dns_domain.to_ascii_lowercase(), ..Self::default() };
        let sans = &cluster.control_plane.api_server.cert_sans;
        reserved.endpoints(std::iter::once(&cluster.control_plane_endpoint.host).chain(sans));
        for node in &cluster.control_plane.nodes {
            let addresses = node.addresses.iter().filter_map(|address| parse_address(address)).collect();
            reserved.control_plane.insert(node.name.clone(), addresses);
        }
        reserved.service_ranges =
            reserved.ranges("spec.network.serviceCIDRs of the ClusterSpec", &network.service_cidrs);
        reserved.pod_ranges = reserved.ranges("spec.network.podCIDRs of the ClusterSpec", &network.pod_cidrs);
        reserved.list(declarations);
        reserved
    }

    /// Collects the reserved names and addresses of the management cluster. A node that the policy lists by name may
    /// have the address of the endpoint, as a control-plane node without a load balancer does. The author of the policy
    /// has declared both.
    #[must_use]
    pub fn of_approver(approver: &ApproverSpec, declarations: &Declarations) -> Self {
        let written = &approver.reserved;
        let mut reserved = Self { dns_domain: written.dns_domain.to_ascii_lowercase(), ..Self::default() };
        reserved.endpoints(written.endpoints.iter());
        for (name, addresses) in declarations.listed() {
            reserved.control_plane.insert(name.to_owned(), addresses.clone());
        }
        let field = |name: &str| format!("spec.approver.reserved.{name} of the CertificatePolicy");
        reserved.service_ranges = reserved.ranges(&field("serviceCIDRs"), &written.service_cidrs);
        reserved.pod_ranges = reserved.ranges(&field("podCIDRs"), &written.pod_cidrs);
        reserved.other_ranges = reserved.ranges(&field("addressCIDRs"), &written.address_cidrs);
        reserved.list(declarations);
        reserved
    }

    /// Returns the reservations of an unknown cluster, which prevent every approval.
    #[must_use]
    pub fn unknown(why: &str) -> Self {
        Self { unreadable: vec![why.to_owned()], ..Self::default() }
    }

    fn endpoints<'a>(&mut self, hosts: impl Iterator<Item = &'a String>) {
        for host in hosts {
            self.endpoint_addresses.extend(parse_address(host));
            self.endpoint_names.extend(DnsName::parse(host));
        }
    }

    fn list(&mut self, declarations: &Declarations) {
        for (name, addresses) in declarations.listed() {
            for address in addresses {
                self.listed.entry(*address).or_default().insert(name.to_owned());
            }
            self.listed_names.insert(name.to_owned());
        }
    }

    fn ranges(&mut self, field: &str, written: &[String]) -> Vec<IpNet> {
        let (ranges, unreadable) = parse_ranges(written);
        self.unreadable
            .extend(unreadable.iter().map(|range| format!("{field} has {range:?}, which is not a valid CIDR range")));
        ranges
    }

    /// Returns one message per invalid range. Until all ranges are valid, the reservations are incomplete.
    #[must_use]
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// Returns the reason why `node` may not have a name, if the name is reserved.
    #[must_use]
    pub fn name(&self, nodes: &Nodes, node: &str, name: &DnsName) -> Option<NameReservation> {
        let (first, last) = (name.first_label(), name.as_str().rsplit('.').next());
        if first == "kubernetes" {
            Some(NameReservation::Kubernetes)
        } else if first == "localhost" || last == Some("localhost") || last == Some("localdomain") {
            Some(NameReservation::Localhost)
        } else if name.is_within("svc") || (!self.dns_domain.is_empty() && name.is_within(&self.dns_domain)) {
            Some(NameReservation::ClusterDns)
        } else if self.endpoint_names.contains(name) && !self.is_control_plane_node(node, name) {
            Some(NameReservation::Endpoint)
        } else if name.as_str() != node && self.is_known(nodes, name.as_str()) {
            Some(NameReservation::AnotherNode)
        } else {
            None
        }
    }

    /// Returns the reason why `node` may not have an address, if the address is reserved. A control-plane node may have
    /// the address of the endpoint if the `ClusterSpec` lists the address for that node, as in a cluster with one
    /// control-plane node and no load balancer. That node holds the key of the CA, so the certificate gives it no new
    /// permission. A pool can't allow this.
    #[must_use]
    pub fn address(&self, nodes: &Nodes, node: &str, address: &IpAddr) -> Option<AddressReservation> {
        let within = |ranges: &[IpNet]| ranges.iter().find(|range| range.contains(address)).copied();
        if is_special(address) {
            Some(AddressReservation::Special)
        } else if let Some(range) = within(&self.service_ranges) {
            Some(AddressReservation::Services(range))
        } else if let Some(range) = within(&self.pod_ranges) {
            Some(AddressReservation::Pods(range))
        } else if let Some(range) = within(&self.other_ranges) {
            Some(AddressReservation::Other(range))
        } else if self.endpoint_addresses.contains(address)
            && !self.control_plane.get(node).is_some_and(|own| own.contains(address))
        {
            Some(AddressReservation::Endpoint)
        } else if let Some(other) = another(&self.listed, node, address) {
            Some(AddressReservation::Listed(other))
        } else {
            nodes.another_with(node, address).map(|other| AddressReservation::Reported(other.to_owned()))
        }
    }

    fn is_known(&self, nodes: &Nodes, name: &str) -> bool {
        self.listed_names.contains(name) || nodes.get(name).is_some()
    }

    /// Returns whether the name is that of `node`, and the `ClusterSpec` lists `node` as a control-plane node.
    fn is_control_plane_node(&self, node: &str, name: &DnsName) -> bool {
        name.as_str() == node && self.control_plane.contains_key(node)
    }
}

/// Returns another node with the address.
fn another(holders: &BTreeMap<IpAddr, BTreeSet<String>>, node: &str, address: &IpAddr) -> Option<String> {
    holders.get(address)?.iter().find(|holder| *holder != node).cloned()
}

/// Returns whether the address does not belong to a single host: 0.0.0.0/8 ("this host"), loopback, link-local,
/// multicast, broadcast.
fn is_special(address: &IpAddr) -> bool {
    let by_family = match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    by_family || address.is_loopback() || address.is_multicast() || address.is_unspecified()
}
