//! Tests of the additional requirements of a policy.

use std::net::IpAddr;

use super::*;
use crate::approval::{DnsName, Limits, Signer};

fn with_policy(yaml: &str) -> World {
    World { policy: serde_saphyr::from_str(yaml).unwrap(), ..World::new() }
}

fn named(world: World, names: &[&str], addresses: &[&str]) -> World {
    let mut world = world;
    world.request.request = Csr::of("worker1").named(names, addresses).pem();
    world
}

#[test]
fn dns_name_regex_must_match_whole_name() {
    with_policy("{kubeletServing: {dnsNameRegex: 'worker[0-9]'}}").is_approved();
    with_policy("{kubeletServing: {dnsNameRegex: 'worker'}}").is_denied("policy-names", "NameNotAllowed");
    with_policy("{kubeletServing: {dnsNameRegex: 'cp.*'}}").is_denied("policy-names", "NameNotAllowed");
    // The expression is an additional condition and does not override other rules.
    let world = named(with_policy("{kubeletServing: {dnsNameRegex: '.*'}}"), &["worker1", "evil.example"], &[]);
    world.is_denied("declared-names", "NameNotDeclared");
}

#[test]
fn approves_node_name_in_domain_of_policy() {
    let policy = "{kubeletServing: {dnsDomains: [example.com]}}";
    let world_with = |name: &str| {
        let mut world = named(with_policy(policy), &[name], &[]);
        let reported = name.trim_end_matches('.');
        world.nodes[1] = node("worker1", &[("InternalIP", "10.0.0.21"), ("InternalDNS", reported)]);
        world
    };
    world_with("worker1.example.com").is_approved();
    world_with("Worker1.Example.com.").is_approved();
    for name in
        ["worker1.example.org", "worker1.x.example.com", "xworker1.example.com", "worker1example.com", "example.com"]
    {
        world_with(name).is_denied("declared-names", "NameNotDeclared");
    }
    let mut world = world_with("worker1.example.com");
    world.nodes[1] = node("worker1", &[("InternalIP", "10.0.0.21")]);
    world.waits("node-names", "NameNotReported");
    // The name of another Node stays reserved.
    let mut world = world_with("worker1.example.com");
    world.nodes.push(node("worker1.example.com", &[]));
    world.is_denied("reserved-names", "AnotherNodesName");
    // The name of the API servers stays reserved too.
    let mut world = world_with("worker1.example.com");
    world.cluster.control_plane_endpoint.host = "worker1.example.com".to_owned();
    world.is_denied("reserved-names", "ReservedName");
}

#[test]
fn address_must_be_in_range_of_policy() {
    with_policy("{kubeletServing: {addressCIDRs: [10.0.0.0/24, 'fd00::/64']}}").is_approved();
    with_policy("{kubeletServing: {addressCIDRs: [10.0.0.0/24]}}").is_denied("policy-addresses", "AddressNotAllowed");
    let world = named(with_policy("{kubeletServing: {addressCIDRs: [10.0.0.0/8]}}"), &[], &["10.0.0.22"]);
    world.is_denied("declared-addresses", "AddressNotDeclared");
}

#[test]
fn undeclared_address_waits_if_policy_says_so() {
    let world_with = |policy: &str| {
        let mut world = named(with_policy(policy), &[], &["10.0.0.22"]);
        world.nodes[1] = node("worker1", &[("InternalIP", "10.0.0.22")]);
        world
    };
    world_with("{}").is_denied("declared-addresses", "AddressNotDeclared");
    world_with("{kubeletServing: {undeclaredAddress: Wait}}").waits("declared-addresses", "AddressNotDeclared");
    // An address of another node is denied.
    let mut world = world_with("{kubeletServing: {undeclaredAddress: Wait}}");
    world.pools.push(pool(&json!({"machines": [{"name": "worker2", "addresses": ["10.0.0.22"]}]})));
    world.is_denied("reserved-addresses", "AnotherNodesAddress");
}

#[test]
fn max_names_limits_names_of_request() {
    with_policy("{kubeletServing: {maxNames: 3}}").is_approved();
    with_policy("{kubeletServing: {maxNames: 2}}").is_denied("san-kinds", "TooManySANs");
}

#[test]
fn policy_limits_key_algorithms_and_sizes() {
    let rsa = |policy: &str| {
        let mut world = with_policy(policy);
        world.request.request = include_bytes!("kubelet-rsa.pem").to_vec();
        world
    };
    rsa("{}").is_approved();
    rsa("{signingRequests: {minRSABits: 3072}}").is_denied("key", "KeyNotAllowed");
    rsa("{signingRequests: {keyAlgorithms: [ECDSA-P256]}}").is_denied("key", "KeyNotAllowed");
    with_policy("{signingRequests: {keyAlgorithms: [ECDSA-P256]}}").is_approved();
    with_policy("{signingRequests: {keyAlgorithms: [ECDSA-P384, RSA]}}").is_denied("key", "KeyNotAllowed");
}

