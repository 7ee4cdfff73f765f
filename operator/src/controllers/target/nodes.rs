//! The Nodes of a target, as the watch tells of them: whether they are Ready. What the approver looks at it keeps itself.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::runtime::watcher::Event;

/// What is known of a Node.
#[derive(Debug, PartialEq)]
struct Known {
    ready: bool,
}

/// All Nodes. A list that is under way counts only once it is complete: half a list would look as if the other Nodes
/// were gone, their addresses free and their kubelets' certificates lost.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    known: BTreeMap<String, Known>,
    list_under_way: Option<BTreeMap<String, Known>>,
    listed: bool,
}

impl Nodes {
    /// Keeps what an event says; tells whether there is anything new.
    pub(super) fn take(&mut self, event: &Event<Node>) -> bool {
        match event {
            Event::Init => {
                self.list_under_way = Some(BTreeMap::new());
                false
            }
            Event::InitApply(node) => {
                self.list_under_way.get_or_insert_default().insert(node.name_any(), Known::from(node));
                false
            }
            Event::InitDone => {
                let list = self.list_under_way.take().unwrap_or_default();
                let changed = !self.listed || list != self.known;
                self.known = list;
                self.listed = true;
                changed
            }
            Event::Apply(node) => {
                let now = Known::from(node);
                let changed = self.known.get(&node.name_any()) != Some(&now);
                self.known.insert(node.name_any(), now);
                changed
            }
            Event::Delete(node) => self.known.remove(&node.name_any()).is_some(),
        }
    }

    /// Whether there has been a complete list.
    pub(super) fn are_listed(&self) -> bool {
        self.listed
    }

    /// Of these names those that are there, and whether each is Ready.
    pub(super) fn ready<'a>(&self, names: impl Iterator<Item = &'a str>) -> BTreeMap<String, bool> {
        names.filter_map(|name| Some((name.to_owned(), self.known.get(name)?.ready))).collect()
    }
}

impl From<&Node> for Known {
    fn from(node: &Node) -> Self {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.filter(|condition| condition.type_ == "Ready").any(|ready| ready.status == "True");
        Self { ready }
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
    fn a_list_counts_only_once_it_is_complete() {
        let mut nodes = Nodes::default();
        assert!(!nodes.take(&Event::Init));
        assert!(!nodes.take(&Event::InitApply(node("cp1", "True"))));
        assert!(!nodes.are_listed() && ready(&nodes).is_empty());
        assert!(!nodes.take(&Event::InitApply(node("cp2", "False"))));
        assert!(nodes.take(&Event::InitDone));
        let both = BTreeMap::from([("cp1".to_owned(), true), ("cp2".to_owned(), false)]);
        assert_eq!(ready(&nodes), both);
        // Listed anew: until the end nothing has gone.
        assert!(!nodes.take(&Event::Init));
        assert!(!nodes.take(&Event::InitApply(node("cp1", "True"))));
        assert_eq!((nodes.are_listed(), ready(&nodes)), (true, both));
        assert!(nodes.take(&Event::InitDone));
        assert_eq!(ready(&nodes), BTreeMap::from([("cp1".to_owned(), true)]));
    }

    #[test]
    fn a_heartbeat_is_nothing_new() {
        let mut nodes = Nodes::default();
        assert!(nodes.take(&Event::InitDone), "an empty list is news the first time");
        assert!(nodes.take(&Event::Apply(node("cp1", "True"))));
        assert!(!nodes.take(&Event::Apply(node("cp1", "True"))));
        assert!(nodes.take(&Event::Apply(node("cp1", "False"))));
        assert!(nodes.take(&Event::Delete(node("cp1", "False"))));
        assert!(!nodes.take(&Event::Delete(node("cp1", "False"))));
    }
}
