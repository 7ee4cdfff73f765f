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

/// One target cluster, whose keys and control-plane configuration Keyplane holds.
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
        .message("metadata.name must be a DNS label of at most 50 characters: it begins the names of the cluster's Secrets"),
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
).message("spec.controlPlane.nodes[].addresses: an address lies in serviceCIDRs or podCIDRs: these ranges are the cluster's own, choose others"))]
#[x_kube(validation = Rule::new(
    "!isIP(self.controlPlaneEndpoint.host) || (self.network.serviceCIDRs + self.network.podCIDRs).all(c, !isCIDR(c) || !cidr(c).containsIP(self.controlPlaneEndpoint.host))"
).message("spec.controlPlaneEndpoint.host lies in serviceCIDRs or podCIDRs, where machines can't reach it: choose an address outside"))]
#[x_kube(validation = Rule::new("!self.addons.flannel.enabled || self.network.podCIDRs.size() > 0")
    .message("spec.addons.flannel needs addresses for Pods: write spec.network.podCIDRs, for example [10.244.0.0/16]"))]
#[x_kube(validation = Rule::new(
    "!has(self.audit) || !has(self.controlPlane.apiServer.extraArgs) || self.controlPlane.apiServer.extraArgs.all(a, !(a.name in ['audit-policy-file', 'audit-log-path', 'audit-log-maxage', 'audit-log-maxbackup', 'audit-log-maxsize', 'audit-webhook-config-file']))"
).message("spec.controlPlane.apiServer.extraArgs has a flag that spec.audit sets: write it in spec.audit, or take spec.audit away"))]
#[x_kube(validation = Rule::new(
    "!has(self.authentication) || !has(self.controlPlane.apiServer.extraArgs) || self.controlPlane.apiServer.extraArgs.all(a, !(a.name in ['authentication-config', 'anonymous-auth']) && !a.name.startsWith('oidc-'))"
).message("spec.controlPlane.apiServer.extraArgs: authentication-config, anonymous-auth and oidc-* exclude spec.authentication: write an issuer in spec.authentication.jwt and anonymous requests in spec.authentication.anonymous"))]
#[x_kube(validation = Rule::new(
    "!has(self.podSecurity) || !has(self.controlPlane.apiServer.extraArgs) || self.controlPlane.apiServer.extraArgs.all(a, a.name != 'admission-control-config-file')"
).message("spec.controlPlane.apiServer.extraArgs: admission-control-config-file excludes spec.podSecurity: take one of them away"))]
#[x_kube(validation = Rule::new(
    "!has(self.encryptionAtRest) || !has(self.controlPlane.apiServer.extraArgs) || self.controlPlane.apiServer.extraArgs.all(a, !a.name.startsWith('encryption-provider-config'))"
).message("spec.controlPlane.apiServer.extraArgs: encryption-provider-config excludes spec.encryptionAtRest: take one of them away"))]
#[x_kube(validation = Rule::new(
    "!(has(self.audit) || has(self.authentication) || has(self.podSecurity) || has(self.encryptionAtRest)) || !has(self.controlPlane.apiServer.extraVolumes) || self.controlPlane.apiServer.extraVolumes.all(v, !(v.name in ['audit-config', 'audit-log', 'authentication-config', 'admission-config', 'encryption-config']))"
).message("spec.controlPlane.apiServer.extraVolumes: audit-config, audit-log, authentication-config, admission-config and encryption-config are the volumes of spec.audit, spec.authentication, spec.podSecurity and spec.encryptionAtRest: choose another name"))]
#[x_kube(validation = Rule::new("!has(self.certificateAuthorities) || !has(self.certificateAuthorities.etcd) || !has(self.etcd) || !has(self.etcd.external)")
    .message("spec.certificateAuthorities.etcd is for an etcd on the nodes; an external one has its owner's authority: leave it out, and give its certificates in spec.etcd.external.secretRef"))]
#[x_kube(validation = Rule::new(
    "!has(self.etcd) || !has(self.etcd.events) || !has(self.controlPlane.apiServer) || !has(self.controlPlane.apiServer.extraArgs) || self.controlPlane.apiServer.extraArgs.all(a, a.name != 'etcd-servers-overrides')"
).message("spec.etcd.events becomes the API server's flag etcd-servers-overrides: leave it out of spec.controlPlane.apiServer.extraArgs"))]
pub struct ClusterSpecSpec {
    /// The version of the control plane, for example `v1.37.2`. It may go up by one minor version at a time, never down.
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

