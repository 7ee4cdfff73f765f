//! Tests of the address rules, and of the rules about the Node.

use super::*;
use crate::approval::Answer;

#[test]
fn approves_every_kind_of_declared_node() {
    World::with_node("cp1", "10.0.0.11").is_approved();
    World::with_node("worker1", "10.0.0.21").is_approved();
    World::with_node("spot-a", "10.0.1.7").is_approved();
}

#[test]
fn waits_for_undeclared_node() {
    let world = World::with_node("worker2", "10.0.0.22");
    world.waits("declared", "NodeNotDeclared");
    // The star of the selector matches any characters except dots.
    World::with_node("spot-a.evil", "10.0.1.7").waits("declared", "NodeNotDeclared");
}

#[test]
fn denies_undeclared_address_that_the_node_reports() {
    World::with_node("worker1", "10.0.0.99").is_denied("declared-addresses", "AddressNotDeclared");
    World::with_node("cp1", "10.0.0.99").is_denied("declared-addresses", "AddressNotDeclared");
    World::with_node("spot-a", "10.0.2.7").is_denied("declared-addresses", "AddressNotDeclared");
    // A listed worker has only its listed addresses, even if a selector matches its name.
    let mut world = World::with_node("worker1", "10.0.1.7");
    world.pools.push(pool(&json!({"selector": {"namePattern": "worker*", "addressCIDRs": ["10.0.1.0/24"]}})));
    world.is_denied("declared-addresses", "AddressNotDeclared");
}

#[test]
fn waits_for_missing_node() {
    let mut world = World::new();
    world.nodes.clear();
    world.waits("node", "NodeNotFound");
}

#[test]
fn waits_for_node_without_addresses() {
    let mut world = World::new();
    world.nodes[1] = node("worker1", &[]);
    world.waits("node", "NodeHasNoAddresses");
}

#[test]
fn waits_for_declared_address_that_the_node_does_not_report() {
    let mut world = World::new();
    world.nodes[1] = node("worker1", &[("InternalIP", "10.0.0.21"), ("Hostname", "worker1")]);
    world.waits("node-addresses", "AddressNotReported");
}

#[test]
fn ignores_declaration_of_another_node() {
    let world = World::new();
    let nodes = world.nodes.iter().cloned().collect::<Nodes>();
    let facts = ApprovalFacts {
        nodes: &nodes,
        declaration: &declaration("cp1", &world.cluster, &world.pools),
        reserved: &reserved(&world.cluster, &world.pools),
        terms: &Terms::default(),
        pools: &BTreeSet::new(),
        admitted: false,
        resolved: &world.resolved,
    };
    let evaluation = evaluate(&world.request, &facts, world.now);
    assert_eq!(evaluation.reason, "NodeNotDeclared");
    let answer = |name: &str| evaluation.answers.iter().find(|answer| answer.rule == name).unwrap().answer.clone();
    assert_eq!(answer("declared-addresses"), Answer::NotEvaluated);
    let own = declaration("worker1", &world.cluster, &world.pools);
    assert_eq!(
        evaluate(&world.request, &ApprovalFacts { declaration: &own, ..facts }, world.now).verdict,
        Verdict::Approve
    );
}

#[test]
fn never_approves_cluster_address_that_is_declared_and_reported() {
    let addresses = [
        "10.96.0.1",
        "10.96.0.10",
        "10.111.255.255",
        "fd00:96::1",
        "10.244.3.4",
        "127.0.0.1",
        "127.1.2.3",
        "::1",
        "169.254.169.254",
        "fe80::1",
        "224.0.0.1",
        "ff02::1",
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "255.255.255.255",
    ];
    for address in addresses {
        let mut world = World::with_node("worker9", address);
        world.pools.push(pool(&json!({"machines": [{"name": "worker9", "addresses": [address]}]})));
        world.is_denied("reserved-addresses", "ReservedAddress");
    }
}

#[test]
fn approves_addresses_next_to_reserved_ranges() {
    for address in
        ["10.95.255.255", "10.112.0.0", "10.243.255.255", "10.245.0.0", "126.0.0.1", "169.253.0.1", "fec0::1"]
    {
        let mut world = World::with_node("worker9", address);
        world.pools.push(pool(&json!({"machines": [{"name": "worker9", "addresses": [address]}]})));
        world.is_approved();
    }
}

#[test]
fn never_approves_the_api_endpoint_for_a_worker() {
    let mut world = World::with_node("spot-a", "10.0.1.7");
    world.cluster.control_plane_endpoint.host = "10.0.1.7".to_owned();
    world.is_denied("reserved-addresses", "ReservedAddress");
    // Denied even if a pool lists the address.
    world.pools.push(pool(&json!({"machines": [{"name": "spot-a", "addresses": ["10.0.1.7"]}]})));
    world.is_denied("reserved-addresses", "ReservedAddress");
    // An address in the certificates of the API servers is denied too.
    world.cluster.control_plane_endpoint.host = "api.demo.example".to_owned();
    world.is_approved();
    world.cluster.control_plane.api_server.cert_sans = vec!["10.0.1.7".to_owned()];
    world.is_denied("reserved-addresses", "ReservedAddress");
}

