//! The add-ons of a target cluster, and the scale that its components are sized for.

use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Argument;

/// The add-ons of a target cluster. Keyplane applies them in the target cluster and leaves all other objects in it
/// unchanged. Keyplane removes an add-on that you disable, and ignores one that somebody else installed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Addons {
    /// The DNS server of the cluster, as kubeadm installs it.
    #[serde(rename = "coreDNS", default)]
    pub core_dns: CoreDns,

    /// The proxy that makes Services reachable on each node, as kubeadm installs it.
    #[serde(default)]
    pub kube_proxy: KubeProxy,

    /// A network for Pods. kubeadm installs none.
    #[serde(default)]
    pub flannel: Flannel,
}

/// CoreDNS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CoreDns {
    /// Whether Keyplane installs CoreDNS.
    #[serde(default = "on")]
    pub enabled: bool,

    /// The number of Pods. Not set means the number that follows from `spec.scale`. Without `spec.scale`, Keyplane
    /// starts with the two of kubeadm and then keeps the number that a person or an autoscaler sets in the target
    /// cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: Option<i32>,

    /// The container's resources in place of kubeadm's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// The whole Corefile in place of kubeadm's. Keyplane reverts manual changes of the ConfigMap in the target
    /// cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub corefile: Option<String>,
}

impl Default for CoreDns {
    fn default() -> Self {
        Self { enabled: true, replicas: None, resources: None, corefile: None }
    }
}

/// kube-proxy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeProxy {
    /// Whether Keyplane installs kube-proxy. Some networks, such as Cilium, replace it.
    #[serde(default = "on")]
    pub enabled: bool,

    /// The mode of kube-proxy: `iptables` (kubeadm's choice and the default), `nftables`, or `ipvs`, which is
    /// deprecated.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self in ['', 'iptables', 'nftables', 'ipvs']")
        .message("spec.addons.kubeProxy.mode must be iptables, nftables or ipvs; leave it out for kubeadm's choice, iptables"))]
    pub mode: String,

    /// A part of a KubeProxyConfiguration, merged over the one that kubeadm would write. Keyplane sets
    /// `clientConnection`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "partial_kube_proxy_configuration")]
    #[x_kube(validation = Rule::new("!has(self.apiVersion) && !has(self.kind)")
        .message("spec.addons.kubeProxy.config is a part of a KubeProxyConfiguration: leave apiVersion and kind out"))]
    #[x_kube(validation = Rule::new("!has(self.clientConnection)")
        .message("spec.addons.kubeProxy.config: clientConnection is set by Keyplane: leave it out"))]
    #[x_kube(validation = Rule::new("!has(self.mode)")
        .message("spec.addons.kubeProxy.config: write the mode as spec.addons.kubeProxy.mode"))]
    pub config: Option<Map<String, Value>>,

    /// The container's resources. kubeadm gives it none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

impl Default for KubeProxy {
    fn default() -> Self {
        Self { enabled: true, mode: String::new(), config: None, resources: None }
    }
}

/// Flannel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.enabled || !oldSelf.enabled || self.backend == oldSelf.backend")
    .message("spec.addons.flannel.backend can't be changed while Flannel runs: the old devices and routes would stay on the nodes; write the old value back"))]
pub struct Flannel {
    /// Whether Keyplane installs Flannel, which needs `spec.network.podCIDRs`.
    #[serde(default)]
    pub enabled: bool,

    /// How packets travel between nodes: `vxlan`, `host-gw` (all nodes in one network segment) or `wireguard`
    /// (encrypted).
    #[serde(default = "Flannel::default_backend")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self in ['vxlan', 'host-gw', 'wireguard']")
        .message("spec.addons.flannel.backend must be vxlan, host-gw or wireguard: Flannel's other backends are for debugging, experimental, or not for two address families"))]
    pub backend: String,

    /// The backend's options as Flannel's documentation names them, for example `{VNI: 7, DirectRouting: true}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "backend_options")]
    #[x_kube(validation = Rule::new("!has(self.Type)")
        .message("spec.addons.flannel.backendOptions: write Type as spec.addons.flannel.backend"))]
    #[x_kube(validation = Rule::new("!has(self.PSK)")
        .message("spec.addons.flannel.backendOptions: PSK is a secret and would be in a ConfigMap: leave it out, WireGuard is safe without it"))]
    pub backend_options: Option<Map<String, Value>>,

    /// Additional flags of flanneld, for example `{name: iface, value: eth1}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub extra_args: Vec<Argument>,

    /// The container's resources in place of those in Flannel's own manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

impl Flannel {
    /// Flannel's recommendation.
    fn default_backend() -> String {
        "vxlan".to_owned()
    }
}

impl Default for Flannel {
    fn default() -> Self {
        Self {
            enabled: false,
            backend: Self::default_backend(),
            backend_options: None,
            extra_args: vec![],
            resources: None,
        }
    }
}

/// The scale that the cluster is sized for. It sets the API server's limits of requests in flight, the rates of the
/// controller-manager and the scheduler, and the size of the add-ons. The `extraArgs` and `resources` of a component
/// take precedence. From 500 Nodes on, also use a separate etcd for Event objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scale {
    /// The number of expected Nodes. Kubernetes supports up to 5000.
    #[schemars(range(min = 1, max = 5000))]
    pub nodes: i32,
}

fn on() -> bool {
    true
}

/// A part of a KubeProxyConfiguration. The API server keeps all fields. The schema names the fields that a rule refers
/// to, because CEL sees no others.
fn partial_kube_proxy_configuration(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "mode": {"type": "string"},
            "clientConnection": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        },
    })
}

/// The options of a Flannel backend. As above, the schema names the fields that a rule refers to.
fn backend_options(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"Type": {"type": "string"}, "PSK": {"type": "string"}},
    })
}
