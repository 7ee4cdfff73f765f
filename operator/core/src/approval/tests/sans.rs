//! The names in a request.

use super::*;
use crate::approval::der::{self, constructed, value};

fn asked_for(sans: &[Vec<u8>]) -> World {
    World::asked(&Csr::of("worker1").with_sans(sans))
}

#[test]
fn denies_a_request_without_any_name() {
    asked_for(&[]).is_denied("san-kinds", "SANMissing");
    World::asked(&Csr::of("worker1")).is_denied("san-kinds", "SANMissing");
}

#[test]
fn approves_a_request_for_a_name_or_an_address_alone() {
    World::asked_for(&["worker1"], &[]).is_approved();
    World::asked_for(&[], &["10.0.0.21"]).is_approved();
}

#[test]
fn denies_any_other_kind_of_name() {
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
        asked_for(&[dns("worker1"), kind.clone()]).is_denied("san-kinds", "SANKindNotAllowed");
        asked_for(&[kind]).is_denied("san-kinds", "SANKindNotAllowed");
    }
}

#[test]
fn denies_more_names_than_a_machine_has() {
    asked_for(&vec![dns("worker1"); 64]).is_approved();
    asked_for(&vec![dns("worker1"); 65]).is_denied("san-kinds", "TooManySANs");
}

#[test]
fn denies_a_dns_name_that_is_no_host_name() {
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
        asked_for(&[dns(name)]).is_denied("san-names", "SANMalformed");
    }
    asked_for(&[value(der::DNS_NAME, &[0xff, 0xfe])]).is_denied("san-kinds", "SANKindNotAllowed");
}

#[test]
fn denies_an_address_with_any_other_length() {
    for octets in [&[][..], &[10, 0, 0], &[10, 0, 0, 21, 0], &[10, 0, 0, 21, 255, 255, 255, 255], &[0; 15], &[0; 17]] {
        asked_for(&[address(octets)]).is_denied("san-addresses", "SANMalformed");
    }
}

#[test]
fn denies_an_ipv4_address_written_as_ipv6() {
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 21];
    asked_for(&[address(&mapped)]).is_denied("san-addresses", "SANMalformed");
}

#[test]
fn takes_a_name_in_another_case_and_with_a_dot_at_its_end() {
    asked_for(&[dns("Worker1")]).is_approved();
    asked_for(&[dns("worker1.")]).is_approved();
}

#[test]
fn denies_a_csr_that_names_another_node() {
    for name in ["cp1", "CP1", "cp1."] {
        World::asked_for(&["worker1", name], &[]).is_denied("reserved-names", "AnotherNodesName");
    }
    // Known only as a Node, or only as a declared machine.
    let mut world = World::asked_for(&["stray"], &[]);
    world.is_denied("declared-names", "NameNotDeclared");
    world.nodes.push(node("stray", &[]));
    world.is_denied("reserved-names", "AnotherNodesName");
    let mut world = World::asked_for(&["worker2"], &[]);
    world.pools.push(pool(&json!({"machines": [{"name": "worker2", "addresses": ["10.0.0.22"]}]})));
    world.is_denied("reserved-names", "AnotherNodesName");
}

#[test]
fn denies_a_name_that_only_begins_or_ends_like_the_nodes() {
    for name in ["worker", "worker11", "worker1.evil.example", "evil.worker1", "xworker1", "worker1-x"] {
        World::asked_for(&["worker1", name], &[]).is_denied("declared-names", "NameNotDeclared");
    }
}

#[test]
fn denies_a_name_that_the_node_reports_but_nobody_declared() {
    let mut world = World::asked_for(&["worker1", "shop.example"], &[]);
    world.nodes[1] = node("worker1", &[("Hostname", "worker1"), ("ExternalDNS", "shop.example")]);
    world.is_denied("declared-names", "NameNotDeclared");
}

#[test]
fn never_approves_a_name_of_the_cluster_even_if_the_node_has_it() {
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
        World::asked_for(&["worker1", name], &[]).is_denied("reserved-names", "ReservedName");
        // As the node's own name, declared and reported.
        let own = name.trim_end_matches('.').to_lowercase();
        let mut world = World::with_node(&own, "10.0.0.50");
        world.pools.push(pool(&json!({"machines": [{"name": own, "addresses": ["10.0.0.50"]}]})));
        world.is_denied("reserved-names", "ReservedName");
    }
}

#[test]
fn approves_a_node_whose_name_only_looks_like_a_reserved_one() {
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
fn never_approves_a_name_in_the_api_servers_certificate_for_a_worker() {
    let mut world = World::asked_for(&["worker1"], &[]);
    world.cluster.control_plane.api_server.cert_sans = vec!["worker1".to_owned()];
    world.is_denied("reserved-names", "ReservedName");
}

#[test]
fn approves_the_endpoint_as_the_name_of_the_control_plane_node_that_is_it() {
    let mut world = World::with_node("cp1", "10.0.0.11");
    world.cluster.control_plane_endpoint.host = "cp1".to_owned();
    world.is_approved();
    // Not for another one.
    world.request = object("worker1", &Csr::of("worker1").named(&["cp1"], &[]).pem());
    world.is_denied("reserved-names", "ReservedName");
}

#[test]
fn waits_for_a_name_that_the_node_does_not_report_yet() {
    let mut world = World::new();
    world.nodes[1] = node("worker1", &[("InternalIP", "10.0.0.21"), ("InternalIP", "fd00::15")]);
    world.waits("node-names", "NameNotReported");
}