#[test]
fn approves_endpoint_for_control_plane_node_in_cluster_spec() {
    let mut world = World::with_node("cp1", "10.0.0.11");
    world.cluster.control_plane_endpoint.host = "10.0.0.11".to_owned();
    world.is_approved();
}

#[test]
fn never_approves_endpoint_declared_by_pool_only() {
    let mut world = World::with_node("cp1", "10.0.0.12");
    world.pools.push(pool(&json!({"role": "ControlPlane", "machines": [{"name": "cp1", "addresses": ["10.0.0.12"]}]})));
    world.is_approved();
    world.cluster.control_plane_endpoint.host = "10.0.0.12".to_owned();
    world.is_denied("reserved-addresses", "ReservedAddress");
}

#[test]
fn denies_address_declared_for_another_node() {
    World::requesting(&["worker1"], &["10.0.0.11"]).is_denied("reserved-addresses", "AnotherNodesAddress");
    // Denied even if the address is in the range of a selector.
    let mut world = World::with_node("spot-a", "10.0.1.7");
    world.pools.push(pool(&json!({"machines": [{"name": "worker7", "addresses": ["10.0.1.7"]}]})));
    world.is_denied("reserved-addresses", "AnotherNodesAddress");
}

#[test]
fn waits_while_address_is_declared_for_two_nodes() {
    let mut world = World::new();
    world.pools.push(pool(&json!({"machines": [{"name": "worker7", "addresses": ["10.0.0.21"]}]})));
    world.waits("reserved-addresses", "AddressDeclaredTwice");
}

#[test]
fn waiting_address_does_not_hide_denied_address() {
    let mut world = World::requesting(&["worker1"], &["10.0.0.21", "10.96.0.1"]);
    world.pools.push(pool(&json!({"machines": [{"name": "worker7", "addresses": ["10.0.0.21"]}]})));
    world.is_denied("reserved-addresses", "ReservedAddress");
}

#[test]
fn waits_while_another_node_reports_address_in_selector_range() {
    let mut world = World::with_node("spot-a", "10.0.1.7");
    world.nodes.push(node("spot-gone", &[("InternalIP", "10.0.1.7")]));
    world.waits("reserved-addresses", "AddressInUse");
    // An IPv4-mapped address equals the IPv4 address.
    world.nodes.pop();
    world.nodes.push(node("spot-gone", &[("ExternalIP", "::ffff:10.0.1.7")]));
    world.waits("reserved-addresses", "AddressInUse");
}

#[test]
fn node_cannot_block_listed_address_of_another_node() {
    let mut world = World::new();
    world.nodes.push(node("spot-evil", &[("InternalIP", "10.0.0.21")]));
    world.is_approved();
}

#[test]
fn waits_while_cluster_networks_are_invalid() {
    let mut world = World::new();
    world.cluster.network.service_cidrs = vec!["10.96.0.0/33".to_owned()];
    world.waits("reserved-ranges", "ReservedUnknown");
    world.cluster.network.service_cidrs = vec![];
    world.cluster.network.pod_cidrs = vec!["x".to_owned()];
    world.waits("reserved-ranges", "ReservedUnknown");
}

#[test]
fn waits_while_selector_ranges_are_invalid() {
    let mut world = World::with_node("spot-a", "10.0.1.7");
    world.pools[1].selector.as_mut().unwrap().address_cidrs.push("10.0.2.0".to_owned());
    world.waits("declared", "NodePoolUnreadable");
    // Other nodes are not affected.
    World { pools: world.pools.clone(), ..World::new() }.is_approved();
}

#[test]
fn parses_node_addresses_like_kubelet() {
    let facts = node(
        "n",
        &[
            ("InternalIP", "10.0.0.1"),
            ("ExternalIP", "fd00:0::1"),
            ("InternalIP", "n.example"),
            ("InternalIP", "010.0.0.2"),
            ("InternalIP", "fe80::1%eth0"),
            ("InternalIP", ""),
            ("Hostname", "10.0.0.3"),
            ("Hostname", "N."),
            ("InternalDNS", "n.internal"),
            ("ExternalDNS", "10.0.0.4"),
            ("CiliumInternalIP", "10.0.0.5"),
        ],
    );
    let addresses: Vec<String> = facts.addresses.iter().map(ToString::to_string).collect();
    let names: Vec<&str> = facts.names.iter().map(crate::approval::names::DnsName::as_str).collect();
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.3", "fd00::1"]);
    assert_eq!(names, ["n", "n.internal"]);
}
