//! The control plane of a target cluster: its endpoint, nodes and components.

use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The address at which clients reach the API servers of the target cluster. It belongs to a load balancer, to the only
/// node, or is a virtual address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneEndpoint {
    /// A DNS name or an IP address, without brackets.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("isIP(self) || !format.dns1123Subdomain().validate(self).hasValue()")
        .message("spec.controlPlaneEndpoint.host must be an IP address or a lower-case DNS name, for example api.demo.example"))]
    pub host: String,

    /// The port of the endpoint.
    #[serde(default = "ControlPlaneEndpoint::default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

impl ControlPlaneEndpoint {
    /// kube-apiserver's own port.
    fn default_port() -> i32 {
        6443
    }
}

/// The control-plane nodes and the components on them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "self.nodes.all(a, self.nodes.exists_one(b, b.addresses.exists(y, y in a.addresses)))"
).message("spec.controlPlane.nodes: an address is listed for two nodes: each address belongs to one node"))]
#[x_kube(validation = Rule::new("self.nodes.exists(n, oldSelf.nodes.exists(o, o.name == n.name))")
    .message("spec.controlPlane.nodes: at least one of the former nodes must stay, because new members of etcd join the existing ones: replace the nodes one after the other"))]
#[x_kube(validation = Rule::new(
    "self.nodes.all(n, oldSelf.nodes.exists(o, o.name == n.name) || !oldSelf.nodes.exists(o, o.addresses.exists(a, a in n.addresses)))"
).message("spec.controlPlane.nodes: a node can't be renamed, and a new node can't have the address of a removed one: remove the old node first, and add the new node once status lists no certificate of the old one"))]
#[x_kube(validation = Rule::new("self.registerNodes || self.layout == 'Systemd'")
    .message("spec.controlPlane.registerNodes can be false only with the layout Systemd: static pods need a kubelet, and a kubelet registers its Node"))]
#[x_kube(validation = Rule::new("self.registerNodes || (!has(self.kubelet) && !has(self.taints))")
    .message("spec.controlPlane: kubelet and taints are for Nodes, and with registerNodes: false there are none: leave them out"))]
#[x_kube(validation = Rule::new(
    "self.layout == 'StaticPod' || [has(self.apiServer.extraVolumes), has(self.apiServer.resources), has(self.controllerManager.extraVolumes), has(self.controllerManager.resources), has(self.scheduler.extraVolumes), has(self.scheduler.resources)].all(set, !set)"
).message("spec.controlPlane: extraVolumes and resources are for containers; with the layout Systemd a component sees the node's own files: leave them out, and limit a unit with a drop-in"))]
pub struct ControlPlane {
    /// The nodes, in the order in which you created them. The first one has super-admin.conf, as with `kubeadm init`.
    #[schemars(length(min = 1, max = 9))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub nodes: Vec<ControlPlaneNode>,

    /// How the components run on these nodes: as static pods with kubeadm's paths, or as systemd units with the paths
    /// of Kubernetes the Hard Way.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.controlPlane.layout can't be changed while the cluster exists: every file would move; write the old value back, or create a new ClusterSpec"))]
    pub layout: Layout,

    /// Whether these nodes run a kubelet and register as Nodes. Can be false only with the layout `Systemd`.
    #[serde(default = "ControlPlane::default_register_nodes")]
    pub register_nodes: bool,

