//! `NodePool`: nodes that may join a cluster.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::control_plane::partial_kubelet_configuration;
use crate::{Bootstrap, LocalReference, Taint};

/// Nodes that may join one target cluster. Keyplane approves a kubelet's serving certificate only for names and
/// addresses that the pool declares. The names and addresses in the Node's status alone are not enough.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "keyplane.io",
    version = "v1alpha1",
    kind = "NodePool",
    plural = "nodepools",
    doc = "Nodes that may join one target cluster.",
    shortname = "knp",
    category = "keyplane",
    namespaced,
    status = "NodePoolStatus",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 50 && !format.dns1123Label().validate(self.metadata.name).hasValue()")
        .message("metadata.name must be a DNS label of at most 50 characters: it is in the names of the join data and of the token's group"),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.readyNodes"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desiredNodes"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.clusterRef == oldSelf.clusterRef")
    .message("spec.clusterRef can't be changed: create a NodePool for the other cluster"))]
#[x_kube(validation = Rule::new("has(self.selector) || (has(self.machines) && self.machines.size() > 0)")
    .message("spec: declare machines, or a selector with namePattern and addressCIDRs; a pool with neither admits no node"))]
#[x_kube(validation = Rule::new(
    "!has(self.machines) || self.machines.all(a, self.machines.exists_one(b, b.addresses.exists(y, y in a.addresses)))"
).message("spec.machines: an address is listed for two nodes: each address belongs to one node"))]
#[x_kube(validation = Rule::new("self.role == 'Worker' || !(has(self.kubelet) || has(self.labels) || has(self.taints) || has(self.sysctls) || has(self.bootstrap))")
    .message("spec: kubelet, labels, taints, sysctls and bootstrap are for pools with the role Worker; the ClusterSpec configures control-plane nodes: leave them out"))]
#[x_kube(validation = Rule::new("!has(self.selector) || !has(self.labels) || !self.labels.exists(k, k.matches('^node-role[.]kubernetes[.]io/|^([^/]*[.])?node-restriction[.]kubernetes[.]io/'))")
    .message("spec.labels: a kubelet may not set its own labels of node-role.kubernetes.io and node-restriction.kubernetes.io; Keyplane sets them on nodes that are declared by name: list the nodes in spec.machines in place of the selector, or leave these labels out"))]
#[x_kube(validation = Rule::new("!has(self.maxNodes) || has(self.selector)")
    .message("spec.maxNodes is the quota of spec.selector: set a selector, or leave maxNodes out"))]
pub struct NodePoolSpec {
    /// The ClusterSpec in the same namespace.
    pub cluster_ref: LocalReference,

    /// The role of the nodes. A `Worker` pool declares nothing about control-plane nodes. A `ControlPlane` pool
    /// declares additional addresses for nodes that the ClusterSpec names.
    #[serde(default)]
    pub role: NodePoolRole,

    /// Single nodes, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub machines: Vec<Machine>,

    /// Nodes by a pattern of names and ranges of addresses, for nodes that come and go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<MachineSelector>,

    /// The quota of Nodes for the selector. Nodes that are listed by name don't count. The oldest Nodes come first. Not
    /// set means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_nodes: Option<i32>,

    /// Settings of the kubelets on these nodes: a part of a KubeletConfiguration, merged over the one that kubeadm
    /// would write. Keyplane sets `staticPodPath`, `rotateCertificates`, `serverTLSBootstrap`,
    /// `containerRuntimeEndpoint`, `registerWithTaints` and `providerID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "partial_worker_kubelet_configuration")]
    #[x_kube(validation = Rule::new("!has(self.apiVersion) && !has(self.kind)")
        .message("spec.kubelet is a part of a KubeletConfiguration: leave apiVersion and kind out"))]
    #[x_kube(validation = Rule::new("!has(self.staticPodPath) && !has(self.rotateCertificates) && !has(self.serverTLSBootstrap) && !has(self.containerRuntimeEndpoint)")
        .message("spec.kubelet: staticPodPath, rotateCertificates, serverTLSBootstrap and containerRuntimeEndpoint are set by Keyplane: leave them out"))]
    #[x_kube(validation = Rule::new("!has(self.registerWithTaints) && !has(self.providerID)")
        .message("spec.kubelet: write taints in spec.taints and the provider's id in spec.machines[].providerID"))]
    pub kubelet: Option<Map<String, Value>>,

    /// Labels of the Nodes. A kubelet sets the labels that it is allowed to set when it registers its Node. Keyplane
    /// sets all of them on nodes that are declared by name, also on existing Nodes. A label that you remove from the
    /// list stays on the Node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    #[x_kube(validation = Rule::new("self.all(k, !format.qualifiedName().validate(k).hasValue() && !format.labelValue().validate(self[k]).hasValue())")
        .message("spec.labels: a key is a name with an optional DNS prefix, for example example.com/disk; a value has at most 63 letters, digits, and - _ . between them"))]
    #[x_kube(validation = Rule::new("self.all(k, !k.matches('^([^/]*[.])?(kubernetes|k8s)[.]io/') || k.matches('^([^/]*[.])?(kubelet|node|node-restriction)[.]kubernetes[.]io/|^topology[.]kubernetes[.]io/(zone|region)$') || (k.startsWith('node-role.kubernetes.io/') && !k.matches('/(control-plane|master)$')))")
        .message("spec.labels: of the labels of kubernetes.io and k8s.io a pool may set those of node.kubernetes.io, kubelet.kubernetes.io, node-restriction.kubernetes.io, topology.kubernetes.io/zone and /region, and node-role.kubernetes.io for roles other than the control plane's: use a prefix of your own"))]
    pub labels: BTreeMap<String, String>,

    /// Taints with which the kubelets register their Nodes. A kubelet can't change the taints of an existing Node, so a
    /// change applies to nodes that join later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.all(t, !format.qualifiedName().validate(t.key).hasValue() && (!has(t.value) || !format.labelValue().validate(t.value).hasValue()))")
        .message("spec.taints: a key is a name with an optional DNS prefix, for example example.com/gpu; a value is a label value"))]
    pub taints: Vec<Taint>,

    /// Additional kernel parameters, or other values for those that Kubernetes needs, for example
    /// `net.core.somaxconn: "4096"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "sysctls")]
    #[x_kube(validation = Rule::new("self.all(k, k.size() <= 128 && k.matches('^[a-z0-9_-]+([./][a-zA-Z0-9_*-]+)+$') && self[k].matches('^[ -~]+$'))")
        .message("spec.sysctls: a key is a parameter such as net.core.somaxconn, a value one line"))]
    pub sysctls: BTreeMap<String, String>,

    /// How the nodes join. Not set means a script, and tokens that are valid for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
}

