//! Requests to revoke compromised CAs and keys.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// CAs and keys to revoke at once. Old and new are never valid at the same time, so the cluster is interrupted. Each
/// value is a text of your choice, as in `spec.rotate`. Nothing happens before you confirm the revocation:
/// `status.revocation` lists the steps and the value that confirms them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revoke {
    /// Revokes all CAs. The annotation `keyplane.io/revoke-certificate-authorities` requests the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub certificate_authorities: Option<String>,

    /// Revokes the cluster CA only, `ca`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[serde(rename = "clusterCA")]
    pub cluster_ca: Option<String>,

    /// Revokes the etcd CA only, `etcd-ca`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[serde(rename = "etcdCA")]
    pub etcd_ca: Option<String>,

    /// Revokes the front-proxy CA only, `front-proxy-ca`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[serde(rename = "frontProxyCA")]
    pub front_proxy_ca: Option<String>,

    /// Revokes the key that signs service-account tokens: the API servers refuse every existing token. The annotation
    /// `keyplane.io/revoke-service-account-key` requests the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub service_account_key: Option<String>,

    /// The value of `status.revocation.confirm`. It is valid only for these CAs and keys, and only for this request.
    /// The annotation `keyplane.io/confirm-revocation` does the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub confirm: Option<String>,
}
