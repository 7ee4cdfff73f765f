//! The networks of a target cluster.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The networks of the target cluster. They can't be changed once the cluster exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "(self.serviceCIDRs + self.podCIDRs).all(a, !isCIDR(a) || (self.serviceCIDRs + self.podCIDRs).filter(b, isCIDR(b) && (cidr(a).containsCIDR(cidr(b)) || cidr(b).containsCIDR(cidr(a)))).size() == 1)"
).message("spec.network: serviceCIDRs and podCIDRs must not overlap: choose disjoint ranges, for example 10.96.0.0/12 and 10.244.0.0/16"))]
#[x_kube(validation = Rule::new(
    "self.serviceCIDRs.size() < 2 || !self.serviceCIDRs.all(c, isCIDR(c)) || cidr(self.serviceCIDRs[0]).ip().family() != cidr(self.serviceCIDRs[1]).ip().family()"
).message("spec.network.serviceCIDRs: two ranges mean dual stack: write one IPv4 and one IPv6 range"))]
#[x_kube(validation = Rule::new(
    "self.podCIDRs.size() < 2 || !self.podCIDRs.all(c, isCIDR(c)) || cidr(self.podCIDRs[0]).ip().family() != cidr(self.podCIDRs[1]).ip().family()"
).message("spec.network.podCIDRs: two ranges mean dual stack: write one IPv4 and one IPv6 range"))]
#[x_kube(validation = Rule::new("self == oldSelf")
    .message("spec.network can't be changed while the cluster exists: Services and certificates contain addresses of these ranges; write the old values back, or create a new ClusterSpec"))]
pub struct Network {
    /// The range of Service addresses: one, or an IPv4 and an IPv6 range for dual stack. The API server's Service has
    /// the first address of the first range, and the cluster's DNS has the tenth.
    #[serde(rename = "serviceCIDRs", default = "Network::default_service_cidrs")]
    #[schemars(length(min = 1, max = 2), inner(length(max = 64)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c) && cidr(c) == cidr(c).masked())")
        .message("spec.network.serviceCIDRs: each must be a range with its host bits zero, for example 10.96.0.0/12"))]
    #[x_kube(validation = Rule::new("self.all(c, !isCIDR(c) || (cidr(c).ip().family() == 4 ? cidr(c).prefixLength() <= 28 : cidr(c).prefixLength() <= 124))")
        .message("spec.network.serviceCIDRs: each must have room for 16 addresses: at most /28 for IPv4, /124 for IPv6"))]
    pub service_cidrs: Vec<String>,

    /// The range of Pod addresses: none, one, or an IPv4 and an IPv6 range for dual stack. Without a range, the
    /// controller-manager allocates none to Nodes.
    #[serde(rename = "podCIDRs", default)]
    #[schemars(length(max = 2), inner(length(max = 64)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c) && cidr(c) == cidr(c).masked())")
        .message("spec.network.podCIDRs: each must be a range with its host bits zero, for example 10.244.0.0/16"))]
    #[x_kube(validation = Rule::new("self.all(c, !isCIDR(c) || (cidr(c).ip().family() == 4 ? cidr(c).prefixLength() <= 24 : cidr(c).prefixLength() <= 64))")
        .message("spec.network.podCIDRs: each Node takes a /24 (IPv4) or a /64 (IPv6) of it: write a range at least that large"))]
    pub pod_cidrs: Vec<String>,

    /// The cluster's DNS domain.
    #[serde(default = "Network::default_dns_domain")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("!format.dns1123Subdomain().validate(self).hasValue()")
        .message("spec.network.dnsDomain must be a lower-case DNS name, for example cluster.local"))]
    pub dns_domain: String,
}

impl Network {
    /// kubeadm's default range.
    fn default_service_cidrs() -> Vec<String> {
        vec!["10.96.0.0/12".to_owned()]
    }

    /// kubeadm's default domain.
    fn default_dns_domain() -> String {
        "cluster.local".to_owned()
    }
}

impl Default for Network {
    fn default() -> Self {
        Self { service_cidrs: Self::default_service_cidrs(), pod_cidrs: vec![], dns_domain: Self::default_dns_domain() }
    }
}
