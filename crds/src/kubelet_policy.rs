//! The approval of kubelet certificates: a part of `CertificatePolicy`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// 367 days, a leap year and a day: the maximum of the most used approver.
fn default_max_expiration_seconds() -> i32 {
    31_708_800
}

/// The approval of kubelet serving certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeletServingPolicy {
    /// Whether Keyplane decides about CSRs of the signer `kubernetes.io/kubelet-serving`.
    #[serde(default = "KubeletServingPolicy::default_enabled")]
    pub enabled: bool,

    /// How Keyplane handles a CSR that can never become valid: `Deny` denies it, `Ignore` leaves it pending for another
    /// approver or a person.
    #[serde(default)]
    pub on_violation: OnViolation,

    /// Whether Keyplane only reports its decisions, in Events, log and metrics. A dry run approves and denies nothing.
    #[serde(default)]
    pub dry_run: bool,

    /// The longest lifetime, in seconds, that a CSR may request. 31708800 is 367 days, a leap year and a day.
    #[serde(default = "default_max_expiration_seconds")]
    #[schemars(range(min = 600, max = 31_708_800))]
    pub max_expiration_seconds: i32,

    /// Domains in which a Node may have a second DNS name. With `example.com`, the Node `worker1` may also be
    /// `worker1.example.com`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 200)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(d, !format.dns1123Subdomain().validate(d).hasValue())")
        .message("spec.kubeletServing.dnsDomains: each must be a lower-case DNS name, for example example.com"))]
    pub dns_domains: Vec<String>,

    /// A regular expression that each DNS name of a CSR must match as a whole, in addition to all other rules, for
    /// example `worker-[0-9]+`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("'x'.matches(self) in [true, false]")
        .message("spec.kubeletServing.dnsNameRegex must be a regular expression in RE2's syntax, for example worker-[0-9]+"))]
    pub dns_name_regex: Option<String>,

    /// Ranges that must contain each IP address of a CSR, in addition to all other rules. Not set means no further
    /// limit.
    #[serde(rename = "addressCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c) && cidr(c) == cidr(c).masked())")
        .message("spec.kubeletServing.addressCIDRs: each must be a range with its host bits zero, for example 10.0.1.0/24"))]
    pub address_cidrs: Vec<String>,

    /// Whether each DNS name of a CSR must resolve to addresses of that Node, and to no others. Keyplane's own resolver
    /// looks up the name unchanged, without search domains.
    #[serde(default)]
    pub forward_resolution: bool,

    /// How Keyplane handles a CSR for an address that is not declared for the Node. `Deny` denies it. `Wait` leaves it
    /// pending until somebody declares the address.
    #[serde(default)]
    pub undeclared_address: UndeclaredAddress,

    /// The maximum number of names and addresses in a CSR.
    #[serde(default = "KubeletServingPolicy::default_max_names")]
    #[schemars(range(min = 1, max = 64))]
    pub max_names: i32,
}

impl KubeletServingPolicy {
    fn default_enabled() -> bool {
        true
    }

    /// No real node has more names and addresses.
    fn default_max_names() -> i32 {
        64
    }
}

impl Default for KubeletServingPolicy {
    fn default() -> Self {
        Self {
            enabled: Self::default_enabled(),
            on_violation: OnViolation::default(),
            dry_run: false,
            max_expiration_seconds: default_max_expiration_seconds(),
            dns_domains: vec![],
            dns_name_regex: None,
            address_cidrs: vec![],
            forward_resolution: false,
            undeclared_address: UndeclaredAddress::default(),
            max_names: Self::default_max_names(),
        }
    }
}

/// The approval of kubelet client certificates: the first one, with which a kubelet joins, and the renewed ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeletClientPolicy {
    /// Whether Keyplane decides about CSRs of the signer `kubernetes.io/kube-apiserver-client-kubelet`. If so, Keyplane
    /// does not create kubeadm's bindings in the target cluster. With these bindings, the controller-manager approves
    /// every such CSR unchecked.
    #[serde(default)]
    pub enabled: bool,

    /// As `kubeletServing.onViolation`.
    #[serde(default)]
    pub on_violation: OnViolation,

    /// As `kubeletServing.dryRun`. During a dry run, kubeadm's bindings stay.
    #[serde(default)]
    pub dry_run: bool,

    /// As `kubeletServing.maxExpirationSeconds`.
    #[serde(default = "default_max_expiration_seconds")]
    #[schemars(range(min = 600, max = 31_708_800))]
    pub max_expiration_seconds: i32,

    /// How Keyplane handles a bootstrap token's CSR for an existing Node, for example that of a reinstalled node.
    /// `Wait` leaves it pending until somebody deletes the Node. `Approve` lets any holder of a token of the pool
    /// become any of its Nodes.
    #[serde(default)]
    pub existing_node: ExistingNode,
}

