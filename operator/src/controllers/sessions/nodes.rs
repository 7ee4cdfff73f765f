//! Cache of a target cluster's Nodes. The CSR approver keeps its own cache.

use std::collections::BTreeMap;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::watcher::Event;

use super::listing::Listing;
use keyplane_core::join::Pool;
use keyplane_core::join::state::NodeState;
use keyplane_core::manifests::systemd::{PodRanges, pod_ranges};

/// The used fields of a Node.
#[derive(Debug, PartialEq)]
struct Known {
    state: NodeState,
    pod_ranges: Vec<IpNet>,
    kubelet: String,
}

/// All Nodes. With an incomplete list, addresses would seem free, and kubelets' certificates lost.
#[derive(Debug, Default)]
pub(super) struct Nodes(Listing<Known>);

impl Nodes {
    /// Applies an event; returns whether the cache has changed.
    pub(super) fn take(&mut self, event: &Event<Node>) -> bool {
        self.0.take(event)
    }

    /// Returns whether a list was complete.
    pub(super) fn are_listed(&self) -> bool {
        self.0.is_complete()
    }

    /// Returns the Pod ranges of every Node that has some.
    pub(super) fn pod_ranges(&self) -> PodRanges {
        let ranges = self.0.known().iter().filter(|(_, node)| !node.pod_ranges.is_empty());
        ranges.map(|(name, node)| (name.clone(), node.pod_ranges.clone())).collect()
    }

    /// Returns the existing Nodes among these names, and whether each is Ready.
    pub(super) fn ready<'a>(&self, names: impl Iterator<Item = &'a str>) -> BTreeMap<String, bool> {
        names.filter_map(|name| Some((name.to_owned(), self.0.known().get(name)?.state.ready == Some(true)))).collect()
    }

    /// Returns the Nodes of these pools.
    pub(super) fn of_pools(&self, pools: &[Pool]) -> BTreeMap<String, NodeState> {
        let theirs = self.0.known().iter().filter(|(name, _)| pools.iter().any(|pool| pool.has(name)));
        theirs.map(|(name, node)| (name.clone(), node.state.clone())).collect()
    }

    /// Returns the version of each kubelet.
    pub(super) fn kubelets(&self) -> BTreeMap<String, String> {
        self.0.known().iter().map(|(name, node)| (name.clone(), node.kubelet.clone())).collect()
    }
}

impl From<&Node> for Known {
    fn from(node: &Node) -> Self {
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        let kubelet = info.map(|info| info.kubelet_version.clone()).unwrap_or_default();
        Self { state: NodeState::from(node), pod_ranges: pod_ranges(node), kubelet }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, ready: &str) -> Node {
        let status = json!({"conditions": [{"type": "Ready", "status": ready}]});
        serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap()
    }

    fn ready(nodes: &Nodes) -> BTreeMap<String, bool> {
        nodes.ready(["cp1", "cp2"].into_iter())
    }

    #[test]
    fn list_replaces_cache_only_when_complete() {
        let mut nodes = Nodes::default();
        assert!(!nodes.take(&Event::Init));
        assert!(!nodes.take(&Event::InitApply(node("cp1", "True"))));
        assert!(!nodes.are_listed() && ready(&nodes).is_empty());
        assert!(!nodes.take(&Event::InitApply(node("cp2", "False"))));
        assert!(nodes.take(&Event::InitDone));
        let both = BTreeMap::from([("cp1".to_owned(), true), ("cp2".to_owned(), false)]);
        assert_eq!(ready(&nodes), both);
        // During a second list, no Node is removed until the list is complete.
        assert!(!nodes.take(&Event::Init));
        assert!(!nodes.take(&Event::InitApply(node("cp1", "True"))));
        assert_eq!((nodes.are_listed(), ready(&nodes)), (true, both));
        assert!(nodes.take(&Event::InitDone));
        assert_eq!(ready(&nodes), BTreeMap::from([("cp1".to_owned(), true)]));
    }

    #[test]
    fn heartbeat_does_not_change_the_cache() {
        let mut nodes = Nodes::default();
        assert!(nodes.take(&Event::InitDone), "the first list is a change, also an empty one");
        assert!(nodes.take(&Event::Apply(node("cp1", "True"))));
        assert!(!nodes.take(&Event::Apply(node("cp1", "True"))));
        assert!(nodes.take(&Event::Apply(node("cp1", "False"))));
        assert!(nodes.take(&Event::Delete(node("cp1", "False"))));
        assert!(!nodes.take(&Event::Delete(node("cp1", "False"))));
    }
}
