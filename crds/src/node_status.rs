//! What a control-plane node was seen to run: part of a `ClusterSpec`'s status.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A node of the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its name.
    pub name: String,

    /// Its static pods.
    pub components: Vec<ComponentStatus>,
}

/// A component as it was last seen to run what is written for it, and Ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentStatus {
    /// Its name, for example `kube-apiserver`.
    pub name: String,

    /// The image that it ran.
    pub image: String,

    /// The SHA-256 of its manifest. Not set while another one is written that has not been seen to run: that one may be
    /// replaced at once, and nothing else changes before it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_checksum: Option<String>,
}
