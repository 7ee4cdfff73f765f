//! The labels of workers' Nodes that are there already.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use super::pool::Pool;
use crate::target_objects::MarkPatch;

/// What gives a declared machine's Node the labels that it lacks or has with another value; nothing if it has all.
/// A kubelet sets labels when it registers its Node and at no other time, and some of them it may not set at all.
#[must_use]
pub fn mark_worker(node: &Node, pools: &[Pool]) -> Option<MarkPatch> {
    let name = node.metadata.name.as_deref()?;
    let (pool, machine) = pools.iter().find_map(|pool| Some((pool, pool.machine(name)?)))?;
    let found = node.metadata.labels.as_ref();
    let lacking: BTreeMap<_, _> = pool
        .node_labels(Some(machine))
        .into_iter()
        .filter(|(key, value)| found.and_then(|labels| labels.get(key)) != Some(value))
        .collect();
    (!lacking.is_empty()).then(|| MarkPatch(json!({"metadata": {"labels": lacking}})))
}
