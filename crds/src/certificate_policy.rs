//! `CertificatePolicy`: lifetimes, keys, and the approval of kubelet certificates.
//!
//! The approval settings are in `kubelet_policy.rs`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::RenewBefore;
use crate::{ApproverSpec, KubeletClientPolicy, KubeletServingPolicy, MaintenanceWindow, SigningRequestPolicy};

/// How Keyplane issues certificates, and which kubelet certificates it approves, for the ClusterSpecs that refer to the
/// policy. The defaults are kubeadm's.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "keyplane.io",
    version = "v1alpha1",
    kind = "CertificatePolicy",
    plural = "certificatepolicies",
    doc = "How certificates are issued, and which kubelet certificates are approved.",
    shortname = "kcertpol",
    category = "keyplane",
    namespaced,
    status = "CertificatePolicyStatus",
    derive = "PartialEq",
    printcolumn(name = "Authority", type_ = "string", json_path = ".spec.authority.validity"),
    printcolumn(name = "Leaf", type_ = "string", json_path = ".spec.leaf.validity"),
    printcolumn(name = "Renew-Before", type_ = "string", json_path = ".spec.leaf.renewBefore"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!self.leaf.validity.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') || !self.authority.validity.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') || duration(self.leaf.validity) <= duration(self.authority.validity)"
).message("spec.leaf.validity is longer than spec.authority.validity: no certificate outlives its CA; write a shorter leaf.validity or a longer authority.validity"))]
#[x_kube(validation = Rule::new(
    "!has(self.overrides) || self.overrides.all(o, !has(o.validity) || duration(o.validity) <= duration(self.authority.validity))"
).message("spec.overrides[].validity is longer than spec.authority.validity: no certificate outlives its CA; write a shorter one"))]
pub struct CertificatePolicySpec {
    /// The three CAs. A change applies to CAs that are generated later.
    #[serde(default)]
    pub authority: AuthorityPolicy,

    /// All other certificates. A changed lifetime applies to certificates that are issued later. A changed key
    /// algorithm reissues the certificates at once.
    #[serde(default)]
    pub leaf: LeafPolicy,

    /// Other values for single certificates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["certificate".into()]))]
    pub overrides: Vec<LeafOverride>,

    /// The time of the week in which due certificates are renewed. Not set means at once. A certificate with less than
    /// a third of `renewBefore` left is renewed at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_window: Option<MaintenanceWindow>,

    /// The approval of kubelet serving certificates.
    #[serde(default)]
    pub kubelet_serving: KubeletServingPolicy,

    /// The approval of kubelet client certificates.
    #[serde(default)]
    pub kubelet_client: KubeletClientPolicy,

    /// Limits for CSRs of both signers.
    #[serde(default)]
    pub signing_requests: SigningRequestPolicy,

    /// Makes this the policy of Keyplane's own cluster: it selects the Nodes that get serving certificates. It takes
    /// effect only in Keyplane's own namespace, and only if no other policy in that namespace has an approver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approver: Option<ApproverSpec>,
}

/// The key of a certificate, named as in kubeadm's `encryptionAlgorithm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum KeyAlgorithm {
    /// RSA with 2048 bits, kubeadm's default.
    #[default]
    #[serde(rename = "RSA-2048")]
    Rsa2048,
    /// RSA with 3072 bits.
    #[serde(rename = "RSA-3072")]
    Rsa3072,
    /// RSA with 4096 bits.
    #[serde(rename = "RSA-4096")]
    Rsa4096,
    /// ECDSA on the curve P-256.
    #[serde(rename = "ECDSA-P256")]
    EcdsaP256,
    /// ECDSA on the curve P-384.
    #[serde(rename = "ECDSA-P384")]
    EcdsaP384,
}

/// How Keyplane generates CAs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityPolicy {
    /// The lifetime of a CA certificate.
    #[serde(default = "AuthorityPolicy::default_validity")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && duration(self) >= duration('1h')")
        .message("spec.authority.validity must be a duration of hours, minutes and seconds of at least 1h, for example 87600h (ten years)"))]
    pub validity: String,

    /// The key algorithm of a CA.
    #[serde(default)]
    pub key_algorithm: KeyAlgorithm,

    /// When a rotation removes the former CA.
    #[serde(default)]
    pub completion: RotationCompletion,
}

