//! The progress of a CA or key rotation: part of a `ClusterSpec`'s status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The last rotation of a CA or key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    /// The rotated CA or key: `ca`, `etcd-ca`, `front-proxy-ca`, `service-account-key` or `encryption-key`.
    pub name: String,

    /// The value that requested the rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,

    /// The phase of the rotation.
    pub phase: RotationPhase,

    /// The stage within the phase, for example `Trust` or `Kubelets`. Not set once the rotation is completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,

    /// Whether the rotation is being rolled back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rolling_back: bool,

    /// When the rotation started.
    pub start_time: Time,

    /// When the stage last changed, or when the rotation was completed.
    pub last_transition_time: Time,

    /// When every node was observed to run with the files of this stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes_updated_time: Option<Time>,

    /// The first few conditions that the stage waits for, each with its node or component.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<String>,
}

/// The phase of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum RotationPhase {
    /// The new CA or key is distributed, then used, while the old one is still valid everywhere. The rotation can be
    /// rolled back.
    Preparing,
    /// Everything that Keyplane can see uses the new CA or key; the rest is listed. The rotation can be rolled back.
    Prepared,
    /// The old CA or key is being removed everywhere.
    Completing,
    /// The old CA or key is not valid anywhere.
    Completed,
}

impl RotationPhase {
    /// The name of the phase.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preparing => "Preparing",
            Self::Prepared => "Prepared",
            Self::Completing => "Completing",
            Self::Completed => "Completed",
        }
    }
}
