//! The endpoint of the API servers.

use std::fmt;
use std::net::IpAddr;

use keyplane_crds::ClusterSpecSpec;

use super::{FieldError, is_dns_name};

/// The host part of the API servers' endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An IP address.
    Address(IpAddr),
    /// A DNS name.
    Name(String),
}

impl fmt::Display for Host {
    /// Formats the host as in a URL: an IPv6 address has brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Host and port of an API server.
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

/// The port of every API server on its own node, as kubeadm's `localAPIEndpoint.bindPort`.
pub const API_SERVER_PORT: u16 = 6443;

pub(super) fn parse_endpoint(spec: &ClusterSpecSpec) -> Result<Endpoint, FieldError> {
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
        FieldError::new("spec.controlPlaneEndpoint.port", format!("{} is not a port: write 1 to 65535", written.port))
    })?;
    Ok(Endpoint { host, port })
}
