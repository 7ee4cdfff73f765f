//! The addresses in a request, and whether the node is known.

use super::*;
use crate::approval::Answer;

#[test]
fn approves_every_kind_of_declared_node() {
    World::with_node("cp1", "10.0.0.11").is_approved();
    World::with_node("worker1", "10.0.0.21").is_approved();
    World::with_node("spot-a", "10.0.1.7").is_approved();
}

#[test]
fn waits_for_a_node_that_nobody_has_declared_yet() {
    let world = World::with_node("worker2", "10.0.0.22");
    world.waits("declared", "NodeNotDeclared");
    // The selector's star is for any characters but a dot.
    World::with_node("spot-a.evil", "10.0.1.7").waits("declared", "NodeNotDeclared");
}

#[test]
fn denies_an_address_that_is_not_declared_even_if_the_node_reports_it() {
    World::with_node("worker1", "10.0.0.99").is_denied("declared-addresses", "AddressNotDeclared");
    World::with_node("cp1", "10.0.0.99").is_denied("declared-addresses", "AddressNotDeclared");
    World::with_node("spot-a", "10.0.2.7").is_denied("declared-addresses", "AddressNotDeclared");
    // A listed worker has what is listed, even where a selector matches its name.
    let mut world = World::with_node("worker1", "10.0.1.7");
    world.pools.push(pool(&json!({"selector": {"namePattern": "worker*", "addressCIDRs": ["10.0.1.0/24"]}})));
    world.is_denied("declared-addresses", "AddressNotDeclared");
}

#[test]
fn waits_for_a_node_that_is_not_there_yet() {
    let mut world = World::new();
    world.nodes.clear();
    world.waits("node", "NodeNotFound");
}

#[test]
fn waits_for_a_node_that_has_no_addresses_yet() {
    let mut world = World::new();
    world.nodes[1] = node("worker1", &[]);
    world.waits("node", "NodeHasNoAddresses");
}

#[test]
fn waits_for_a_declared_address_that_the_node_does_not_report_yet() {
    let mut world = World::new();
    world.nodes[1] = node("worker1", &[("InternalIP", "10.0.0.21"), ("Hostname", "worker1")]);
    world.waits("node-addresses", "AddressNotReported");
}

#[test]
fn does_not_take_the_declaration_of_another_node() {
    let world = World::new();
    let nodes = world.nodes.iter().cloned().collect::<Nodes>();
    let facts = Facts {
        nodes: &nodes,
        declaration: &declaration("cp1", &world.cluster, &world.pools),
        reserved: &reserved(&world.cluster, &world.pools),
        terms: &Terms::default(),
        pools: &BTreeSet::new(),
        admitted: false,
        resolved: &world.resolved,
    };
    let judgement = judge(&world.request, &facts, world.now);
    assert_eq!(judgement.reason, "NodeNotDeclared");
    let answer = |name: &str| judgement.answers.iter().find(|answer| answer.rule == name).unwrap().answer.clone();
    assert_eq!(answer("declared-addresses"), Answer::NotEvaluated);
    let own = declaration("worker1", &world.cluster, &world.pools);
    assert_eq!(judge(&world.request, &Facts { declaration: &own, ..facts }, world.now).verdict, Verdict::Approve);
}

