//! Who gets the seats of a selector with a limit.

use super::*;
use crate::approval::seats::Seating;

/// Nodes in the order in which they were made; two may be of one second.
fn made(names: &[(&str, i64)]) -> Vec<NodeFacts> {
    let facts = |(name, second): &(&str, i64)| NodeFacts {
        name: (*name).to_owned(),
        created: Timestamp::from_second(*second).ok(),
        ..NodeFacts::default()
    };
    names.iter().map(facts).collect()
}

#[test]
fn seats_go_to_those_who_have_fewer_than_the_limit_before_them() {
    let nodes = made(&[("spot-e", 3), ("spot-a", 5), ("other", 1), ("spot-d", 3), ("spot-c", 9), ("spot-b", 3)]);
    let all: Nodes = nodes.iter().cloned().collect();
    for max in 1..=6 {
        let pools =
            [pool(&json!({"selector": {"namePattern": "spot-*", "addressCIDRs": ["10.0.1.0/24"]}, "maxNodes": max}))];
        let declarations = Declarations::of_cluster(&World::new().cluster, &named(&pools));
        let seating = Seating::of(&declarations, &all);
        let max = usize::try_from(max).unwrap();
        assert_eq!(seating.wanted(0), 5);
        for node in nodes.iter().filter(|node| node.name != "other") {
            let before =
                |other: &&NodeFacts| other.name != "other" && (other.created, &other.name) < (node.created, &node.name);
            let earlier = nodes.iter().filter(before).count();
            assert_eq!(seating.has_seat(0, max, node), earlier < max, "{} of {max}", node.name);
        }
    }
}

#[test]
fn a_machine_that_is_listed_takes_no_seat() {
    let pools = [
        pool(&json!({"machines": [{"name": "spot-a", "addresses": ["10.0.1.1"]}]})),
        pool(&json!({"selector": {"namePattern": "spot-*", "addressCIDRs": ["10.0.1.0/24"]}, "maxNodes": 1})),
    ];
    let declarations = Declarations::of_cluster(&World::new().cluster, &named(&pools));
    let nodes: Nodes = made(&[("spot-a", 1), ("spot-b", 2)]).into_iter().collect();
    assert_eq!(Seating::of(&declarations, &nodes).wanted(0), 1);
}

#[test]
fn seats_are_given_anew_when_nodes_come_and_go() {
    let pools = [pool(&json!({"selector": {"namePattern": "spot-*", "addressCIDRs": ["10.0.1.0/24"]}, "maxNodes": 1}))];
    let mut approver = Approver::of_cluster(&World::new().cluster, &named(&pools), Terms::default());
    let has_room = |approver: &Approver| approver.declaration("spot-b").seats()[0].has_room;
    let [first, second] = <[NodeFacts; 2]>::try_from(made(&[("spot-a", 1), ("spot-b", 2)])).unwrap();
    assert!(approver.node_seen(second.clone()));
    assert!(has_room(&approver));
    assert!(approver.node_seen(first.clone()));
    assert!(!has_room(&approver));
    assert!(approver.node_gone("spot-a"));
    assert!(has_room(&approver));
    assert!(approver.set_nodes([first, second]));
    assert!(!has_room(&approver));
}
