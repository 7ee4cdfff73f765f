//! What is known about the node that asks.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;
use keyplane_crds::KubeletServingPolicy;

use super::names::{DnsName, parse_address};
use super::{Declaration, Reserved};

/// What is known when a request is judged.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The Node of that name, if it is there.
    pub node: Option<&'a NodeFacts>,
    /// What is declared about a node of that name.
    pub declaration: &'a Declaration,
    /// What no node may have.
    pub reserved: &'a Reserved,
    /// What the cluster's policy says.
    pub policy: &'a KubeletServingPolicy,
}

/// A Node, as far as the rules look at it. Its names and addresses are what the node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// The Node's name.
    pub name: String,
    /// The DNS names in its status.
    pub names: BTreeSet<DnsName>,
    /// The IP addresses in its status.
    pub addresses: BTreeSet<IpAddr>,
}

impl From<&Node> for NodeFacts {
    /// Reads the addresses by their types in the way in which a kubelet makes names of them for its request: a `Hostname`
    /// may be either, and other types are nothing. What can't be read is as good as not there.
    fn from(node: &Node) -> Self {
        let mut facts = Self { name: node.metadata.name.clone().unwrap_or_default(), ..Self::default() };
        let reported = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
        for reported in reported {
            let (address, name) = match reported.type_.as_str() {
                "InternalIP" | "ExternalIP" => (parse_address(&reported.address), None),
                "InternalDNS" | "ExternalDNS" => (None, DnsName::parse(&reported.address).ok()),
                "Hostname" => (parse_address(&reported.address), DnsName::parse(&reported.address).ok()),
                _ => (None, None),
            };
            facts.addresses.extend(address);
            facts.names.extend(name);
        }
        facts
    }
}
