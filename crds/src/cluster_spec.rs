//! `ClusterSpec`: one target cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Access, Addons, Audit, Authentication, CertificateAuthorities, ControlPlane, ControlPlaneEndpoint,
    EncryptionAtRest, Etcd, Images, Network, NodeAgent, NodeStatus, PodSecurity, RegistryMirror, RevocationStatus,
    Rotate, RotationStatus, Scale, User,
};

/// One target cluster. Keyplane holds its keys and its control-plane configuration.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "keyplane.io",
    version = "v1alpha1",
    kind = "ClusterSpec",
    plural = "clusterspecs",
    doc = "One target cluster, whose keys and control-plane configuration Keyplane holds.",
    shortname = "kcs",
    category = "keyplane",
    namespaced,
    status = "ClusterSpecStatus",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 50 && !format.dns1123Label().validate(self.metadata.name).hasValue()")
        .message("metadata.name must be a DNS label of at most 50 characters: the names of the cluster's Secrets begin with it"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.kubernetesVersion"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.readyNodes"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desiredNodes"),
    printcolumn(name = "Certs-Expire", type_ = "string", json_path = ".status.certificatesExpire"),
    printcolumn(name = "Rotation", type_ = "string", json_path = ".status.rotation"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "self.controlPlane.nodes.all(n, n.addresses.all(a, !isIP(a) || (self.network.serviceCIDRs + self.network.podCIDRs).all(c, !isCIDR(c) || !cidr(c).containsIP(a))))"
).message("spec.controlPlane.nodes[].addresses: an address lies in serviceCIDRs or podCIDRs, which belong to the cluster: choose others"))]
#[x_kube(validation = Rule::new(
    "!isIP(self.controlPlaneEndpoint.host) || (self.network.serviceCIDRs + self.network.podCIDRs).all(c, !isCIDR(c) || !cidr(c).containsIP(self.controlPlaneEndpoint.host))"
).message("spec.controlPlaneEndpoint.host lies in serviceCIDRs or podCIDRs, where nodes can't reach it: choose an address outside"))]
#[x_kube(validation = Rule::new("!self.addons.flannel.enabled || self.network.podCIDRs.size() > 0")
    .message("spec.addons.flannel needs addresses for Pods: write spec.network.podCIDRs, for example [10.244.0.0/16]"))]
#[x_kube(validation = Rule::new(
    "!has(self.audit) || !has(self.controlPlane.apiServer.extraArgs) || self.controlPlane.apiServer.extraArgs.all(a, !(a.name in ['audit-policy-file', 'audit-log-path', 'audit-log-maxage', 'audit-log-maxbackup', 'audit-log-maxsize', 'audit-webhook-config-file']))"
).message("spec.controlPlane.apiServer.extraArgs has a flag that spec.audit sets: write it in spec.audit, or remove spec.audit"))]
#[x_kube(validation = Rule::new(
    "!has(self.authentication) || !has(self.controlPlane.apiServer.extraArgs) || self.controlPlane.apiServer.extraArgs.all(a, !(a.name in ['authentication-config', 'anonymous-auth']) && !a.name.startsWith('oidc-'))"
).message("spec.controlPlane.apiServer.extraArgs: authentication-config, anonymous-auth and oidc-* exclude spec.authentication: write an issuer in spec.authentication.jwt and anonymous requests in spec.authentication.anonymous"))]
#[x_kube(validation = Rule::new(
    "!has(self.podSecurity) || !has(self.controlPlane.apiServer.extraArgs) || self.controlPlane.apiServer.extraArgs.all(a, a.name != 'admission-control-config-file')"
).message("spec.controlPlane.apiServer.extraArgs: admission-control-config-file excludes spec.podSecurity: remove one of them"))]
#[x_kube(validation = Rule::new(
    "!has(self.encryptionAtRest) || !has(self.controlPlane.apiServer.extraArgs) || self.controlPlane.apiServer.extraArgs.all(a, !a.name.startsWith('encryption-provider-config'))"
).message("spec.controlPlane.apiServer.extraArgs: encryption-provider-config excludes spec.encryptionAtRest: remove one of them"))]
#[x_kube(validation = Rule::new(
    "!(has(self.audit) || has(self.authentication) || has(self.podSecurity) || has(self.encryptionAtRest)) || !has(self.controlPlane.apiServer.extraVolumes) || self.controlPlane.apiServer.extraVolumes.all(v, !(v.name in ['audit-config', 'audit-log', 'authentication-config', 'admission-config', 'encryption-config']))"
).message("spec.controlPlane.apiServer.extraVolumes: audit-config, audit-log, authentication-config, admission-config and encryption-config are the volumes of spec.audit, spec.authentication, spec.podSecurity and spec.encryptionAtRest: choose another name"))]
#[x_kube(validation = Rule::new("!has(self.certificateAuthorities) || !has(self.certificateAuthorities.etcd) || !has(self.etcd) || !has(self.etcd.external)")
    .message("spec.certificateAuthorities.etcd is for an etcd on the nodes, and an external etcd has the CA of its owner: leave the field out, and set the certificates in spec.etcd.external.secretRef"))]