    /// Settings of the kubelets on these nodes: a part of a KubeletConfiguration, merged over the one that kubeadm
    /// would write. Keyplane sets `staticPodPath`, `rotateCertificates`, `serverTLSBootstrap` and
    /// `containerRuntimeEndpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "partial_kubelet_configuration")]
    #[x_kube(validation = Rule::new("!has(self.apiVersion) && !has(self.kind)")
        .message("spec.controlPlane.kubelet is a part of a KubeletConfiguration: leave apiVersion and kind out"))]
    #[x_kube(validation = Rule::new("!has(self.staticPodPath) && !has(self.rotateCertificates) && !has(self.serverTLSBootstrap) && !has(self.containerRuntimeEndpoint)")
        .message("spec.controlPlane.kubelet: staticPodPath, rotateCertificates, serverTLSBootstrap and containerRuntimeEndpoint are set by Keyplane: leave them out"))]
    pub kubelet: Option<Map<String, Value>>,

    /// The taints of the control-plane Nodes. Not set means kubeadm's
    /// `node-role.kubernetes.io/control-plane:NoSchedule`. An empty list means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub taints: Option<Vec<Taint>>,

    /// kube-apiserver.
    #[serde(default)]
    pub api_server: ApiServer,

    /// kube-controller-manager.
    #[serde(default)]
    pub controller_manager: Component,

    /// kube-scheduler.
    #[serde(default)]
    pub scheduler: Component,
}

impl ControlPlane {
    /// As kubeadm: a control-plane node has a Node object.
    fn default_register_nodes() -> bool {
        true
    }
}

/// How the components run on the control-plane nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Layout {
    /// Static pods of the kubelet, with kubeadm's files.
    #[default]
    StaticPod,
    /// Systemd units, with the files of Kubernetes the Hard Way.
    Systemd,
}

/// One control-plane node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.nodeIP) || self.addresses.exists(a, a == self.nodeIP)")
    .message("spec.controlPlane.nodes[].nodeIP must be one of the node's addresses"))]
#[x_kube(validation = Rule::new("(has(self.nodeIP) ? self.nodeIP : self.addresses[0]) == (has(oldSelf.nodeIP) ? oldSelf.nodeIP : oldSelf.addresses[0])")
    .message("spec.controlPlane.nodes[]: the address of a node (nodeIP, or the first of addresses) can't be changed: etcd's members know each other by it; take the node out and add it under another name, or set nodeIP to the old address"))]
pub struct ControlPlaneNode {
    /// The name of the Node. It is also the node's identity in certificates and in etcd.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("!format.dns1123Subdomain().validate(self).hasValue()")
        .message("spec.controlPlane.nodes[].name must be a lower-case DNS name, for example cp1"))]
    pub name: String,

    /// The node's IP addresses. A kubelet's serving certificate may contain these and no others.
    #[schemars(length(min = 1, max = 8), inner(length(max = 39)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(a, isIP(a) && ip.isCanonical(a))")
        .message("spec.controlPlane.nodes[].addresses: each must be an IP address in its canonical form, for example 10.0.0.11 or fd00::b"))]
    #[x_kube(validation = Rule::new("self.all(a, !isIP(a) || !(ip(a).isLoopback() || ip(a).isLinkLocalUnicast() || ip(a).isLinkLocalMulticast() || ip(a).isUnspecified()))")
        .message("spec.controlPlane.nodes[].addresses: loopback, link-local, multicast and unspecified addresses can't be a node's address"))]
    pub addresses: Vec<String>,

    /// The address that the API server advertises, etcd listens on and the kubelet reports: one of `addresses`. Not set
    /// means the first.
    #[serde(rename = "nodeIP", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub node_ip: Option<String>,

    /// The failure domain of the node, for example a zone, a rack or a room. Nodes that can fail together have the same
    /// value. It determines the condition `SpreadAcrossFailureDomains`. It also becomes the Node's label
    /// `topology.kubernetes.io/zone`, if the Node has no such label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$')")
        .message("spec.controlPlane.nodes[].failureDomain must be a label value: letters, digits, '-', '_' and '.', for example zone-a"))]
    pub failure_domain: Option<String>,
}

impl ControlPlaneNode {
    /// The address that the API server advertises: `nodeIP`, or the first address.
    #[must_use]
    pub fn primary_address(&self) -> Option<&str> {
        self.node_ip.as_deref().or(self.addresses.first().map(String::as_str))
    }
}

