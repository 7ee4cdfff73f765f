//! `NodePool`: machines that may join a cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::LocalReference;

/// Machines that may join one target cluster. A kubelet's serving certificate is approved only for names and addresses
/// that its pool declares, whatever the Node says of itself.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "keyplane.io",
    version = "v1alpha1",
    kind = "NodePool",
    plural = "nodepools",
    doc = "Machines that may join one target cluster.",
    shortname = "knp",
    category = "keyplane",
    namespaced,
    status = "NodePoolStatus",
    derive = "PartialEq",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.clusterRef == oldSelf.clusterRef")
    .message("spec.clusterRef can't be changed: make a NodePool for the other cluster"))]
#[x_kube(validation = Rule::new("has(self.selector) || (has(self.machines) && self.machines.size() > 0)")
    .message("spec: declare machines, or a selector with namePattern and addressCIDRs; a pool with neither lets no machine in"))]
#[x_kube(validation = Rule::new(
    "!has(self.machines) || self.machines.all(a, self.machines.exists_one(b, b.addresses.exists(y, y in a.addresses)))"
).message("spec.machines: an address is listed for two machines: each address belongs to one machine"))]
#[x_kube(validation = Rule::new("!has(self.maxNodes) || has(self.selector)")
    .message("spec.maxNodes limits what spec.selector lets in: write a selector, or leave maxNodes out"))]
pub struct NodePoolSpec {
    /// The ClusterSpec in the same namespace.
    pub cluster_ref: LocalReference,

    /// What the machines are. A `Worker` pool declares nothing about control-plane nodes; a `ControlPlane` pool declares
    /// more addresses for nodes that the ClusterSpec names.
    #[serde(default)]
    pub role: NodePoolRole,

    /// Single machines, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub machines: Vec<Machine>,

    /// Machines by a pattern of names and ranges of addresses, where they come and go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<MachineSelector>,

    /// How many Nodes the selector may let in; machines that are listed by name don't count. The oldest Nodes come first.
    /// Not set means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_nodes: Option<i32>,
}

/// What the machines of a pool are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodePoolRole {
    /// Machines that run workloads.
    #[default]
    Worker,
    /// Machines of the control plane.
    ControlPlane,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// The Node's name.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("!format.dns1123Subdomain().validate(self).hasValue()")
        .message("spec.machines[].name must be a lower-case DNS name, for example worker1"))]
    pub name: String,

    /// The machine's IP addresses.
    #[schemars(length(min = 1, max = 4), inner(length(max = 39)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(a, isIP(a) && ip.isCanonical(a))")
        .message("spec.machines[].addresses: each must be an IP address in its canonical form, for example 10.0.0.21 or fd00::15"))]
    pub addresses: Vec<String>,
}

/// Machines by name and address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineSelector {
    /// The Nodes' names, with `*` for any characters but a dot, for example `worker-*`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9*]([a-z0-9.*-]*[a-z0-9*])?$')")
        .message("spec.selector.namePattern must be a lower-case DNS name with * for any characters but a dot, for example worker-*"))]
    pub name_pattern: String,

    /// The ranges in which every address of such a machine lies.
    #[serde(rename = "addressCIDRs")]
    #[schemars(length(min = 1, max = 16), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c) && cidr(c) == cidr(c).masked())")
        .message("spec.selector.addressCIDRs: each must be a range with its host bits zero, for example 10.0.1.0/24"))]
    pub address_cidrs: Vec<String>,
}

/// What Keyplane has seen of the pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePoolStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Machines that are declared by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<i32>,

    /// Ready: the ClusterSpec is there, and the declaration could be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
