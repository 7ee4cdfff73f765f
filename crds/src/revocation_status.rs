//! What a revocation would do: part of a `ClusterSpec`'s status.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A revocation that was asked for and not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevocationStatus {
    /// What would be revoked: `ca`, `etcd-ca`, `front-proxy-ca`, `service-account-key`.
    pub names: Vec<String>,

    /// The value that confirms it, in `spec.rotate.revoke.confirm`: a word for each of them, in any order.
    pub confirm: String,

    /// What would happen, what would stop and for how long, and what would be left to do: in this order.
    pub steps: Vec<String>,
}