#[x_kube(validation = Rule::new(
    "!has(self.etcd) || !has(self.etcd.events) || !has(self.controlPlane.apiServer) || !has(self.controlPlane.apiServer.extraArgs) || self.controlPlane.apiServer.extraArgs.all(a, a.name != 'etcd-servers-overrides')"
).message("spec.etcd.events becomes the API server's flag etcd-servers-overrides: leave it out of spec.controlPlane.apiServer.extraArgs"))]
pub struct ClusterSpecSpec {
    /// The version of the control plane, for example `v1.37.2`. It can go up by one minor version at a time, never
    /// down.
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^v1[.](36|37)[.](0|[1-9][0-9]?)$')")
        .message("spec.kubernetesVersion must be a version that Keyplane knows: v1.36.x or v1.37.x, for example v1.37.2"))]
    #[x_kube(validation = Rule::new(
        "!self.matches('^v1[.][0-9]+[.][0-9]+$') || !oldSelf.matches('^v1[.][0-9]+[.][0-9]+$') || int(self.split('.')[1]) > int(oldSelf.split('.')[1]) || (self.split('.')[1] == oldSelf.split('.')[1] && int(self.split('.')[2]) >= int(oldSelf.split('.')[2]))"
    ).message("spec.kubernetesVersion can't go down: Kubernetes has no downgrade; write the old version back"))]
    #[x_kube(validation = Rule::new(
        "!self.matches('^v1[.][0-9]+[.][0-9]+$') || !oldSelf.matches('^v1[.][0-9]+[.][0-9]+$') || int(self.split('.')[1]) <= int(oldSelf.split('.')[1]) + 1"
    ).message("spec.kubernetesVersion can go up by one minor version at a time: write the next one first"))]
    pub kubernetes_version: String,

    /// Whether reconciliation is paused. While it is paused, Keyplane writes and approves nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,

    /// Pauses reconciliation until this time (RFC 3339, for example `2026-12-24T00:00:00Z`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_until: Option<Time>,

    /// The address at which clients reach the API servers.
    pub control_plane_endpoint: ControlPlaneEndpoint,

    /// The control-plane nodes and their components.
    pub control_plane: ControlPlane,

    /// The registry and path in front of the image names.
    #[serde(default = "ClusterSpecSpec::default_image_repository")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("!self.contains('://') && !self.endsWith('/')")
        .message("spec.imageRepository is a registry and a path, without https:// and without a trailing slash, for example registry.k8s.io"))]
    pub image_repository: String,

    /// Single images in place of those from `imageRepository`.
    #[serde(default)]
    pub images: Images,

    /// Mirrors of registries, for nodes that can't or must not reach the registries themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["registry".into()]))]
    pub registry_mirrors: Vec<RegistryMirror>,

    /// The cluster's networks.
    #[serde(default)]
    pub network: Network,

    /// The cluster's etcd.
    #[serde(default)]
    pub etcd: Etcd,

    /// The add-ons that run in the cluster besides the control plane.
    #[serde(default)]
    pub addons: Addons,

    /// The scale that the cluster is sized for. Not set means kubeadm's settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,

    /// Access to the API servers from outside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,

    /// People and programs that get a kubeconfig for the target cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub users: Vec<User>,

    /// The audit log of the API servers. Not set means none, as with kubeadm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,

    /// Authentication of clients without a certificate or service-account token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,

    /// The Pod Security Standards for namespaces without their own labels. Not set means Kubernetes' own default,
    /// `privileged`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_security: Option<PodSecurity>,

    /// Encryption of objects in etcd. Not set means none, as with kubeadm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_at_rest: Option<EncryptionAtRest>,

    /// The CertificatePolicy in the same namespace. Not set means kubeadm's lifetimes and key algorithm. The default
    /// rules then approve serving certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_policy_ref: Option<LocalReference>,

    /// User-provided CAs. Not set means that Keyplane generates them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authorities: Option<CertificateAuthorities>,

    /// Agents on the nodes, which distribute the files of each node. Not set means that people copy the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_agent: Option<NodeAgent>,

    /// Requests for rotations, renewals and revocations. Each value is one request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate: Option<Rotate>,

    /// Whether Keyplane deletes the cluster's Secrets and ConfigMaps when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

