//! Which kubelet certificates are approved: a part of `CertificatePolicy`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// 367 days, a leap year and a day: what the most used approver takes as its maximum.
fn default_max_expiration_seconds() -> i32 {
    31_708_800
}

/// Which kubelet serving certificates are approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeletServingPolicy {
    /// Whether Keyplane judges requests of the signer `kubernetes.io/kubelet-serving` at all.
    #[serde(default = "KubeletServingPolicy::default_enabled")]
    pub enabled: bool,

    /// What becomes of a request that can never be right: `Deny` ends it, `Ignore` leaves it for another approver or a
    /// person.
    #[serde(default)]
    pub on_violation: OnViolation,

    /// Whether Keyplane only says, in Events, log and metrics, what it would do: no request is approved or denied.
    #[serde(default)]
    pub dry_run: bool,

    /// The longest lifetime, in seconds, that a request may ask for. 31708800 is 367 days, a leap year and a day.
    #[serde(default = "default_max_expiration_seconds")]
    #[schemars(range(min = 600, max = 31_708_800))]
    pub max_expiration_seconds: i32,

    /// Domains in which a Node may have a DNS name beside its own: with `example.com`, the Node `worker1` may also be
    /// `worker1.example.com`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 200)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(d, !format.dns1123Subdomain().validate(d).hasValue())")
        .message("spec.kubeletServing.dnsDomains: each must be a lower-case DNS name, for example example.com"))]
    pub dns_domains: Vec<String>,

    /// A regular expression that each DNS name of a request has to match as a whole, beside all other rules, for example
    /// `worker-[0-9]+`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("'x'.matches(self) in [true, false]")
        .message("spec.kubeletServing.dnsNameRegex must be a regular expression in RE2's syntax, for example worker-[0-9]+"))]
    pub dns_name_regex: Option<String>,

    /// Ranges in which each IP address of a request has to lie, beside all other rules. Not set means no further limit.
    #[serde(rename = "addressCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c) && cidr(c) == cidr(c).masked())")
        .message("spec.kubeletServing.addressCIDRs: each must be a range with its host bits zero, for example 10.0.1.0/24"))]
    pub address_cidrs: Vec<String>,

    /// Whether each DNS name of a request has to resolve, from where Keyplane runs, to addresses of that Node and to no
    /// others. The name is looked up as it stands, without search domains.
    #[serde(default)]
    pub forward_resolution: bool,

    /// What becomes of a request for an address that nobody has declared for the Node: `Deny` ends it, `Wait` leaves it
    /// pending until somebody declares the address.
    #[serde(default)]
    pub undeclared_address: UndeclaredAddress,

    /// The most names and addresses that a request may have.
    #[serde(default = "KubeletServingPolicy::default_max_names")]
    #[schemars(range(min = 1, max = 64))]
    pub max_names: i32,
}

impl KubeletServingPolicy {
    fn default_enabled() -> bool {
        true
    }

    /// A machine with more names and addresses than this is none.
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

/// Which kubelet client certificates are approved: the one with which a kubelet joins, and those with which it renews.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeletClientPolicy {
    /// Whether Keyplane judges requests of the signer `kubernetes.io/kube-apiserver-client-kubelet`. If so, the target
    /// does not get kubeadm's bindings by which the controller-manager approves every one of them unseen.
    #[serde(default)]
    pub enabled: bool,

    /// As `kubeletServing.onViolation`.
    #[serde(default)]
    pub on_violation: OnViolation,

    /// As `kubeletServing.dryRun`. Kubeadm's bindings stay meanwhile.
    #[serde(default)]
    pub dry_run: bool,

    /// As `kubeletServing.maxExpirationSeconds`.
    #[serde(default = "default_max_expiration_seconds")]
    #[schemars(range(min = 600, max = 31_708_800))]
    pub max_expiration_seconds: i32,

    /// What becomes of a bootstrap token's request for a Node that is there already, as that of a machine which was
    /// installed anew: `Wait` leaves it pending until somebody deletes the Node, `Approve` lets whoever has a token of the
    /// pool become any of its Nodes.
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

/// What holds for requests of both kinds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SigningRequestPolicy {
    /// How old a request may become. After that it is left pending and not looked at any more; a kubelet gives up after
    /// 15 minutes and asks anew.
    #[serde(default = "SigningRequestPolicy::default_wait_limit")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && duration(self) >= duration('1m') && duration(self) <= duration('24h')")
        .message("spec.signingRequests.waitLimit must be a duration of hours, minutes and seconds from 1m to 24h, for example 1h"))]
    pub wait_limit: String,

    /// How many pending requests for one Node are looked at, the newest first. Older ones are left pending.
    #[serde(default = "SigningRequestPolicy::default_pending_per_node")]
    #[schemars(range(min = 1, max = 100))]
    pub pending_per_node: i32,

    /// How many pending requests of one requester are looked at, which for a bootstrap token is a whole pool.
    #[serde(default = "SigningRequestPolicy::default_pending_per_requester")]
    #[schemars(range(min = 1, max = 10_000))]
    pub pending_per_requester: i32,

    /// The keys that may be certified.
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
    /// Four times as long as a kubelet waits (15 minutes, `certificateWaitTimeout` of client-go), which also leaves room
    /// for clocks that differ.
    fn default_wait_limit() -> String {
        "1h".to_owned()
    }

    /// A kubelet has one request under way for each of its certificates, and one more for each restart meanwhile.
    fn default_pending_per_node() -> i32 {
        5
    }

    /// As many machines as join at once with one token, and some.
    fn default_pending_per_requester() -> i32 {
        200
    }

    fn default_key_algorithms() -> Vec<RequestKeyAlgorithm> {
        vec![RequestKeyAlgorithm::EcdsaP256, RequestKeyAlgorithm::EcdsaP384, RequestKeyAlgorithm::Rsa]
    }

    /// The least that NIST and the CA/Browser Forum allow.
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