#[test]
fn wait_limit_ignores_old_csrs() {
    let mut world = with_policy("{signingRequests: {waitLimit: 5m}}");
    world.now = "2026-11-23T12:05:00Z".parse().unwrap();
    world.is_approved();
    world.now = "2026-11-23T12:05:01Z".parse().unwrap();
    world.is(Verdict::Ignore, "age", "RequestTooOld");
}

#[test]
fn dry_run_keeps_verdict_and_marks_message() {
    let world = with_policy("{kubeletServing: {dryRun: true}}");
    world.is_approved();
    assert!(world.evaluate().dry_run && world.evaluate().sentence("p").starts_with("dry run: "));
    assert!(!World::new().evaluate().dry_run);
    let terms = Terms::parse(&world.policy).unwrap();
    assert!(terms.of(Signer::KubeletServing).dry_run && !terms.of(Signer::KubeletClient).dry_run);
}

#[test]
fn message_names_rule_and_policy() {
    let sentence = World::requesting(&["kubernetes"], &[]).evaluate().sentence("CertificatePolicy strict");
    assert!(sentence.ends_with("(rule reserved-names, CertificatePolicy strict)"), "{sentence}");
}

#[test]
fn forward_resolution_requires_only_node_addresses() {
    let resolving = |found: Result<&[&str], &str>| {
        let mut world = with_policy("{kubeletServing: {forwardResolution: true}}");
        let addresses = found.map(|found| found.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect());
        world.resolved.insert(DnsName::parse("worker1").unwrap(), addresses.map_err(ToOwned::to_owned));
        world
    };
    resolving(Ok(&["10.0.0.21"])).is_approved();
    resolving(Ok(&["10.0.0.21", "fd00::15"])).is_approved();
    resolving(Ok(&[])).waits("forward-resolution", "NameNotResolved");
    resolving(Err("server failure")).waits("forward-resolution", "NameNotResolved");
    resolving(Ok(&["10.0.0.21", "10.0.0.22"])).waits("forward-resolution", "NameResolvesElsewhere");
    // A DNS record does not replace a declaration.
    let mut world = resolving(Ok(&["10.0.0.22"]));
    world.nodes[1] = node(
        "worker1",
        &[
            ("InternalIP", "10.0.0.21"),
            ("InternalIP", "fd00::15"),
            ("InternalIP", "10.0.0.22"),
            ("Hostname", "worker1"),
        ],
    );
    world.waits("forward-resolution", "NameResolvesElsewhere");
    // A request without a name needs no lookup.
    named(with_policy("{kubeletServing: {forwardResolution: true}}"), &[], &["10.0.0.21"]).is_approved();
}

#[test]
fn looks_up_names_only_if_all_other_rules_pass() {
    let unresolved = |world: &World| world.approver().unresolved(&world.request, &world.evaluate());
    let policy = "{kubeletServing: {forwardResolution: true}}";
    assert_eq!(unresolved(&with_policy(policy)), [DnsName::parse("worker1").unwrap()]);
    assert_eq!(unresolved(&World::new()), []);
    assert_eq!(unresolved(&named(with_policy(policy), &["kubernetes"], &[])), []);
    let mut late = with_policy(policy);
    late.nodes.clear();
    assert_eq!(unresolved(&late), []);
}

#[test]
fn max_nodes_prefers_oldest_nodes() {
    let mut world = World::new();
    world.pools[1].max_nodes = Some(1);
    let spot = |name: &str, address: &str, created: &str| {
        let mut spot = node(name, &[("InternalIP", address), ("Hostname", name)]);
        spot.created = Some(created.parse().unwrap());
        spot
    };
    world.nodes.push(spot("spot-a", "10.0.1.1", "2026-11-01T00:00:02Z"));
    world.nodes.push(spot("spot-b", "10.0.1.2", "2026-11-01T00:00:01Z"));
    let mut reason_for = |name: &str, address: &str| {
        world.request = object(name, &Csr::of(name).named(&[name], &[address]).pem());
        world.evaluate().reason
    };
    assert_eq!(reason_for("spot-b", "10.0.1.2"), "AllRulesPassed");
    assert_eq!(reason_for("spot-a", "10.0.1.1"), "MaxNodesReached");
    world.pools[1].max_nodes = Some(2);
    world.is_approved();
    // A second selector with free quota is sufficient.
    world.pools[1].max_nodes = Some(1);
    world.pools.push(pool(&json!({"selector": {"namePattern": "spot-a", "addressCIDRs": ["10.0.1.0/24"]}})));
    world.is_approved();
}

#[test]
fn queue_limits_come_from_policy() {
    let terms =
        Terms::parse(&with_policy("{signingRequests: {pendingPerNode: 2, pendingPerRequester: 7}}").policy).unwrap();
    let limits = Limits { per_node: terms.pending_per_node, per_requester: terms.pending_per_requester };
    assert_eq!(limits, Limits { per_node: 2, per_requester: 7 });
}
