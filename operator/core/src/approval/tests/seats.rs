//! Tests of the quota (`maxNodes`).

use super::*;
use crate::approval::quota::NodeQuota;

/// Returns Nodes in the order of their creation; two can have the same creation time.
fn nodes_created_at(names: &[(&str, i64)]) -> Vec<NodeFacts> {
    let facts = |(name, second): &(&str, i64)| NodeFacts {
        name: (*name).to_owned(),
        created: Timestamp::from_second(*second).ok(),
        ..NodeFacts::default()
    };
    names.iter().map(facts).collect()
}

#[test]
fn oldest_nodes_up_to_max_nodes_are_within_quota() {
    let nodes =
        nodes_created_at(&[("spot-e", 3), ("spot-a", 5), ("other", 1), ("spot-d", 3), ("spot-c", 9), ("spot-b", 3)]);
    let all: Nodes = nodes.iter().cloned().collect();
    for max in 1..=6 {
        let pools =
            [pool(&json!({"selector": {"namePattern": "spot-*", "addressCIDRs": ["10.0.1.0/24"]}, "maxNodes": max}))];
        let declarations = Declarations::of_cluster(&World::new().cluster, &named(&pools));
        let quota = NodeQuota::of(&declarations, &all);
        let max = usize::try_from(max).unwrap();
        assert_eq!(quota.wanted(0), 5);
        for node in nodes.iter().filter(|node| node.name != "other") {
            let before =
                |other: &&NodeFacts| other.name != "other" && (other.created, &other.name) < (node.created, &node.name);
            let earlier = nodes.iter().filter(before).count();
            assert_eq!(quota.is_within_quota(0, max, node), earlier < max, "{} of {max}", node.name);
        }
    }
}

#[test]
fn listed_node_does_not_count_toward_quota() {
    let pools = [
        pool(&json!({"machines": [{"name": "spot-a", "addresses": ["10.0.1.1"]}]})),
        pool(&json!({"selector": {"namePattern": "spot-*", "addressCIDRs": ["10.0.1.0/24"]}, "maxNodes": 1})),
    ];
    let declarations = Declarations::of_cluster(&World::new().cluster, &named(&pools));
    let nodes: Nodes = nodes_created_at(&[("spot-a", 1), ("spot-b", 2)]).into_iter().collect();
    assert_eq!(NodeQuota::of(&declarations, &nodes).wanted(0), 1);
}

#[test]
fn quota_is_recomputed_when_nodes_change() {
    let pools = [pool(&json!({"selector": {"namePattern": "spot-*", "addressCIDRs": ["10.0.1.0/24"]}, "maxNodes": 1}))];
    let mut approver = Approver::of_cluster(&World::new().cluster, &named(&pools), Terms::default());
    let has_capacity = |approver: &Approver| approver.declaration("spot-b").quotas()[0].has_capacity;
    let [first, second] = <[NodeFacts; 2]>::try_from(nodes_created_at(&[("spot-a", 1), ("spot-b", 2)])).unwrap();
    assert!(approver.update_node(second.clone()));
    assert!(has_capacity(&approver));
    assert!(approver.update_node(first.clone()));
    assert!(!has_capacity(&approver));
    assert!(approver.remove_node("spot-a"));
    assert!(has_capacity(&approver));
    assert!(approver.set_nodes([first, second]));
    assert!(!has_capacity(&approver));
}
