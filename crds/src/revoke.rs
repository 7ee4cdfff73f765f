//! What is in wrong hands and loses its power at once.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Authorities and keys that lose their power at once, without a time in which old and new are good: the cluster is
/// interrupted. Each is a text of your own choice, as in `spec.rotate`. Nothing happens before it is confirmed:
/// `status.revocation` says what will happen, and by which value it is confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revoke {
    /// All authorities. The annotation `keyplane.io/revoke-certificate-authorities` asks for the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub certificate_authorities: Option<String>,

    /// The cluster's authority alone, `ca`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[serde(rename = "clusterCA")]
    pub cluster_ca: Option<String>,

    /// etcd's authority alone, `etcd-ca`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[serde(rename = "etcdCA")]
    pub etcd_ca: Option<String>,

    /// The authority of aggregated API servers alone, `front-proxy-ca`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[serde(rename = "frontProxyCA")]
    pub front_proxy_ca: Option<String>,

    /// The key that signs service-account tokens: every token that was ever issued is refused. The annotation
    /// `keyplane.io/revoke-service-account-key` asks for the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub service_account_key: Option<String>,

    /// The value of `status.revocation.confirm`. It is good for these authorities and keys and this request only. The
    /// annotation `keyplane.io/confirm-revocation` does the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub confirm: Option<String>,
}
