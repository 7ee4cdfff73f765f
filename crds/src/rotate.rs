//! Requests for rotations, renewals and revocations.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::revoke::Revoke;

/// Requests for new keys. Each value is a text of your choice, for example a date or a ticket. A new value requests one
/// rotation. The same value again requests none, so it can stay in Git.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rotate {
    /// Rotates every certificate below the CAs, also those in kubeconfigs: each gets a new key. The annotation
    /// `keyplane.io/rotate-certificates` requests the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub certificates: Option<String>,

    /// Rotates all CAs. All components trust the new CA before anything depends on it. The annotation
    /// `keyplane.io/rotate-certificate-authorities` requests the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub certificate_authorities: Option<String>,

    /// Rotates the cluster CA only, `ca`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[serde(rename = "clusterCA")]
    pub cluster_ca: Option<String>,

    /// Rotates the etcd CA only, `etcd-ca`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[serde(rename = "etcdCA")]
    pub etcd_ca: Option<String>,

    /// Rotates the front-proxy CA only, `front-proxy-ca`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[serde(rename = "frontProxyCA")]
    pub front_proxy_ca: Option<String>,

    /// Renews self-signed CAs: each gets a new certificate with the same key and a later expiry. All issued
    /// certificates stay valid, and no new key is generated. The annotation `keyplane.io/renew-certificate-authorities`
    /// requests the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub renew_certificate_authorities: Option<String>,

    /// Rotates the key that signs service-account tokens. The annotation `keyplane.io/rotate-service-account-key`
    /// requests the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub service_account_key: Option<String>,

    /// Rotates the key for encryption at rest: all stored objects are re-encrypted with a new key. The annotation
    /// `keyplane.io/rotate-encryption-key` requests the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub encryption_key: Option<String>,

    /// Approves the completion of rotations in the phase Prepared: the value of their request. Clients that still
    /// depend on the former CA or key, and that Keyplane can't see, fail from then on. The annotation
    /// `keyplane.io/complete-rotation` does the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub complete: Option<String>,

    /// Rolls back rotations in the phases Preparing and Prepared: the value of their request. The annotation
    /// `keyplane.io/roll-back-rotation` does the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub roll_back: Option<String>,

    /// Requests to revoke compromised CAs and keys at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke: Option<Revoke>,
}