impl ClusterSpecSpec {
    /// kubeadm's default.
    fn default_image_repository() -> String {
        "registry.k8s.io".to_owned()
    }
}

/// An object in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalReference {
    /// The name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Whether Keyplane deletes the cluster's Secrets and ConfigMaps when the ClusterSpec is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Keeps the objects, so that a mistaken deletion loses no key: a ClusterSpec of the same name uses them again.
    #[default]
    Retain,
    /// Deletes the objects, once the annotation `keyplane.io/confirm-deletion: <name of the ClusterSpec>` is set.
    Delete,
}

/// The observed state of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpecStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `host:port` of the API servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,

    /// The control-plane Nodes that are Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_nodes: Option<i32>,

    /// The control-plane nodes that the spec declares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_nodes: Option<i32>,

    /// The Kubernetes version that every control-plane node runs, as last observed. During an upgrade, this field
    /// changes last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes_version: Option<String>,

    /// The components of the control-plane nodes, as last observed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeStatus>,

    /// The earliest expiry of any certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates_expire: Option<Time>,

    /// Every certificate that Keyplane holds for this cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateStatus>,

    /// The rotations in progress, for example `ca Preparing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<String>,

    /// The last rotation of each CA and key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub rotations: Vec<RotationStatus>,

    /// The requested revocation that waits for confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<RevocationStatus>,

    /// The certificates that wait for an external signer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub signing_requests: Vec<SigningRequestStatus>,

    /// Rendered, `ControlPlaneAvailable`, `ControlPlaneNodesReady`, `SpreadAcrossFailureDomains`, `CertificatesValid`,
    /// `RolledOut`, `NodesInSync`, `KubeletVersionsMatch`, `AddonsReady`, `RotationsCompleted`,
    /// `CertificateAuthoritiesInSync`, `CertificatesSigned`, `EncryptedAtRest`, Ready, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// The name, as in `kubeadm certs check-expiration`, for example `apiserver` or `admin.conf`; `users/<name>` for an
    /// issued kubeconfig.
    pub name: String,

    /// The node of the certificate. Not set for the CAs and the cluster's own kubeconfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,

    /// The CA that signed the certificate: `ca`, `etcd-ca` or `front-proxy-ca`.
    pub issuer: String,

    /// The serial number in lower-case hexadecimal, as openssl prints it.
    pub serial: String,

    /// When the certificate expires.
    pub not_after: Time,

    /// When the certificate is due for renewal.
    pub renewal_time: Time,
}

/// A certificate that waits for an external signer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SigningRequestStatus {
    /// The ConfigMap with the request. The external signer adds the certificate to it.
    pub name: String,

    /// The name of the certificate, as in `certificates`.
    pub certificate: String,

    /// The node of the certificate. Not set for the cluster's own certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,

    /// The CA that must sign the certificate: `ca`, `etcd-ca` or `front-proxy-ca`.
    pub issuer: String,

    /// When the certificate was requested.
    pub request_time: Time,

    /// Why Keyplane rejected the signer's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejection: Option<String>,
}
