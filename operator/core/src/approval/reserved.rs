//! What no node may have in its certificate, whoever declares it and whatever its Node says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use keyplane_crds::{ApproverSpec, ClusterSpecSpec};

use super::Nodes;
use super::declaration::{Declarations, parse_ranges};
use super::names::{DnsName, parse_address};

/// The names and addresses of a cluster that are not a node's to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// Where clients reach the API servers: the endpoint and the names in their certificate.
    endpoint_names: BTreeSet<DnsName>,
    endpoint_addresses: BTreeSet<IpAddr>,
    /// What the `ClusterSpec` itself lists for each control-plane node, or the policy for each machine.
    control_plane: BTreeMap<String, BTreeSet<IpAddr>>,
    dns_domain: String,
    service_ranges: Vec<IpNet>,
    pod_ranges: Vec<IpNet>,
    other_ranges: Vec<IpNet>,
    listed_names: BTreeSet<String>,
    listed: BTreeMap<IpAddr, BTreeSet<String>>,
    unreadable: Vec<String>,
}

/// Why a name is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameReservation {
    /// `kubernetes` and what begins with it.
    #[error("the API server's name inside of the cluster")]
    Kubernetes,
    /// `localhost` and its like.
    #[error("every machine's name for itself")]
    Localhost,
    /// A name in the cluster's DNS.
    #[error("in the cluster's own DNS, where Services and Pods have their names")]
    ClusterDns,
    /// The endpoint, or a name in the API servers' certificate.
    #[error("a name under which clients reach the API servers")]
    Endpoint,
    /// A Node, or a machine that is declared.
    #[error("the name of another node")]
    AnotherNode,
}

/// Why an address is reserved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressReservation {
    /// Loopback, link-local, multicast, unspecified, broadcast.
    #[error("an address that means another machine to each machine")]
    Special,
    /// In a range of the cluster.
    #[error("in {0}, where Services have their addresses")]
    Services(IpNet),
    /// In a range of the cluster.
    #[error("in {0}, where Pods have their addresses")]
    Pods(IpNet),
    /// In a range that the policy reserves.
    #[error("in {0}, which the policy reserves")]
    Other(IpNet),
    /// The endpoint, or an address in the API servers' certificate.
    #[error("an address at which clients reach the API servers")]
    Endpoint,
    /// Listed for other machines.
    #[error("declared for {0}")]
    Listed(String),
    /// Reported by other Nodes.
    #[error("in the status of the Node {0}")]
    Reported(String),
}

impl Reserved {
    /// Collects what is reserved in a target cluster.
    ///
    /// What can't be seen here is not reserved: the addresses behind an endpoint that is a DNS name (list a load
    /// balancer's address in `certSANs`), and names under a wildcard in `certSANs`.
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

    /// Collects what is reserved in the cluster that Keyplane runs in. A machine that the policy lists by name may have
    /// the endpoint's address, as a control-plane machine does that has no load balancer in front of it: the policy has
    /// one author, who has written both down.
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

    /// For a cluster of which nothing is known: nothing can be approved in it.
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
        self.unreadable.extend(unreadable.iter().map(|range| format!("{field} has {range:?}, which is no range")));
        ranges
    }

    /// What could not be read, in a sentence each: until it is, nobody knows what is reserved.
    #[must_use]
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// Why `node` may not have the name, if it is reserved.
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

    /// Why `node` may not have the address, if it is reserved. The endpoint's address is a control-plane node's own where
    /// the `ClusterSpec` itself lists it for that node, as in a cluster with one control-plane machine and no load
    /// balancer: that machine holds the CA's key, so its certificate gives it nothing new. A pool can't allow this.
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

    /// Whether the name is that of `node`, which the `ClusterSpec` itself has in its control plane.
    fn is_control_plane_node(&self, node: &str, name: &DnsName) -> bool {
        name.as_str() == node && self.control_plane.contains_key(node)
    }
}

/// One of the holders of an address who is not `node`.
fn another(holders: &BTreeMap<IpAddr, BTreeSet<String>>, node: &str, address: &IpAddr) -> Option<String> {
    holders.get(address)?.iter().find(|holder| *holder != node).cloned()
}

/// Whether the address is no single machine's: all of 0.0.0.0/8 ("this host"), loopback, link-local, multicast,
/// broadcast.
fn is_special(address: &IpAddr) -> bool {
    let by_family = match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    by_family || address.is_loopback() || address.is_multicast() || address.is_unspecified()
}
