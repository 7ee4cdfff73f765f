//! The API of Keyplane: `ClusterSpec`, `NodePool` and `CertificatePolicy` of `keyplane.io/v1alpha1`.
//!
//! The crate has types, validation rules and the generated schema, and nothing else: no client, no clock, no decision.
//! The documentation of a field is also the text of `kubectl explain`.

// The lint compares `type_` of one printcolumn with that of the next.
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
pub mod keys;
mod kubelet_policy;
mod maintenance_window;
mod network;
mod node_agent;
mod node_pool;
mod node_status;
mod pod_security;
mod reason;
pub mod reasons;
mod registry_mirror;
mod request_reasons;
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
pub use certificate_authorities::{CertificateAuthorities, UserProvidedCa};
pub use certificate_policy::{
    AuthorityPolicy, CertificatePolicy, CertificatePolicySpec, CertificatePolicyStatus, KeyAlgorithm, LeafOverride,
    LeafPolicy, RotationCompletion,
};
pub use cluster_spec::{
    CertificateStatus, ClusterSpec, ClusterSpecSpec, ClusterSpecStatus, DeletionPolicy, LocalReference,
    SigningRequestStatus,
};
pub use condition::{
    CertificatePolicyCondition, ClusterCondition, Condition, ConditionStatus, NodePoolCondition, condition_of,
    set_condition,
};
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

/// The API group of all CRDs, and the prefix of Keyplane's labels and annotations.
pub const GROUP: &str = "keyplane.io";

/// The label by which Cluster API finds a cluster's Secrets.
pub const CLUSTER_API_LABEL: &str = "cluster.x-k8s.io/cluster-name";

/// The value of [`ROLLOUT_ANNOTATION`](keys::ROLLOUT_ANNOTATION).
pub const AT_ONCE: &str = "AtOnce";

/// The CRDs, in the order in which `keyplane crds` prints them.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![ClusterSpec::crd(), NodePool::crd(), CertificatePolicy::crd()]
}
