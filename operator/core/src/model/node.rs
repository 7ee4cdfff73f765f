//! The control-plane nodes.

use std::net::IpAddr;

use keyplane_crds::ControlPlaneNode;

use super::{API_SERVER_PORT, Endpoint, FieldError, Host, is_dns_name, settings};

/// A node with files from Keyplane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The name of the Node.
    pub name: String,
    /// All addresses of the node.
    pub addresses: Vec<IpAddr>,
    /// The address that the API server advertises, etcd listens on and the kubelet reports.
    pub advertise_address: IpAddr,
    /// The failure domain, for example a zone or a rack.
    pub failure_domain: Option<String>,
}

impl Node {
    /// The endpoint of the API server on this node.
    #[must_use]
    pub fn local_endpoint(&self) -> Endpoint {
        Endpoint { host: Host::Address(self.advertise_address), port: API_SERVER_PORT }
    }

    /// The loopback address of the family of `advertise_address`.
    #[must_use]
    pub fn loopback(&self) -> &'static str {
        if self.advertise_address.is_ipv6() { "::1" } else { "127.0.0.1" }
    }
}

pub(super) fn parse_nodes(written: &[ControlPlaneNode]) -> Result<Vec<Node>, FieldError> {
    const FIELD: &str = "spec.controlPlane.nodes";
    if written.is_empty() {
        return Err(FieldError::new(FIELD, "is empty: write at least one node"));
    }
    let mut nodes: Vec<Node> = vec![];
    for node in written {
        let name = node.name.clone();
        if !is_dns_name(&name) {
            return Err(FieldError::new(FIELD, format!("{name:?} is not a lower-case DNS name, for example cp1")));
        }
        let parse = |text: &String| {
            text.parse::<IpAddr>().map_err(|_| {
                FieldError::new(format!("{FIELD}[{name}].addresses"), format!("{text:?} is not an IP address"))
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
                return Err(FieldError::new(FIELD, format!("the name {name} is listed twice")));
            }
            if let Some(address) = addresses.iter().find(|address| other.addresses.contains(address)) {
                return Err(FieldError::new(FIELD, format!("{address} is listed for {} and for {name}", other.name)));
            }
        }
        let failure_domain = node.failure_domain.clone();
        if failure_domain.as_deref().is_some_and(|domain| !settings::is_label_value(domain)) {
            return Err(FieldError::new(
                format!("{FIELD}[{name}].failureDomain"),
                "must be a label value: letters, digits, '-', '_' and '.', for example zone-a",
            ));
        }
        nodes.push(Node { name, addresses, advertise_address, failure_domain });
    }
    Ok(nodes)
}
