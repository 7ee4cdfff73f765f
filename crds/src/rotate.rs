//! What is to be made anew on request.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::revoke::Revoke;

/// Requests for new keys. Each is a text of your own choice, for example a date or a ticket: a value that is new asks for
/// one rotation, the same value again for none, so that it can stay in Git.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rotate {
    /// Every certificate below the authorities, in kubeconfigs too: each gets a new key. The annotation
    /// `keyplane.io/rotate-certificates` asks for the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub certificates: Option<String>,

    /// All authorities: each gets a successor, which is trusted everywhere before anything depends on it. The annotation
    /// `keyplane.io/rotate-certificate-authorities` asks for the same.
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

    /// Longer lives for authorities that have signed themselves: each gets another certificate of the same key, so that
    /// what it has signed stays good. No successor is made. The annotation `keyplane.io/renew-certificate-authorities` asks
    /// for the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub renew_certificate_authorities: Option<String>,

    /// The key that signs service-account tokens. The annotation `keyplane.io/rotate-service-account-key` asks for the
    /// same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub service_account_key: Option<String>,

    /// The key with which objects are encrypted at rest: everything is written anew with a new one. The annotation
    /// `keyplane.io/rotate-encryption-key` asks for the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub encryption_key: Option<String>,

    /// Completes rotations that wait for it (phase Prepared): the value by which they were asked for. What still depends
    /// on the former authority or key, and Keyplane can't see, fails from then on. The annotation
    /// `keyplane.io/complete-rotation` does the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub complete: Option<String>,

    /// Takes rotations back that are not being completed yet (phases Preparing and Prepared): the value by which they were
    /// asked for. The annotation `keyplane.io/roll-back-rotation` does the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub roll_back: Option<String>,

    /// What is in wrong hands and loses its power at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke: Option<Revoke>,
}
