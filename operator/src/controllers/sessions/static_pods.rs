//! Cache of the static pods of a target cluster's control plane, from their mirror pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event};

use super::listing::Listing;
use keyplane_core::observed::StaticPod;

/// Namespace of the mirror pods.
pub(super) const NAMESPACE: &str = "kube-system";

/// Selects static pods by kubeadm's label.
pub(super) fn selection() -> watcher::Config {
    watcher::Config::default().labels("tier=control-plane")
}

#[derive(Debug, PartialEq)]
struct Known {
    node: String,
    component: String,
    pod: StaticPod,
}

impl From<&Pod> for Known {
    fn from(pod: &Pod) -> Self {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        // The kubelet names a mirror `<name in the manifest>-<node>`.
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let component = name.strip_suffix(&node).and_then(|name| name.strip_suffix('-')).unwrap_or(name);
        Self { component: component.to_owned(), node, pod: StaticPod::from(pod) }
    }
}

#[derive(Debug, Default)]
pub(super) struct StaticPods(Listing<Known>);

impl StaticPods {
    /// Applies an event; returns whether the cache has changed.
    pub(super) fn take(&mut self, event: &Event<Pod>) -> bool {
        self.0.take(event)
    }

    /// Returns whether a list was complete.
    pub(super) fn are_listed(&self) -> bool {
        self.0.is_complete()
    }

    /// Returns the static pods by node and component.
    pub(super) fn facts(&self) -> BTreeMap<(String, String), StaticPod> {
        let pods = self.0.known().values();
        pods.map(|known| ((known.node.clone(), known.component.clone()), known.pod.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn mirror_pod_is_keyed_by_node_and_component() {
        let mirror =
            json!({"metadata": {"name": "kube-apiserver-cp-1"}, "spec": {"nodeName": "cp-1", "containers": []}});
        let mut pods = StaticPods::default();
        assert!(!pods.are_listed());
        pods.take(&Event::InitApply(serde_json::from_value(mirror).unwrap()));
        assert!(pods.take(&Event::InitDone) && pods.are_listed());
        let facts = pods.facts();
        let names: Vec<_> = facts.keys().map(|(node, component)| (node.as_str(), component.as_str())).collect();
        assert_eq!(names, [("cp-1", "kube-apiserver")]);
    }
}
