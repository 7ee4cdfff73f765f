//! The observed components of a control-plane node: part of a `ClusterSpec`'s status.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A control-plane node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The name of the node.
    pub name: String,

    /// The components of the node.
    pub components: Vec<ComponentStatus>,
}

/// A component, as it was last observed to be Ready with its current manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentStatus {
    /// The name of the component, for example `kube-apiserver`.
    pub name: String,

    /// The image of the component.
    pub image: String,

    /// The SHA-256 of the manifest. Not set after Keyplane has written another manifest, until the component runs with
    /// it. Keyplane may replace that manifest at once, but changes nothing else before the component runs with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_checksum: Option<String>,
}
