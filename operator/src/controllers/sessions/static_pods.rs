//! The static pods of a target's control plane, as their mirrors show them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event};

use super::listing::Listing;
use keyplane_core::observed::StaticPod;

/// Where they are.
pub(super) const NAMESPACE: &str = "kube-system";

/// kubeadm's label on all of them.
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

/// All static pods.
#[derive(Debug, Default)]
pub(super) struct StaticPods(Listing<Known>);

impl StaticPods {
    /// Keeps what an event says; tells whether there is anything new.
    pub(super) fn take(&mut self, event: &Event<Pod>) -> bool {
        self.0.take(event)
    }

    /// Whether there has been a complete list.
    pub(super) fn are_listed(&self) -> bool {
        self.0.is_complete()
    }

    /// By node and component.
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
    fn a_mirror_is_found_by_its_node_and_the_name_in_its_manifest() {
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
