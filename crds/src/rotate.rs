//! What is to be made anew on request.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

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
}