impl Default for KubeletClientPolicy {
    fn default() -> Self {
        Self {
            enabled: false,
            on_violation: OnViolation::default(),
            dry_run: false,
            max_expiration_seconds: default_max_expiration_seconds(),
            existing_node: ExistingNode::default(),
        }
    }
}

/// Limits for CSRs of both signers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SigningRequestPolicy {
    /// The maximum age of a CSR. Keyplane leaves an older one pending and ignores it. A kubelet gives up after 15
    /// minutes and creates a new CSR.
    #[serde(default = "SigningRequestPolicy::default_wait_limit")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && duration(self) >= duration('1m') && duration(self) <= duration('24h')")
        .message("spec.signingRequests.waitLimit must be a duration of hours, minutes and seconds from 1m to 24h, for example 1h"))]
    pub wait_limit: String,

    /// The number of pending CSRs for one Node that Keyplane evaluates, the newest first. Older ones stay pending.
    #[serde(default = "SigningRequestPolicy::default_pending_per_node")]
    #[schemars(range(min = 1, max = 100))]
    pub pending_per_node: i32,

    /// The number of pending CSRs of one requester that Keyplane evaluates. For a bootstrap token, the requester is a
    /// whole pool.
    #[serde(default = "SigningRequestPolicy::default_pending_per_requester")]
    #[schemars(range(min = 1, max = 10_000))]
    pub pending_per_requester: i32,

    /// The accepted key algorithms.
    #[serde(default = "SigningRequestPolicy::default_key_algorithms")]
    #[schemars(length(min = 1, max = 3))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub key_algorithms: Vec<RequestKeyAlgorithm>,

    /// The shortest RSA key, in bits.
    #[serde(rename = "minRSABits", default = "SigningRequestPolicy::default_min_rsa_bits")]
    #[schemars(range(min = 2048, max = 8192))]
    pub min_rsa_bits: i32,
}

impl SigningRequestPolicy {
    /// Four times as long as a kubelet waits (15 minutes, `certificateWaitTimeout` of client-go). The rest is a margin
    /// for clocks that differ.
    fn default_wait_limit() -> String {
        "1h".to_owned()
    }

    /// A kubelet has one pending CSR for each of its certificates, and one more for each restart meanwhile.
    fn default_pending_per_node() -> i32 {
        5
    }

    /// The number of nodes that join at once with one token, plus a margin.
    fn default_pending_per_requester() -> i32 {
        200
    }

    fn default_key_algorithms() -> Vec<RequestKeyAlgorithm> {
        vec![RequestKeyAlgorithm::EcdsaP256, RequestKeyAlgorithm::EcdsaP384, RequestKeyAlgorithm::Rsa]
    }

    /// The minimum of NIST and the CA/Browser Forum.
    fn default_min_rsa_bits() -> i32 {
        2048
    }
}

impl Default for SigningRequestPolicy {
    fn default() -> Self {
        Self {
            wait_limit: Self::default_wait_limit(),
            pending_per_node: Self::default_pending_per_node(),
            pending_per_requester: Self::default_pending_per_requester(),
            key_algorithms: Self::default_key_algorithms(),
            min_rsa_bits: Self::default_min_rsa_bits(),
        }
    }
}

/// How Keyplane handles a CSR that can never become valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnViolation {
    /// Denies the CSR, with the reason.
    #[default]
    Deny,
    /// Leaves the CSR pending, and records the reason in an Event.
    Ignore,
}

/// How Keyplane handles a CSR for an address that is not declared for the Node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UndeclaredAddress {
    /// Treats the CSR as a violation.
    #[default]
    Deny,
    /// Leaves the CSR pending until somebody declares the address.
    Wait,
}

/// How Keyplane handles a bootstrap token's CSR for an existing Node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExistingNode {
    /// Leaves the CSR pending until somebody deletes the Node.
    #[default]
    Wait,
    /// Evaluates the CSR as if the Node were new.
    Approve,
}

/// A key algorithm that a kubelet's CSR may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RequestKeyAlgorithm {
    /// ECDSA on the curve P-256, the algorithm of kubelets.
    #[serde(rename = "ECDSA-P256")]
    EcdsaP256,
    /// ECDSA on the curve P-384.
    #[serde(rename = "ECDSA-P384")]
    EcdsaP384,
    /// RSA, with at least `minRSABits` bits.
    #[serde(rename = "RSA")]
    Rsa,
}

