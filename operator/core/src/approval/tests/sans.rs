//! Tests of the subject alternative names.

use super::*;
use crate::approval::der::{self, constructed, value};

fn requesting(sans: &[Vec<u8>]) -> World {
    World::with_csr(&Csr::of("worker1").with_sans(sans))
}

#[test]
fn denies_request_without_names() {
    requesting(&[]).is_denied("san-kinds", "SANMissing");
    World::with_csr(&Csr::of("worker1")).is_denied("san-kinds", "SANMissing");
}

#[test]
fn approves_request_with_only_name_or_address() {
    World::requesting(&["worker1"], &[]).is_approved();
    World::requesting(&[], &["10.0.0.21"]).is_approved();
}

#[test]
fn denies_other_name_types() {
    let directory = constructed(0xa4, &[value(der::SEQUENCE, &[])]);
    let other = constructed(0xa0, &[value(der::OID, &[0x2a, 3]), constructed(0xa0, &[value(der::UTF8_STRING, b"x")])]);
    let kinds = [
        value(0x81, b"root@worker1"),
        value(0x86, b"spiffe://cluster/worker1"),
        value(0x88, &[0x2a, 3]),
        directory,
        other,
    ];
    for kind in kinds {
        requesting(&[dns("worker1"), kind.clone()]).is_denied("san-kinds", "SANKindNotAllowed");
        requesting(&[kind]).is_denied("san-kinds", "SANKindNotAllowed");
    }
}

#[test]
fn denies_more_names_than_max_names() {
    requesting(&vec![dns("worker1"); 64]).is_approved();
    requesting(&vec![dns("worker1"); 65]).is_denied("san-kinds", "TooManySANs");
}

#[test]
fn denies_invalid_host_name() {
    let names = [
        "*",
        "*.worker1",
        "work*1",
        "",
        ".",
        "worker1..",
        "a..b",
        "-a",
        "worker1\0",
        "worker1\0.example",
        "worker_1",
        " ",
        "wörker1",
        "10.0.0.21",
        "fd00::15",
        "127.1",
        "2130706433",
        "0x7f.1",
        "worker1/x",
        "worker1:10250",
    ];
    for name in names {
        requesting(&[dns(name)]).is_denied("san-names", "SANMalformed");
    }
    requesting(&[value(der::DNS_NAME, &[0xff, 0xfe])]).is_denied("san-kinds", "SANKindNotAllowed");
}

#[test]
fn denies_address_with_wrong_length() {
    for octets in [&[][..], &[10, 0, 0], &[10, 0, 0, 21, 0], &[10, 0, 0, 21, 255, 255, 255, 255], &[0; 15], &[0; 17]] {
        requesting(&[address(octets)]).is_denied("san-addresses", "SANMalformed");
    }
}

#[test]
fn denies_ipv4_mapped_ipv6_address() {
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 21];
    requesting(&[address(&mapped)]).is_denied("san-addresses", "SANMalformed");
}

#[test]
fn accepts_name_in_other_case_and_with_trailing_dot() {
    requesting(&[dns("Worker1")]).is_approved();
    requesting(&[dns("worker1.")]).is_approved();
}

#[test]
fn denies_csr_with_san_of_another_node() {
    for name in ["cp1", "CP1", "cp1."] {
        World::requesting(&["worker1", name], &[]).is_denied("reserved-names", "AnotherNodesName");
    }
    // Known only as a Node, or only by declaration.
    let mut world = World::requesting(&["stray"], &[]);
    world.is_denied("declared-names", "NameNotDeclared");
    world.nodes.push(node("stray", &[]));
    world.is_denied("reserved-names", "AnotherNodesName");
    let mut world = World::requesting(&["worker2"], &[]);
    world.pools.push(pool(&json!({"machines": [{"name": "worker2", "addresses": ["10.0.0.22"]}]})));
    world.is_denied("reserved-names", "AnotherNodesName");
}

#[test]
fn denies_name_with_node_name_as_prefix_or_suffix() {
    for name in ["worker", "worker11", "worker1.evil.example", "evil.worker1", "xworker1", "worker1-x"] {
        World::requesting(&["worker1", name], &[]).is_denied("declared-names", "NameNotDeclared");
    }
}

#[test]
fn denies_reported_but_undeclared_name() {
    let mut world = World::requesting(&["worker1", "shop.example"], &[]);
    world.nodes[1] = node("worker1", &[("Hostname", "worker1"), ("ExternalDNS", "shop.example")]);
    world.is_denied("declared-names", "NameNotDeclared");
}

#[test]
fn never_approves_cluster_name_that_the_node_reports() {
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "KUBERNETES.default.svc.",
        "kubernetes.example",
        "svc",
        "metrics-server.kube-system.svc",
        "kubernetes.default.svc.cluster.local",
        "cluster.local",
        "x.cluster.local",
        "localhost",
        "localhost.localdomain",
        "x.localhost",
        "localhost.example",
        "x.localdomain",
        "api.demo.example",
        "API.demo.example.",
    ];
    for name in names {
        World::requesting(&["worker1", name], &[]).is_denied("reserved-names", "ReservedName");
        // Denied even as the declared and reported name of the node.
        let own = name.trim_end_matches('.').to_lowercase();
        let mut world = World::with_node(&own, "10.0.0.50");
        world.pools.push(pool(&json!({"machines": [{"name": own, "addresses": ["10.0.0.50"]}]})));
        world.is_denied("reserved-names", "ReservedName");
    }
}

#[test]
fn approves_node_name_similar_to_reserved_name() {
    for name in [
        "kubernetes1",
        "kubernetes-worker",
        "my.kubernetes.example",
        "localhost1",
        "svc.example",
        "mysvc",
        "xcluster.local",
        "cluster.localx",
        "demo.example",
        "x.api.demo.example",
    ] {
        let mut world = World::with_node(name, "10.0.0.50");
        world.pools.push(pool(&json!({"machines": [{"name": name, "addresses": ["10.0.0.50"]}]})));
        world.is_approved();
    }
}

#[test]
fn never_approves_api_server_name_for_worker() {
    let mut world = World::requesting(&["worker1"], &[]);
    world.cluster.control_plane.api_server.cert_sans = vec!["worker1".to_owned()];
    world.is_denied("reserved-names", "ReservedName");
}

#[test]
fn approves_endpoint_name_of_its_control_plane_node() {
    let mut world = World::with_node("cp1", "10.0.0.11");
    world.cluster.control_plane_endpoint.host = "cp1".to_owned();
    world.is_approved();
    // Denied for another node.
    world.request = object("worker1", &Csr::of("worker1").named(&["cp1"], &[]).pem());
    world.is_denied("reserved-names", "ReservedName");
}

#[test]
fn waits_for_name_that_the_node_does_not_report() {
    let mut world = World::new();
    world.nodes[1] = node("worker1", &[("InternalIP", "10.0.0.21"), ("InternalIP", "fd00::15")]);
    world.waits("node-names", "NameNotReported");
}
