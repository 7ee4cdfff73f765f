//! The effects of a revocation: part of a `ClusterSpec`'s status.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A requested revocation that is not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevocationStatus {
    /// The CAs and keys to revoke: `ca`, `etcd-ca`, `front-proxy-ca`, `service-account-key`.
    pub names: Vec<String>,

    /// The value for `spec.rotate.revoke.confirm` that confirms the revocation: one word for each CA or key, in any
    /// order.
    pub confirm: String,

    /// The steps of the revocation, then the interruptions with their length, then the work that remains for you.
    pub steps: Vec<String>,
}