/// What becomes of a request that can never be right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnViolation {
    /// It is denied, with the reason.
    #[default]
    Deny,
    /// It is left pending, and an Event has the reason.
    Ignore,
}

/// What becomes of a request for an address that nobody has declared for the Node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UndeclaredAddress {
    /// It can't become right.
    #[default]
    Deny,
    /// It is left pending until somebody declares the address.
    Wait,
}

/// What becomes of a bootstrap token's request for a Node that is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExistingNode {
    /// It is left pending until somebody deletes the Node.
    #[default]
    Wait,
    /// It is judged as if the Node were new.
    Approve,
}

/// A kind of key that a kubelet may ask to have certified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RequestKeyAlgorithm {
    /// ECDSA on the curve P-256, which kubelets make.
    #[serde(rename = "ECDSA-P256")]
    EcdsaP256,
    /// ECDSA on the curve P-384.
    #[serde(rename = "ECDSA-P384")]
    EcdsaP384,
    /// RSA, from `minRSABits` on.
    #[serde(rename = "RSA")]
    Rsa,
}

/// Which Nodes of the cluster that Keyplane itself runs in get serving certificates. What a Node says of itself is not
/// enough: a person declares its name and its addresses here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.nodes) && self.nodes.size() > 0) || (has(self.machines) && self.machines.size() > 0)")
    .message("spec.approver: declare nodes (namePattern and addressCIDRs) or machines (name and addresses); without either no request is ever approved"))]
#[x_kube(validation = Rule::new(
    "!has(self.machines) || self.machines.all(a, self.machines.exists_one(b, b.addresses.exists(y, y in a.addresses)))"
).message("spec.approver.machines: an address is listed for two machines: each address belongs to one machine"))]
pub struct ApproverSpec {
    /// Nodes by a pattern of names and ranges of addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub nodes: Vec<NodeSelector>,

    /// Single Nodes by name. One that is listed here has these addresses and no others, and may have one of
    /// `reserved.endpoints`, as a control-plane machine without a load balancer in front of it does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub machines: Vec<ApproverMachine>,

    /// What no Node may have in its certificate.
    pub reserved: ReservedForCluster,
}

/// Nodes by name and address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    /// The Nodes' names, with `*` for any characters but a dot, for example `worker-*`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9*]([a-z0-9.*-]*[a-z0-9*])?$')")
        .message("spec.approver.nodes[].namePattern must be a lower-case DNS name with * for any characters but a dot, for example worker-*"))]
    pub name_pattern: String,

    /// The ranges in which every address of such a Node lies.
    #[serde(rename = "addressCIDRs")]
    #[schemars(length(min = 1, max = 16), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c) && cidr(c) == cidr(c).masked())")
        .message("spec.approver.nodes[].addressCIDRs: each must be a range with its host bits zero, for example 10.0.1.0/24"))]
    pub address_cidrs: Vec<String>,

    /// How many Nodes may have such a name. Not set means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_nodes: Option<i32>,
}

/// One Node by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApproverMachine {
    /// The Node's name.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("!format.dns1123Subdomain().validate(self).hasValue()")
        .message("spec.approver.machines[].name must be a lower-case DNS name, for example cp1"))]
    pub name: String,

    /// The machine's IP addresses.
    #[schemars(length(min = 1, max = 4), inner(length(max = 39)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(a, isIP(a) && ip.isCanonical(a))")
        .message("spec.approver.machines[].addresses: each must be an IP address in its canonical form, for example 10.0.0.21 or fd00::15"))]
    pub addresses: Vec<String>,
}

/// What no Node of the cluster may have in its certificate, whoever claims it. Loopback, link-local and other Nodes'
/// addresses are reserved anyway, and so are `kubernetes`, `localhost` and the cluster's DNS domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservedForCluster {
    /// The ranges of the Services, as the API server's `--service-cluster-ip-range` has them.
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

    /// The ranges of the Pods, where Pods do not share the Nodes' addresses.
    #[serde(rename = "podCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c) && cidr(c) == cidr(c).masked())")
        .message("spec.approver.reserved.podCIDRs: each must be a range with its host bits zero, for example 10.244.0.0/16"))]
    pub pod_cidrs: Vec<String>,

    /// More ranges that no Node may have an address in, for example those of load balancers.
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
