//! The etcd of a target cluster: on its control-plane nodes, or external.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{Argument, LocalReference};

/// The etcd of the target cluster: a member on every control-plane node, or an `external` one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.stacked) && has(self.external))")
    .message("spec.etcd: stacked and external exclude each other: leave stacked out, its settings have no meaning for an etcd that Keyplane does not run"))]
#[x_kube(validation = Rule::new("has(self.external) == has(oldSelf.external)")
    .message("spec.etcd can't be switched between stacked and external while the cluster exists: the API servers would see an empty etcd; write the old setting back, or create a new ClusterSpec"))]
#[x_kube(validation = Rule::new("(has(self.stacked) ? self.stacked.dataDir : '/var/lib/etcd') == (has(oldSelf.stacked) ? oldSelf.stacked.dataDir : '/var/lib/etcd')")
    .message("spec.etcd.stacked.dataDir can't be changed while the cluster exists: etcd would start empty; write the old value back"))]
pub struct Etcd {
    /// Settings of the etcd members on the control-plane nodes.
    #[serde(default, skip_serializing_if = "StackedEtcd::is_default")]
    pub stacked: StackedEtcd,

    /// An etcd that somebody else runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalEtcd>,

    /// A separate etcd for Event objects, which are many, small and short-lived. The API servers use the same client
    /// certificate for it, and verify it with the same CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<EventsEtcd>,
}

/// etcd on the same nodes as the API servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StackedEtcd {
    /// The data directory of etcd on the node.
    #[serde(default = "StackedEtcd::default_data_dir")]
    #[schemars(length(min = 2, max = 1024))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("spec.etcd.stacked.dataDir must be absolute"))]
    pub data_dir: String,

    /// Additional flags, or other values for existing flags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub extra_args: Vec<Argument>,

    /// Additional DNS names and IP addresses for etcd's serving certificate.
    #[serde(rename = "serverCertSANs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new("self.all(s, isIP(s) || !format.dns1123Subdomain().validate(s.startsWith('*.') ? s.substring(2) : s).hasValue())")
        .message("spec.etcd.stacked.serverCertSANs: each must be an IP address or a lower-case DNS name"))]
    pub server_cert_sans: Vec<String>,

    /// Additional DNS names and IP addresses for etcd's peer certificate.
    #[serde(rename = "peerCertSANs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new("self.all(s, isIP(s) || !format.dns1123Subdomain().validate(s.startsWith('*.') ? s.substring(2) : s).hasValue())")
        .message("spec.etcd.stacked.peerCertSANs: each must be an IP address or a lower-case DNS name"))]
    pub peer_cert_sans: Vec<String>,
}

impl StackedEtcd {
    /// kubeadm's default.
    fn default_data_dir() -> String {
        "/var/lib/etcd".to_owned()
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for StackedEtcd {
    fn default() -> Self {
        Self {
            data_dir: Self::default_data_dir(),
            extra_args: vec![],
            server_cert_sans: vec![],
            peer_cert_sans: vec![],
        }
    }
}

/// An etcd that Keyplane neither runs nor changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalEtcd {
    /// The client URLs of the members.
    #[schemars(length(min = 1, max = 9), inner(length(max = 300)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(e, isURL(e) && url(e).getScheme() == 'https' && url(e).getPort() != '' && url(e).getEscapedPath() == '' && !e.contains('?') && !e.contains('#') && !e.contains(','))")
        .message("spec.etcd.external.endpoints: each must be a URL with https, a host and a port, and nothing after the port, for example https://etcd1.example:2379"))]
    pub endpoints: Vec<String>,

    /// The Secret, in the same namespace. `ca.crt` holds the trust bundle for the certificates of etcd. `tls.crt` and
    /// `tls.key` hold the API servers' client certificate and its key.
    pub secret_ref: LocalReference,
}

/// An etcd for Event objects that Keyplane neither runs nor changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventsEtcd {
    /// The client URLs of the members.
    #[schemars(length(min = 1, max = 9), inner(length(max = 300)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(e, isURL(e) && url(e).getScheme() == 'https' && url(e).getPort() != '' && url(e).getEscapedPath() == '' && !e.contains('?') && !e.contains('#') && !e.contains(',') && !e.contains(';'))")
        .message("spec.etcd.events.endpoints: each must be a URL with https, a host and a port, and nothing after the port, for example https://events1.example:2379"))]
    pub endpoints: Vec<String>,
}
