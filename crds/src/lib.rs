//! The API that Keyplane promises: `ClusterSpec`, `NodePool` and `CertificatePolicy` of `keyplane.io/v1alpha1`.
//!
//! Types, validation rules and the generated schema, nothing else: no client, no clock, no decision. What a field
//! means is told in its documentation, which is also what `kubectl explain` shows.

// The lint counts `type_` of one printcolumn against that of the next.
#![allow(clippy::duplicated_attributes)]

mod access;
mod addons;
mod audit;
mod authentication;
mod bootstrap;
mod certificate_authorities;
mod certificate_policy;
mod cluster_spec;
mod condition;
mod control_plane;
mod duration;
mod encryption;
mod etcd;
mod kubelet_policy;
mod maintenance_window;
mod network;
mod node_agent;
mod node_pool;
mod node_status;
mod pod_security;
mod registry_mirror;
mod revocation_status;
mod revoke;
mod rotate;
mod rotation_status;
mod users;

pub use access::Access;
pub use addons::{Addons, CoreDns, Flannel, KubeProxy, Scale};
pub use audit::{Audit, AuditLog, AuditWebhook};
pub use authentication::{Anonymous, AnonymousCondition, Authentication};
pub use bootstrap::{Bootstrap, BootstrapFormat, Download, Downloads, HostEntry};
pub use certificate_authorities::{CertificateAuthorities, GivenAuthority};
pub use certificate_policy::{
    AuthorityPolicy, CertificatePolicy, CertificatePolicySpec, CertificatePolicyStatus, KeyAlgorithm, LeafOverride,
    LeafPolicy, RotationCompletion,
};
pub use cluster_spec::{
    CertificateStatus, ClusterSpec, ClusterSpecSpec, ClusterSpecStatus, DeletionPolicy, LocalReference,
    SigningRequestStatus,
};
pub use condition::{ClusterCondition, Condition, ConditionStatus, condition_of, set_condition};
pub use control_plane::{
    ApiServer, Argument, Component, ControlPlane, ControlPlaneEndpoint, ControlPlaneNode, HostPathMount, Images,
    Layout, Taint,
};
pub use duration::{DurationError, RenewBefore, parse_duration};
pub use encryption::{EncryptionAtRest, EncryptionProvider};
pub use etcd::{Etcd, EventsEtcd, ExternalEtcd, StackedEtcd};
pub use kubelet_policy::{
    ApproverMachine, ApproverSpec, ExistingNode, KubeletClientPolicy, KubeletServingPolicy, NodeSelector, OnViolation,
    RequestKeyAlgorithm, ReservedForCluster, SigningRequestPolicy, UndeclaredAddress,
};
pub use maintenance_window::{MaintenanceWindow, Weekday};
pub use network::Network;
pub use node_agent::NodeAgent;
pub use node_pool::{
    Machine, MachineSelector, MachineState, MachineStatus, NodePool, NodePoolRole, NodePoolSpec, NodePoolStatus,
};
pub use node_status::{ComponentStatus, NodeStatus};
pub use pod_security::{PodSecurity, PodSecurityExemptions, PodSecurityLevel};
pub use registry_mirror::RegistryMirror;
pub use revocation_status::RevocationStatus;
pub use revoke::Revoke;
pub use rotate::Rotate;
pub use rotation_status::{RotationPhase, RotationStatus};
pub use users::User;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The API group of every kind here, and the prefix of Keyplane's labels and annotations.
pub const GROUP: &str = "keyplane.io";

/// Label on every object that Keyplane writes: the name of the `ClusterSpec` it belongs to, in the same namespace.
pub const CLUSTER_LABEL: &str = "keyplane.io/cluster";

/// Label on every object that is about one machine: the name of the node.
pub const NODE_LABEL: &str = "keyplane.io/node";

/// Label on the Secret of an issued kubeconfig: the user's name.
pub const USER_LABEL: &str = "keyplane.io/user";

/// Label on every object that is about one pool: the name of the `NodePool`.
pub const NODE_POOL_LABEL: &str = "keyplane.io/node-pool";

/// The label by which Cluster API finds a cluster's Secrets.
pub const CLUSTER_API_LABEL: &str = "cluster.x-k8s.io/cluster-name";

/// Annotation that confirms the deletion of a cluster's keys: its value is the name of the `ClusterSpec`.
pub const CONFIRM_DELETION_ANNOTATION: &str = "keyplane.io/confirm-deletion";

/// Annotation on a `ClusterSpec`: with the value [`AT_ONCE`] changed static pods are written for all machines at once,
/// without waiting for anything. It is meant for a control plane that is down and that a changed spec would mend.
pub const ROLLOUT_ANNOTATION: &str = "keyplane.io/rollout";

/// Annotation on a `ClusterSpec`: what `spec.rotate.certificates` is in the spec. A changed value asks for new keys and
/// certificates, once.
pub const ROTATE_CERTIFICATES_ANNOTATION: &str = "keyplane.io/rotate-certificates";

/// Annotation on a `ClusterSpec`: what `spec.rotate.certificateAuthorities` is in the spec.
pub const ROTATE_AUTHORITIES_ANNOTATION: &str = "keyplane.io/rotate-certificate-authorities";

/// Annotation on a `ClusterSpec`: what `spec.rotate.renewCertificateAuthorities` is in the spec.
pub const RENEW_AUTHORITIES_ANNOTATION: &str = "keyplane.io/renew-certificate-authorities";

/// Annotation on a `ClusterSpec`: what `spec.rotate.serviceAccountKey` is in the spec.
pub const ROTATE_SERVICE_ACCOUNT_KEY_ANNOTATION: &str = "keyplane.io/rotate-service-account-key";

/// Annotation on a `ClusterSpec`: what `spec.rotate.encryptionKey` is in the spec.
pub const ROTATE_ENCRYPTION_KEY_ANNOTATION: &str = "keyplane.io/rotate-encryption-key";

/// Annotation on a `ClusterSpec`: what `spec.rotate.complete` is in the spec.
pub const COMPLETE_ROTATION_ANNOTATION: &str = "keyplane.io/complete-rotation";

/// Annotation on a `ClusterSpec`: what `spec.rotate.rollBack` is in the spec.
pub const ROLL_BACK_ROTATION_ANNOTATION: &str = "keyplane.io/roll-back-rotation";

/// Annotation on a `ClusterSpec`: what `spec.rotate.revoke.certificateAuthorities` is in the spec.
pub const REVOKE_AUTHORITIES_ANNOTATION: &str = "keyplane.io/revoke-certificate-authorities";

/// Annotation on a `ClusterSpec`: what `spec.rotate.revoke.serviceAccountKey` is in the spec.
pub const REVOKE_SERVICE_ACCOUNT_KEY_ANNOTATION: &str = "keyplane.io/revoke-service-account-key";

/// Annotation on a `ClusterSpec`: what `spec.rotate.revoke.confirm` is in the spec.
pub const CONFIRM_REVOCATION_ANNOTATION: &str = "keyplane.io/confirm-revocation";

/// Annotation on a `ClusterSpec`: with the value `true` no Secret is made that is missing, because a backup brings it; with
/// `false` keys are made although machines seem to run a cluster already.
pub const RESTORE_ANNOTATION: &str = "keyplane.io/restore";

/// The value of [`ROLLOUT_ANNOTATION`].
pub const AT_ONCE: &str = "AtOnce";

/// The definitions of the three kinds, in the order in which `keyplane crds` prints them.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![ClusterSpec::crd(), NodePool::crd(), CertificatePolicy::crd()]
}