    /// Whether Keyplane leaves this cluster alone: nothing is written or approved while it is true.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,

    /// Keyplane leaves this cluster alone until this time (RFC 3339, for example `2026-12-24T00:00:00Z`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_until: Option<Time>,

    /// Where clients reach the API servers.
    pub control_plane_endpoint: ControlPlaneEndpoint,

    /// The machines of the control plane and its components.
    pub control_plane: ControlPlane,

    /// The registry and path before the images' names.
    #[serde(default = "ClusterSpecSpec::default_image_repository")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("!self.contains('://') && !self.endsWith('/')")
        .message("spec.imageRepository is a registry and a path, without https:// and without a slash at its end, for example registry.k8s.io"))]
    pub image_repository: String,

    /// Single images in place of the ones that `imageRepository` gives.
    #[serde(default)]
    pub images: Images,

    /// Mirrors of registries, for machines that can't or shall not reach the registries themselves.
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

    /// What runs in the cluster besides the control plane.
    #[serde(default)]
    pub addons: Addons,

    /// The size that the cluster is made for. Not set means kubeadm's settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,

    /// How the target's API is reached from outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,

    /// People and programs that get a kubeconfig for the target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub users: Vec<User>,

    /// What the API servers write down of the requests that they serve. Not set means nothing, as with kubeadm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,

    /// Who is let in besides the holders of certificates and service-account tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,

    /// The Pod Security Standards that hold in namespaces without labels of their own. Not set means Kubernetes' own
    /// default, `privileged`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_security: Option<PodSecurity>,

    /// What is stored encrypted in etcd. Not set means nothing, as with kubeadm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_at_rest: Option<EncryptionAtRest>,

    /// The CertificatePolicy in the same namespace. Not set means kubeadm's lifetimes and key algorithm, and serving
    /// certificates approved by the default rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_policy_ref: Option<LocalReference>,

    /// Authorities of your own. Not set means that Keyplane makes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authorities: Option<CertificateAuthorities>,

    /// Agents on the machines, which carry the machines' files to them. Not set means that people carry them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_agent: Option<NodeAgent>,

    /// What is to be made anew, once for each value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate: Option<Rotate>,

    /// What happens to the cluster's Secrets and ConfigMaps when this object is deleted.
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
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What happens to the cluster's Secrets and ConfigMaps when the ClusterSpec is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay, so that a mistaken deletion loses no key: a ClusterSpec of the same name takes them up again.
    #[default]
    Retain,
    /// They are deleted, once the annotation `keyplane.io/confirm-deletion: <name of the ClusterSpec>` is there.
    Delete,
}

/// What Keyplane has seen and done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpecStatus {
    /// The generation of the spec that this status is about.
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

    /// The version of Kubernetes that every control-plane node was seen to run. In an upgrade it follows the spec's last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes_version: Option<String>,

    /// What the control-plane nodes were seen to run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeStatus>,

    /// The earliest end of any certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates_expire: Option<Time>,

    /// Every certificate that Keyplane holds for this cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateStatus>,

    /// The rotations that are under way, for example `ca Preparing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<String>,

    /// The last rotation of each authority and key, if there was one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub rotations: Vec<RotationStatus>,

    /// The revocation that was asked for and waits for its confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<RevocationStatus>,

    /// The certificates that wait for a signer outside, where an authority's key is not here.
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
    /// Its name, as `kubeadm certs check-expiration` has it, for example `apiserver` or `admin.conf`; `users/<name>` for
    /// an issued kubeconfig.
    pub name: String,

    /// The node that it belongs to; not set for the authorities and the cluster's own kubeconfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,

    /// The authority that signed it: `ca`, `etcd-ca` or `front-proxy-ca`.
    pub issuer: String,

    /// The serial number in lower-case hexadecimal, as openssl prints it.
    pub serial: String,

    /// The end of its validity.
    pub not_after: Time,

    /// When it is due for renewal.
    pub renewal_time: Time,
}

/// A certificate that waits for a signer outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SigningRequestStatus {
    /// The ConfigMap with the request, into which the signer puts the certificate.
    pub name: String,

    /// The certificate, as in `certificates`.
    pub certificate: String,

    /// The node that it belongs to; not set for the cluster's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,

    /// The authority that is to sign it: `ca`, `etcd-ca` or `front-proxy-ca`.
    pub issuer: String,

    /// When the certificate was requested.
    pub request_time: Time,

    /// What is wrong with the signer's answer, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejection: Option<String>,
}
