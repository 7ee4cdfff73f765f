//! The labels of registered worker Nodes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use super::pool::Pool;
use crate::target_objects::NodePatch;

/// Returns the patch for the missing or different labels of a listed node, or `None` if the Node has all labels.
/// A kubelet sets labels only when it registers its Node, and may not set some of them at all.
#[must_use]
pub fn worker_label_patch(node: &Node, pools: &[Pool]) -> Option<NodePatch> {
    let name = node.metadata.name.as_deref()?;
    let (pool, machine) = pools.iter().find_map(|pool| Some((pool, pool.machine(name)?)))?;
    let found = node.metadata.labels.as_ref();
    let missing: BTreeMap<_, _> = pool
        .node_labels(Some(machine))
        .into_iter()
        .filter(|(key, value)| found.and_then(|labels| labels.get(key)) != Some(value))
        .collect();
    (!missing.is_empty()).then(|| NodePatch(json!({"metadata": {"labels": missing}})))
}
