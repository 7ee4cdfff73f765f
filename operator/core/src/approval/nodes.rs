//! The Nodes of a cluster, indexed for the queries of the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;

use super::names::{DnsName, parse_address};

/// The fields of a Node that the rules use. The node itself reports its names and addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// The name of the Node.
    pub name: String,
    /// The creation time of the Node object.
    pub created: Option<Timestamp>,
    /// The DNS names in its status: few, and there are thousands of Nodes, for which a set takes too much memory.
    pub names: Vec<DnsName>,
    /// The IP addresses in the status.
    pub addresses: Vec<IpAddr>,
}

impl NodeFacts {
    /// Parses the addresses in the status by type, like a kubelet for its CSR. A `Hostname` is a name or an address,
    /// and other types are ignored. Invalid entries are ignored too.
    #[must_use]
    pub fn reported<'a>(
        name: &str,
        created: Option<Timestamp>,
        addresses: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut facts = Self { name: name.to_owned(), created, ..Self::default() };
        for (kind, reported) in addresses {
            let (address, name) = match kind {
                "InternalIP" | "ExternalIP" => (parse_address(reported), None),
                "InternalDNS" | "ExternalDNS" => (None, DnsName::parse(reported).ok()),
                "Hostname" => (parse_address(reported), DnsName::parse(reported).ok()),
                _ => (None, None),
            };
            facts.addresses.extend(address);
            facts.names.extend(name);
        }
        // The order of addresses has no meaning.
        facts.addresses.sort_unstable();
        facts.addresses.dedup();
        facts.addresses.shrink_to_fit();
        facts.names.sort_unstable();
        facts.names.dedup();
        facts.names.shrink_to_fit();
        facts
    }
}

impl From<&Node> for NodeFacts {
    fn from(node: &Node) -> Self {
        let reported = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
        let reported = reported.iter().map(|reported| (reported.type_.as_str(), reported.address.as_str()));
        let created = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
        Self::reported(node.metadata.name.as_deref().unwrap_or_default(), created, reported)
    }
}

/// All Nodes by name and by address, updated incrementally. With thousands of Nodes, a rebuild after each change would
/// be most of the work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    by_name: BTreeMap<String, NodeFacts>,
    /// The names of the Nodes that report an address.
    holders: BTreeSet<(IpAddr, String)>,
}

impl Nodes {
    /// Adds or updates a Node. Returns whether something changed.
    pub fn put(&mut self, node: NodeFacts) -> bool {
        if self.by_name.get(&node.name) == Some(&node) {
            return false;
        }
        self.remove(&node.name);
        for address in &node.addresses {
            self.holders.insert((*address, node.name.clone()));
        }
        self.by_name.insert(node.name.clone(), node);
        true
    }

    /// Removes a deleted Node. Returns whether the Node was known.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(node) = self.by_name.remove(name) else { return false };
        for address in node.addresses {
            self.holders.remove(&(address, name.to_owned()));
        }
        true
    }

    /// Returns the Node with a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&NodeFacts> {
        self.by_name.get(name)
    }

    /// Returns the names of all Nodes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Returns all Nodes.
    pub fn iter(&self) -> impl Iterator<Item = &NodeFacts> {
        self.by_name.values()
    }

    /// Returns one of the other Nodes that report an address.
    #[must_use]
    pub fn another_with(&self, node: &str, address: &IpAddr) -> Option<&str> {
        let holders = self.holders.range((*address, String::new())..).take_while(|(held, _)| held == address);
        holders.map(|(_, holder)| holder.as_str()).find(|holder| *holder != node)
    }
}

impl FromIterator<NodeFacts> for Nodes {
    fn from_iter<I: IntoIterator<Item = NodeFacts>>(nodes: I) -> Self {
        let mut all = Self::default();
        for node in nodes {
            all.put(node);
        }
        all
    }
}