/// The control plane's part of a KubeletConfiguration, and the fields that a pool sets in another place.
fn partial_worker_kubelet_configuration(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = partial_kubelet_configuration(generator);
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        let taint = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        properties.insert("registerWithTaints".to_owned(), json!({"type": "array", "maxItems": 16, "items": taint}));
        properties.insert("providerID".to_owned(), json!({"type": "string"}));
    }
    schema
}

/// A map of labels.
fn labels(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}

/// A map of kernel parameters.
fn sysctls(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 256},
    })
}

/// The role of the nodes in a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodePoolRole {
    /// Nodes that run workloads.
    #[default]
    Worker,
    /// Control-plane nodes.
    ControlPlane,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// The name of the Node.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("!format.dns1123Subdomain().validate(self).hasValue()")
        .message("spec.machines[].name must be a lower-case DNS name, for example worker1"))]
    pub name: String,

    /// The node's IP addresses.
    #[schemars(length(min = 1, max = 4), inner(length(max = 39)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(a, isIP(a) && ip.isCanonical(a))")
        .message("spec.machines[].addresses: each must be an IP address in its canonical form, for example 10.0.0.21 or fd00::15"))]
    pub addresses: Vec<String>,

    /// The failure domain of the node. It becomes the Node's label `topology.kubernetes.io/zone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("!format.labelValue().validate(self).hasValue()")
        .message("spec.machines[].failureDomain must be a label value: at most 63 letters, digits, and - _ . between them, for example rack-3"))]
    pub failure_domain: Option<String>,

    /// The cloud provider's identifier of the node, for example `aws:///eu-central-1a/i-0123456789abcdef0`. It becomes
    /// `spec.providerID` of the Node.
    #[serde(rename = "providerID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][A-Za-z0-9+.-]*://[A-Za-z0-9._~:/%@=+,-]+$')")
        .message("spec.machines[].providerID must be of the form provider://id, for example aws:///eu-central-1a/i-0123456789abcdef0"))]
    pub provider_id: Option<String>,
}

/// Nodes by name and address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineSelector {
    /// The names of the Nodes, with `*` for any characters but a dot, for example `worker-*`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9*]([a-z0-9.*-]*[a-z0-9*])?$')")
        .message("spec.selector.namePattern must be a lower-case DNS name with * for any characters but a dot, for example worker-*"))]
    pub name_pattern: String,

    /// The ranges that must contain every address of such a node.
    #[serde(rename = "addressCIDRs")]
    #[schemars(length(min = 1, max = 16), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c) && cidr(c) == cidr(c).masked())")
        .message("spec.selector.addressCIDRs: each must be a range with its host bits zero, for example 10.0.1.0/24"))]
    pub address_cidrs: Vec<String>,
}

/// The observed state of the pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePoolStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The number of nodes that the spec declares by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared_nodes: Option<i32>,

    /// The number of nodes of the pool that are Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_nodes: Option<i32>,

    /// The number of nodes of the pool: those that are declared by name, and those that have joined by the selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_nodes: Option<i32>,

    /// When the token in the join data expires. Not set means that no token exists, because no node is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_expires: Option<Time>,

    /// The nodes of the pool: those that are declared by name, and those that have joined by the selector.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 400))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub machines: Vec<MachineStatus>,

    /// Ready: the ClusterSpec exists, and the declaration is in force. `NodesReady`: all nodes are Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The observed state of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    /// The name of the Node.
    pub name: String,

    /// How far the node has joined.
    pub state: MachineState,

    /// When the state last changed.
    pub last_transition_time: Time,

    /// The reason for the state, in one word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,

    /// The reason for the state, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// How far a node has joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MachineState {
    /// The pool declares the node, and Keyplane has not seen it.
    Declared,
    /// The kubelet has requested a certificate.
    Bootstrapping,
    /// The Node exists and is not Ready.
    Joined,
    /// The Node is Ready.
    Ready,
    /// The node had joined. Its Node is gone, or its kubelet does not report.
    Missing,
}
