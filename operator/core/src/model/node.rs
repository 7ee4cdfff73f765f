//! The control plane's machines.

use std::net::IpAddr;

use keyplane_crds::ControlPlaneNode;

use super::{API_SERVER_PORT, Endpoint, FieldError, Host, is_dns_name, settings};

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

pub(super) fn parse_nodes(written: &[ControlPlaneNode]) -> Result<Vec<Node>, FieldError> {
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
