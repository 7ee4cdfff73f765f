//! The labels and taints of control-plane Nodes (kubeadm's `phases/markcontrolplane`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Taint};
use keyplane_crds::Taint as WrittenTaint;
use serde_json::{Value, json};

/// kubeadm's label of the role, which `kubectl get nodes` shows.
const ROLE_LABEL: &str = "node-role.kubernetes.io/control-plane";
/// kubeadm's label that keeps cloud load balancers away.
const NO_LOAD_BALANCER_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// The label by which the scheduler, Services and volumes tell where a Node stands.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// A merge patch for a Node.
#[derive(Debug, Clone, PartialEq)]
pub struct MarkPatch(pub Value);

/// What makes the Node a marked one; nothing if it has been marked. Like kubeadm, this is done once: who takes the
/// taint off later wants it off. A zone is written where there is none; one that a cloud has written is right.
#[must_use]
pub fn mark(node: &Node, taints: Option<&[WrittenTaint]>, failure_domain: Option<&str>) -> Option<MarkPatch> {
    let has = |label: &str| node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(label));
    let zone = failure_domain.filter(|_| !has(ZONE_LABEL));
    let version = node.metadata.resource_version.clone();
    let mut labels: BTreeMap<_, _> = zone.map(|zone| (ZONE_LABEL, zone)).into_iter().collect();
    if has(ROLE_LABEL) {
        let patch = || MarkPatch(json!({"metadata": {"resourceVersion": version, "labels": labels}}));
        return zone.map(|_| patch());
    }
    labels.extend([(ROLE_LABEL, ""), (NO_LOAD_BALANCER_LABEL, "")]);
    let mut wanted: Vec<Taint> = match taints {
        None => vec![taint(ROLE_LABEL, "", "NoSchedule")],
        Some(taints) => taints.iter().map(|written| taint(&written.key, &written.value, &written.effect)).collect(),
    };
    let present = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    for other in present {
        if !wanted.iter().any(|taint| taint.key == other.key && taint.effect == other.effect) {
            wanted.push(other);
        }
    }
    Some(MarkPatch(json!({
        // A taint list is replaced as a whole: the version makes sure that it is the one that was seen.
        "metadata": {"resourceVersion": version, "labels": labels},
        "spec": {"taints": wanted},
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
    fn marks_a_new_node_once_and_keeps_the_taints_that_others_set() {
        let fresh = node(json!({"metadata": {"name": "cp1", "resourceVersion": "7"},
            "spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]}}));
        let patch = mark(&fresh, None, None).unwrap().0;
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["metadata"]["labels"][ROLE_LABEL], "");
        let keys: Vec<_> = patch["spec"]["taints"].as_array().unwrap().iter().map(|taint| &taint["key"]).collect();
        assert_eq!(keys, [ROLE_LABEL, "node.kubernetes.io/not-ready"]);
        let marked = node(json!({"metadata": {"name": "cp1", "labels": {ROLE_LABEL: ""}}}));
        assert_eq!(mark(&marked, None, None), None);
    }

    #[test]
    fn an_empty_list_means_no_taint() {
        let fresh = node(json!({"metadata": {"name": "cp1"}}));
        assert_eq!(mark(&fresh, Some(&[]), None).unwrap().0["spec"]["taints"], json!([]));
    }

    #[test]
    fn a_failure_domain_becomes_the_zone_of_a_node_that_has_none() {
        let zone = |labels: Value| {
            let node = node(json!({"metadata": {"name": "cp1", "labels": labels}}));
            mark(&node, None, Some("a")).map(|patch| patch.0["metadata"]["labels"].clone())
        };
        assert_eq!(zone(json!({})).unwrap()[ZONE_LABEL], "a");
        assert_eq!(zone(json!({ROLE_LABEL: ""})).unwrap(), json!({ZONE_LABEL: "a"}));
        assert_eq!(zone(json!({ROLE_LABEL: "", ZONE_LABEL: "of-the-cloud"})), None);
    }
}
