//! How far the rotation of an authority or key is: part of a `ClusterSpec`'s status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The last rotation of an authority or key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    /// What is rotated: `ca`, `etcd-ca`, `front-proxy-ca`, `service-account-key` or `encryption-key`.
    pub name: String,

    /// The value that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,

    /// How far it is, in four words.
    pub phase: RotationPhase,

    /// How far it is within the phase, for example `Trust` or `Kubelets`. Not set once it is completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,

    /// Whether it is being taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rolling_back: bool,

    /// When the rotation started.
    pub start_time: Time,

    /// When the stage last changed, or when the rotation was completed.
    pub last_transition_time: Time,

    /// When every node ran with the files of this stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes_updated_time: Option<Time>,

    /// What the stage waits for, each with the machine or component that it is about; the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<String>,
}

/// How far a rotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum RotationPhase {
    /// The new one is made known, then used, while the old one is still good everywhere. It can be rolled back.
    Preparing,
    /// Everything that Keyplane can see uses the new one; what it can't see is listed. It can be rolled back.
    Prepared,
    /// The old one is being taken away everywhere.
    Completing,
    /// The old one is good nowhere any more.
    Completed,
}

impl RotationPhase {
    /// Its name.
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
