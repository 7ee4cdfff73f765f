//! The labels and taints of control-plane Nodes (kubeadm's `phases/markcontrolplane`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Taint};
use keyplane_crds::Taint as WrittenTaint;
use serde_json::{Value, json};

/// kubeadm's label of the role, which `kubectl get nodes` shows.
const ROLE_LABEL: &str = "node-role.kubernetes.io/control-plane";
/// kubeadm's label that excludes the Node from cloud load balancers.
const NO_LOAD_BALANCER_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// The label with the zone of a Node, for the scheduler, Services and volumes.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// A merge patch for a Node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodePatch(pub Value);

/// Returns the patch with the labels and taints of a control-plane Node, or `None` if nothing is missing. As with
/// kubeadm, taints are set only together with the role label, so a user can remove a taint later. The zone is set only
/// if it is missing: the value of a cloud provider takes precedence.
#[must_use]
pub fn control_plane_patch(
    node: &Node,
    taints: Option<&[WrittenTaint]>,
    failure_domain: Option<&str>,
) -> Option<NodePatch> {
    let has = |label: &str| node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(label));
    let zone = failure_domain.filter(|_| !has(ZONE_LABEL));
    let version = node.metadata.resource_version.clone();
    let mut labels: BTreeMap<_, _> = zone.map(|zone| (ZONE_LABEL, zone)).into_iter().collect();
    if has(ROLE_LABEL) {
        let patch = || NodePatch(json!({"metadata": {"resourceVersion": version, "labels": labels}}));
        return zone.map(|_| patch());
    }
    labels.extend([(ROLE_LABEL, ""), (NO_LOAD_BALANCER_LABEL, "")]);
    let mut desired: Vec<Taint> = match taints {
        None => vec![taint(ROLE_LABEL, "", "NoSchedule")],
        Some(taints) => taints.iter().map(|written| taint(&written.key, &written.value, &written.effect)).collect(),
    };
    let present = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    for other in present {
        if !desired.iter().any(|taint| taint.key == other.key && taint.effect == other.effect) {
            desired.push(other);
        }
    }
    Some(NodePatch(json!({
        // A merge patch replaces the whole list of taints: the resource version ensures that it is the observed one.
        "metadata": {"resourceVersion": version, "labels": labels},
        "spec": {"taints": desired},
    })))
}

fn taint(key: &str, value: &str, effect: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        value: Some(value.to_owned()).filter(|value| !value.is_empty()),
        effect: effect.to_owned(),
        ..Taint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(value: Value) -> Node {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn patches_new_node_once_and_keeps_other_taints() {
        let fresh = node(json!({"metadata": {"name": "cp1", "resourceVersion": "7"},
            "spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]}}));
        let patch = control_plane_patch(&fresh, None, None).unwrap().0;
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["metadata"]["labels"][ROLE_LABEL], "");
        let keys: Vec<_> = patch["spec"]["taints"].as_array().unwrap().iter().map(|taint| &taint["key"]).collect();
        assert_eq!(keys, [ROLE_LABEL, "node.kubernetes.io/not-ready"]);
        let labeled = node(json!({"metadata": {"name": "cp1", "labels": {ROLE_LABEL: ""}}}));
        assert_eq!(control_plane_patch(&labeled, None, None), None);
    }

    #[test]
    fn empty_taint_list_means_no_taint() {
        let fresh = node(json!({"metadata": {"name": "cp1"}}));
        assert_eq!(control_plane_patch(&fresh, Some(&[]), None).unwrap().0["spec"]["taints"], json!([]));
    }

    #[test]
    fn failure_domain_sets_missing_zone_label() {
        let zone = |labels: Value| {
            let node = node(json!({"metadata": {"name": "cp1", "labels": labels}}));
            control_plane_patch(&node, None, Some("a")).map(|patch| patch.0["metadata"]["labels"].clone())
        };
        assert_eq!(zone(json!({})).unwrap()[ZONE_LABEL], "a");
        assert_eq!(zone(json!({ROLE_LABEL: ""})).unwrap(), json!({ZONE_LABEL: "a"}));
        assert_eq!(zone(json!({ROLE_LABEL: "", ZONE_LABEL: "of-the-cloud"})), None);
    }
}