/// When a rotation removes the former CA or key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RotationCompletion {
    /// Once `spec.rotate.complete` of the ClusterSpec approves it: clients that Keyplane can't see may still depend on
    /// the former CA.
    #[default]
    OnRequest,
    /// As soon as nothing that Keyplane can see depends on the former CA.
    Automatic,
}

impl AuthorityPolicy {
    /// kubeadm's `caCertificateValidityPeriod`.
    fn default_validity() -> String {
        "87600h".to_owned()
    }
}

impl Default for AuthorityPolicy {
    fn default() -> Self {
        Self {
            validity: Self::default_validity(),
            key_algorithm: KeyAlgorithm::default(),
            completion: RotationCompletion::default(),
        }
    }
}

/// How Keyplane issues certificates below a CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "self.renewBefore.endsWith('%') || !self.renewBefore.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') || !self.validity.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') || duration(self.renewBefore) < duration(self.validity)"
).message("spec.leaf.renewBefore must be shorter than spec.leaf.validity: a certificate would be due before its validity starts"))]
pub struct LeafPolicy {
    /// The lifetime of a certificate, at most until its CA expires.
    #[serde(default = "LeafPolicy::default_validity")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && duration(self) >= duration('10m')")
        .message("spec.leaf.validity must be a duration of hours, minutes and seconds of at least 10m, for example 8760h (one year)"))]
    pub validity: String,

    /// How long before its expiry a certificate is renewed: a duration, or a percentage of its lifetime. Each
    /// certificate is renewed earlier by up to a tenth of that time, so that they are not all renewed together. A
    /// renewed certificate keeps its key.
    #[serde(default = "LeafPolicy::default_renew_before")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]?%$') || (self.size() > 0 && self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$'))")
        .message("spec.leaf.renewBefore must be a duration or a percentage from 1% to 99%, for example 720h or 30%"))]
    pub renew_before: String,

    /// The key algorithm of a certificate, and of service-account keys that are generated later.
    #[serde(default)]
    pub key_algorithm: KeyAlgorithm,
}

impl LeafPolicy {
    /// kubeadm's `certificateValidityPeriod`.
    fn default_validity() -> String {
        "8760h".to_owned()
    }

    /// The default of [`RenewBefore`], as text.
    fn default_renew_before() -> String {
        RenewBefore::default().to_string()
    }
}

impl Default for LeafPolicy {
    fn default() -> Self {
        Self {
            validity: Self::default_validity(),
            renew_before: Self::default_renew_before(),
            key_algorithm: KeyAlgorithm::default(),
        }
    }
}

/// Other values for one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeafOverride {
    /// The certificate's name, as the status of a ClusterSpec lists it.
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self in ['apiserver', 'apiserver-kubelet-client', 'apiserver-etcd-client', 'front-proxy-client', 'etcd-server', 'etcd-peer', 'etcd-healthcheck-client', 'admin.conf', 'super-admin.conf', 'controller-manager.conf', 'scheduler.conf', 'kubelet.conf', 'kubeconfig']")
        .message("spec.overrides[].certificate must be apiserver, apiserver-kubelet-client, apiserver-etcd-client, front-proxy-client, etcd-server, etcd-peer, etcd-healthcheck-client, admin.conf, super-admin.conf, controller-manager.conf, scheduler.conf, kubelet.conf or kubeconfig"))]
    pub certificate: String,

    /// As `leaf.validity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && duration(self) >= duration('10m')")
        .message("spec.overrides[].validity must be a duration of at least 10m, for example 2160h"))]
    pub validity: Option<String>,

    /// As `leaf.renewBefore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]?%$') || (self.size() > 0 && self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$'))")
        .message("spec.overrides[].renewBefore must be a duration or a percentage from 1% to 99%, for example 720h or 30%"))]
    pub renew_before: Option<String>,

    /// As `leaf.keyAlgorithm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_algorithm: Option<KeyAlgorithm>,
}

/// Keyplane's evaluation of the policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificatePolicyStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready: the policy is valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