/// kube-apiserver: the settings of every component, and the names in its certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiServer {
    /// Additional DNS names and IP addresses for the serving certificate.
    #[serde(rename = "certSANs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new("self.all(s, isIP(s) || !format.dns1123Subdomain().validate(s.startsWith('*.') ? s.substring(2) : s).hasValue())")
        .message("spec.controlPlane.apiServer.certSANs: each must be an IP address or a lower-case DNS name"))]
    pub cert_sans: Vec<String>,

    /// Additional flags, or other values for existing flags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub extra_args: Vec<Argument>,

    /// Directories or files of the node to mount into the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub extra_volumes: Vec<HostPathMount>,

    /// The container's resources in place of kubeadm's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

/// kube-controller-manager or kube-scheduler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// Additional flags, or other values for existing flags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub extra_args: Vec<Argument>,

    /// Directories or files of the node to mount into the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub extra_volumes: Vec<HostPathMount>,

    /// The container's resources in place of kubeadm's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

/// One flag of a component. A name may occur more than once, for flags with several values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Argument {
    /// The flag's name without leading dashes, for example `audit-log-path`.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9][a-zA-Z0-9-]*$')")
        .message("extraArgs[].name is the flag without leading dashes and without a value, for example audit-log-path"))]
    pub name: String,

    /// The flag's value.
    #[schemars(length(max = 4096))]
    #[x_kube(validation = Rule::new("!self.contains('\\n')").message("extraArgs[].value must be one line"))]
    pub value: String,
}

/// A directory or file of the node in a component's container, as in kubeadm's `extraVolumes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostPathMount {
    /// The volume's name in the pod.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("!format.dns1123Label().validate(self).hasValue()")
        .message("extraVolumes[].name must be a lower-case DNS label, for example audit-policy"))]
    pub name: String,

    /// The path on the node.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("extraVolumes[].hostPath must be absolute"))]
    pub host_path: String,

    /// The path in the container.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("extraVolumes[].mountPath must be absolute"))]
    pub mount_path: String,

    /// Whether the mount is read-only.
    #[serde(default)]
    pub read_only: bool,

    /// The hostPath type of the Kubernetes API, for example `DirectoryOrCreate`. Not set means no check.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self in ['', 'DirectoryOrCreate', 'Directory', 'FileOrCreate', 'File', 'Socket', 'CharDevice', 'BlockDevice']")
        .message("extraVolumes[].pathType must be DirectoryOrCreate, Directory, FileOrCreate, File, Socket, CharDevice or BlockDevice"))]
    pub path_type: String,
}

/// A taint of a Node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    /// The taint's key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,

    /// The taint's value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub value: String,

    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self in ['NoSchedule', 'PreferNoSchedule', 'NoExecute']")
        .message("taints[].effect must be NoSchedule, PreferNoSchedule or NoExecute"))]
    pub effect: String,
}

/// Images in place of those from `imageRepository` and the versions: whole references with a tag or digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Images {
    /// kube-apiserver's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub api_server: Option<String>,

    /// kube-controller-manager's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub controller_manager: Option<String>,

    /// kube-scheduler's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub scheduler: Option<String>,

    /// etcd's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub etcd: Option<String>,

    /// The image of each Pod's sandbox, which the configuration of the container runtime names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub pause: Option<String>,

    /// CoreDNS's image.
    #[serde(rename = "coreDNS", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub core_dns: Option<String>,

    /// kube-proxy's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub kube_proxy: Option<String>,

    /// Flannel's image. `imageRepository` does not apply to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub flannel: Option<String>,

    /// The image of Flannel's CNI plugin. `imageRepository` does not apply to it.
    #[serde(rename = "flannelCNIPlugin", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub flannel_cni_plugin: Option<String>,
}

/// A part of a KubeletConfiguration. The API server keeps all fields. The schema names the fields that a rule refers
/// to, because CEL sees no others.
pub(crate) fn partial_kubelet_configuration(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "staticPodPath": {"type": "string"},
            "rotateCertificates": {"type": "boolean"},
            "serverTLSBootstrap": {"type": "boolean"},
            "containerRuntimeEndpoint": {"type": "string"},
        },
    })
}