/// The Nodes of Keyplane's own cluster that get serving certificates. The names and addresses in a Node's status alone
/// are not enough: a person declares them in this section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.nodes) && self.nodes.size() > 0) || (has(self.machines) && self.machines.size() > 0)")
    .message("spec.approver: declare nodes (namePattern and addressCIDRs) or machines (name and addresses); without either no request is ever approved"))]
#[x_kube(validation = Rule::new(
    "!has(self.machines) || self.machines.all(a, self.machines.exists_one(b, b.addresses.exists(y, y in a.addresses)))"
).message("spec.approver.machines: an address is listed for two nodes: each address belongs to one node"))]
pub struct ApproverSpec {
    /// Nodes by a pattern of names and ranges of addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub nodes: Vec<NodeSelector>,

    /// Single Nodes by name. A Node in this list has these addresses and no others. It may have one of
    /// `reserved.endpoints`, like a control-plane node without a load balancer in front of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub machines: Vec<ApproverMachine>,

    /// Names and addresses that no Node may have in its certificate.
    pub reserved: ReservedForCluster,
}

/// Nodes by name and address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    /// The names of the Nodes, with `*` for any characters but a dot, for example `worker-*`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9*]([a-z0-9.*-]*[a-z0-9*])?$')")
        .message("spec.approver.nodes[].namePattern must be a lower-case DNS name with * for any characters but a dot, for example worker-*"))]
    pub name_pattern: String,

    /// The ranges that must contain every address of such a Node.
    #[serde(rename = "addressCIDRs")]
    #[schemars(length(min = 1, max = 16), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c) && cidr(c) == cidr(c).masked())")
        .message("spec.approver.nodes[].addressCIDRs: each must be a range with its host bits zero, for example 10.0.1.0/24"))]
    pub address_cidrs: Vec<String>,

    /// The quota of Nodes with such a name. Not set means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_nodes: Option<i32>,
}

/// One Node by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApproverMachine {
    /// The name of the Node.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("!format.dns1123Subdomain().validate(self).hasValue()")
        .message("spec.approver.machines[].name must be a lower-case DNS name, for example cp1"))]
    pub name: String,

    /// The node's IP addresses.
    #[schemars(length(min = 1, max = 4), inner(length(max = 39)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(a, isIP(a) && ip.isCanonical(a))")
        .message("spec.approver.machines[].addresses: each must be an IP address in its canonical form, for example 10.0.0.21 or fd00::15"))]
    pub addresses: Vec<String>,
}

/// Names and addresses that no Node of the cluster may have in its certificate. Always reserved are loopback and
/// link-local addresses, the addresses of other Nodes, `kubernetes`, `localhost` and the cluster's DNS domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservedForCluster {
    /// The ranges of the Services, as in the API server's `--service-cluster-ip-range`.
    #[serde(rename = "serviceCIDRs")]
    #[schemars(length(min = 1, max = 4), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c) && cidr(c) == cidr(c).masked())")
        .message("spec.approver.reserved.serviceCIDRs: each must be a range with its host bits zero, for example 10.96.0.0/12"))]
    pub service_cidrs: Vec<String>,

    /// Names and addresses at which clients reach the API servers: the host in your kubeconfig, a load balancer.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(e, isIP(e) || !format.dns1123Subdomain().validate(e).hasValue())")
        .message("spec.approver.reserved.endpoints: each must be an IP address or a lower-case DNS name without a port, for example api.example.com"))]
    pub endpoints: Vec<String>,

    /// The ranges of the Pods, if Pods do not share the addresses of the Nodes.
    #[serde(rename = "podCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c) && cidr(c) == cidr(c).masked())")
        .message("spec.approver.reserved.podCIDRs: each must be a range with its host bits zero, for example 10.244.0.0/16"))]
    pub pod_cidrs: Vec<String>,

    /// Additional ranges that no Node may have an address in, for example those of load balancers.
    #[serde(rename = "addressCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c) && cidr(c) == cidr(c).masked())")
        .message("spec.approver.reserved.addressCIDRs: each must be a range with its host bits zero, for example 192.0.2.0/28"))]
    pub address_cidrs: Vec<String>,

    /// The cluster's DNS domain.
    #[serde(default = "ReservedForCluster::default_dns_domain")]
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(validation = Rule::new("!format.dns1123Subdomain().validate(self).hasValue()")
        .message("spec.approver.reserved.dnsDomain must be a lower-case DNS name, for example cluster.local"))]
    pub dns_domain: String,
}

impl ReservedForCluster {
    /// kubeadm's default.
    fn default_dns_domain() -> String {
        "cluster.local".to_owned()
    }
}