#[test]
fn never_approves_an_address_of_the_cluster_even_if_it_is_declared_and_reported() {
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
fn approves_addresses_beside_the_reserved_ranges() {
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
    // Not even where a pool lists it.
    world.pools.push(pool(&json!({"machines": [{"name": "spot-a", "addresses": ["10.0.1.7"]}]})));
    world.is_denied("reserved-addresses", "ReservedAddress");
    // Nor an address in the API servers' certificate.
    world.cluster.control_plane_endpoint.host = "api.demo.example".to_owned();
    world.is_approved();
    world.cluster.control_plane.api_server.cert_sans = vec!["10.0.1.7".to_owned()];
    world.is_denied("reserved-addresses", "ReservedAddress");
}

#[test]
fn approves_the_endpoint_for_the_control_plane_node_that_the_cluster_spec_gives_it_to() {
    let mut world = World::with_node("cp1", "10.0.0.11");
    world.cluster.control_plane_endpoint.host = "10.0.0.11".to_owned();
    world.is_approved();
}

#[test]
fn never_approves_the_endpoint_for_a_control_plane_node_by_a_pool_alone() {
    let mut world = World::with_node("cp1", "10.0.0.12");
    world.pools.push(pool(&json!({"role": "ControlPlane", "machines": [{"name": "cp1", "addresses": ["10.0.0.12"]}]})));
    world.is_approved();
    world.cluster.control_plane_endpoint.host = "10.0.0.12".to_owned();
    world.is_denied("reserved-addresses", "ReservedAddress");
}

#[test]
fn denies_an_address_that_is_declared_for_another_machine() {
    World::asked_for(&["worker1"], &["10.0.0.11"]).is_denied("reserved-addresses", "AnotherNodesAddress");
    // Even where a selector has it in its range.
    let mut world = World::with_node("spot-a", "10.0.1.7");
    world.pools.push(pool(&json!({"machines": [{"name": "worker7", "addresses": ["10.0.1.7"]}]})));
    world.is_denied("reserved-addresses", "AnotherNodesAddress");
}

#[test]
fn waits_while_an_address_is_declared_for_two_machines() {
    let mut world = World::new();
    world.pools.push(pool(&json!({"machines": [{"name": "worker7", "addresses": ["10.0.0.21"]}]})));
    world.waits("reserved-addresses", "AddressDeclaredTwice");
}

#[test]
fn what_waits_does_not_hide_what_denies() {
    let mut world = World::asked_for(&["worker1"], &["10.0.0.21", "10.96.0.1"]);
    world.pools.push(pool(&json!({"machines": [{"name": "worker7", "addresses": ["10.0.0.21"]}]})));
    world.is_denied("reserved-addresses", "ReservedAddress");
}

#[test]
fn waits_while_another_node_reports_an_address_in_a_selectors_range() {
    let mut world = World::with_node("spot-a", "10.0.1.7");
    world.nodes.push(node("spot-gone", &[("InternalIP", "10.0.1.7")]));
    world.waits("reserved-addresses", "AddressInUse");
    // An IPv4-mapped address is that IPv4 address.
    world.nodes.pop();
    world.nodes.push(node("spot-gone", &[("ExternalIP", "::ffff:10.0.1.7")]));
    world.waits("reserved-addresses", "AddressInUse");
}

#[test]
fn no_node_can_stop_another_by_reporting_its_listed_address() {
    let mut world = World::new();
    world.nodes.push(node("spot-evil", &[("InternalIP", "10.0.0.21")]));
    world.is_approved();
}

#[test]
fn waits_while_the_networks_of_the_cluster_cannot_be_read() {
    let mut world = World::new();
    world.cluster.network.service_cidrs = vec!["10.96.0.0/33".to_owned()];
    world.waits("reserved-ranges", "ReservedUnknown");
    world.cluster.network.service_cidrs = vec![];
    world.cluster.network.pod_cidrs = vec!["x".to_owned()];
    world.waits("reserved-ranges", "ReservedUnknown");
}

#[test]
fn waits_while_the_ranges_of_a_selector_cannot_be_read() {
    let mut world = World::with_node("spot-a", "10.0.1.7");
    world.pools[1].selector.as_mut().unwrap().address_cidrs.push("10.0.2.0".to_owned());
    world.waits("declared", "NodePoolUnreadable");
    // That is no matter of other nodes.
    World { pools: world.pools.clone(), ..World::new() }.is_approved();
}

#[test]
fn reads_a_nodes_addresses_as_a_kubelet_does() {
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
