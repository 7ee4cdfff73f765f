//! Tests of the management cluster, with a policy that has an approver.

use keyplane_crds::ApproverSpec;

use super::*;

fn approver() -> ApproverSpec {
    read(json!({
        "nodes": [{"namePattern": "worker-*", "addressCIDRs": ["10.0.0.0/16"]}],
        "machines": [{"name": "cp1", "addresses": ["10.0.0.11"]}],
        "reserved": {
            "serviceCIDRs": ["10.96.0.0/12"],
            "endpoints": ["10.0.0.11", "10.0.0.100", "api.example.com"],
            "podCIDRs": ["10.0.244.0/24"],
            "addressCIDRs": ["10.0.200.0/24"],
        },
    }))
}

fn judged(approver: &ApproverSpec, name: &str, names: &[&str], address: &str, others: &[NodeFacts]) -> Evaluation {
    let own = node(name, &[("InternalIP", address), ("Hostname", name)]);
    let mut evaluate = Approver::of_policy(approver, Terms::default());
    evaluate.set_nodes(others.iter().cloned().chain([own]));
    let request = object(name, &Csr::of(name).named(names, &[address]).pem());
    evaluate.evaluate(&request, &Resolved::default(), "2026-11-23T12:00:05Z".parse().unwrap())
}

fn reason(name: &str, address: &str) -> &'static str {
    judged(&approver(), name, &[name], address, &[]).reason
}

#[test]
fn approves_node_declared_by_policy() {
    assert_eq!(reason("worker-1", "10.0.0.21"), "AllRulesPassed");
    assert_eq!(reason("cp1", "10.0.0.11"), "AllRulesPassed");
}

#[test]
fn does_not_approve_undeclared_node_or_address() {
    assert_eq!(reason("stray", "10.0.0.21"), "NodeNotDeclared");
    assert_eq!(reason("worker-1", "10.1.0.21"), "AddressNotDeclared");
    assert_eq!(reason("cp1", "10.0.0.12"), "AddressNotDeclared");
    assert_eq!(judged(&approver(), "worker-1", &["worker-1", "x.example"], "10.0.0.21", &[]).reason, "NameNotDeclared");
}

#[test]
fn never_approves_names_and_addresses_reserved_by_policy() {
    for address in ["10.0.0.100", "10.0.0.11", "10.0.244.5", "10.0.200.1"] {
        assert!(["ReservedAddress", "AnotherNodesAddress"].contains(&reason("worker-1", address)), "{address}");
    }
    for name in ["api.example.com", "kubernetes", "kubernetes.default.svc", "x.cluster.local", "cp1"] {
        let evaluation = judged(&approver(), "worker-1", &[name], "10.0.0.21", &[]);
        assert_eq!((evaluation.verdict, evaluation.rule), (Verdict::Deny, "reserved-names"), "{name}");
    }
}

#[test]
fn never_approves_endpoint_address_by_pattern() {
    let mut approver = approver();
    approver.machines.clear();
    approver.nodes[0].name_pattern = "*".to_owned();
    assert_eq!(judged(&approver, "cp1", &["cp1"], "10.0.0.11", &[]).reason, "ReservedAddress");
}

#[test]
fn max_nodes_limits_nodes_of_a_pattern() {
    let mut approver = approver();
    approver.nodes[0].max_nodes = Some(1);
    let other = node("worker-0", &[("InternalIP", "10.0.0.20")]);
    assert_eq!(judged(&approver, "worker-1", &["worker-1"], "10.0.0.21", &[]).reason, "AllRulesPassed");
    assert_eq!(judged(&approver, "worker-1", &["worker-1"], "10.0.0.21", &[other]).reason, "MaxNodesReached");
}

#[test]
fn waits_while_a_range_is_invalid() {
    let mut approver = approver();
    approver.reserved.service_cidrs = vec!["10.96.0.0".to_owned()];
    assert_eq!(judged(&approver, "worker-1", &["worker-1"], "10.0.0.21", &[]).reason, "ReservedUnknown");
}

#[test]
fn never_approves_in_unknown_cluster() {
    let mut approver = Approver::of_unknown_cluster(Terms::default());
    let world = World::new();
    approver.set_nodes(world.nodes.clone());
    assert_eq!(approver.evaluate(&world.request, &world.resolved, world.now).verdict, Verdict::Wait);
    let wrong = World::requesting(&["kubernetes"], &[]);
    assert_eq!(approver.evaluate(&wrong.request, &wrong.resolved, wrong.now).verdict, Verdict::Deny);
}
