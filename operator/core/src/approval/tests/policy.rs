//! What a policy asks for beside everything else.

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
fn a_name_has_to_match_the_policys_expression_as_a_whole() {
    with_policy("{kubeletServing: {dnsNameRegex: 'worker[0-9]'}}").is_approved();
    with_policy("{kubeletServing: {dnsNameRegex: 'worker'}}").is_denied("policy-names", "NameNotAllowed");
    with_policy("{kubeletServing: {dnsNameRegex: 'cp.*'}}").is_denied("policy-names", "NameNotAllowed");
    // It is one more condition: it lets nothing in that the other rules keep out.
    let world = named(with_policy("{kubeletServing: {dnsNameRegex: '.*'}}"), &["worker1", "evil.example"], &[]);
    world.is_denied("declared-names", "NameNotDeclared");
}

#[test]
fn a_node_may_have_its_name_in_a_domain_of_the_policy() {
    let policy = "{kubeletServing: {dnsDomains: [example.com]}}";
    let ask = |name: &str| {
        let mut world = named(with_policy(policy), &[name], &[]);
        let reported = name.trim_end_matches('.');
        world.nodes[1] = node("worker1", &[("InternalIP", "10.0.0.21"), ("InternalDNS", reported)]);
        world
    };
    ask("worker1.example.com").is_approved();
    ask("Worker1.Example.com.").is_approved();
    for name in
        ["worker1.example.org", "worker1.x.example.com", "xworker1.example.com", "worker1example.com", "example.com"]
    {
        ask(name).is_denied("declared-names", "NameNotDeclared");
    }
    let mut world = ask("worker1.example.com");
    world.nodes[1] = node("worker1", &[("InternalIP", "10.0.0.21")]);
    world.waits("node-names", "NameNotReported");
    // Another Node is called that: its name is its own.
    let mut world = ask("worker1.example.com");
    world.nodes.push(node("worker1.example.com", &[]));
    world.is_denied("reserved-names", "AnotherNodesName");
    // So is the API servers' name.
    let mut world = ask("worker1.example.com");
    world.cluster.control_plane_endpoint.host = "worker1.example.com".to_owned();
    world.is_denied("reserved-names", "ReservedName");
}

#[test]
fn an_address_has_to_lie_in_the_policys_ranges() {
    with_policy("{kubeletServing: {addressCIDRs: [10.0.0.0/24, 'fd00::/64']}}").is_approved();
    with_policy("{kubeletServing: {addressCIDRs: [10.0.0.0/24]}}").is_denied("policy-addresses", "AddressNotAllowed");
    let world = named(with_policy("{kubeletServing: {addressCIDRs: [10.0.0.0/8]}}"), &[], &["10.0.0.22"]);
    world.is_denied("declared-addresses", "AddressNotDeclared");
}

#[test]
fn an_undeclared_address_may_wait_where_the_policy_says_so() {
    let ask = |policy: &str| {
        let mut world = named(with_policy(policy), &[], &["10.0.0.22"]);
        world.nodes[1] = node("worker1", &[("InternalIP", "10.0.0.22")]);
        world
    };
    ask("{}").is_denied("declared-addresses", "AddressNotDeclared");
    ask("{kubeletServing: {undeclaredAddress: Wait}}").waits("declared-addresses", "AddressNotDeclared");
    // That another node has it does not wait.
    let mut world = ask("{kubeletServing: {undeclaredAddress: Wait}}");
    world.pools.push(pool(&json!({"machines": [{"name": "worker2", "addresses": ["10.0.0.22"]}]})));
    world.is_denied("reserved-addresses", "AnotherNodesAddress");
}

#[test]
fn a_policy_limits_the_names_of_a_request() {
    with_policy("{kubeletServing: {maxNames: 3}}").is_approved();
    with_policy("{kubeletServing: {maxNames: 2}}").is_denied("san-kinds", "TooManySANs");
}

#[test]
fn a_policy_limits_the_keys() {
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
fn a_policy_says_for_how_long_a_request_may_wait() {
    let mut world = with_policy("{signingRequests: {waitLimit: 5m}}");
    world.now = "2026-11-23T12:05:00Z".parse().unwrap();
    world.is_approved();
    world.now = "2026-11-23T12:05:01Z".parse().unwrap();
    world.is(Verdict::Ignore, "age", "RequestTooOld");
}

#[test]
fn a_dry_run_has_the_same_verdict_and_says_so() {
    let world = with_policy("{kubeletServing: {dryRun: true}}");
    world.is_approved();
    assert!(world.judge().dry_run && world.judge().sentence("p").starts_with("dry run: "));
    assert!(!World::new().judge().dry_run);
    let terms = Terms::parse(&world.policy).unwrap();
    assert!(terms.of(Signer::KubeletServing).dry_run && !terms.of(Signer::KubeletClient).dry_run);
}

#[test]
fn a_verdicts_sentence_has_the_rule_and_the_policy() {
    let sentence = World::asked_for(&["kubernetes"], &[]).judge().sentence("CertificatePolicy strict");
    assert!(sentence.ends_with("(rule reserved-names, CertificatePolicy strict)"), "{sentence}");
}

#[test]
fn where_the_policy_wants_it_a_name_has_to_resolve_to_the_node_and_nowhere_else() {
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
    // Whoever writes the DNS can't get an address in that nobody declared.
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
    // A request without a name has nothing to resolve.
    named(with_policy("{kubeletServing: {forwardResolution: true}}"), &[], &["10.0.0.21"]).is_approved();
}

#[test]
fn names_are_looked_up_only_where_nothing_else_is_in_the_way() {
    let unresolved = |world: &World| world.approver().unresolved(&world.request, &world.judge());
    let policy = "{kubeletServing: {forwardResolution: true}}";
    assert_eq!(unresolved(&with_policy(policy)), [DnsName::parse("worker1").unwrap()]);
    assert_eq!(unresolved(&World::new()), []);
    assert_eq!(unresolved(&named(with_policy(policy), &["kubernetes"], &[])), []);
    let mut late = with_policy(policy);
    late.nodes.clear();
    assert_eq!(unresolved(&late), []);
}

#[test]
fn a_selector_lets_in_its_oldest_nodes_up_to_the_limit() {
    let mut world = World::new();
    world.pools[1].max_nodes = Some(1);
    let spot = |name: &str, address: &str, created: &str| {
        let mut spot = node(name, &[("InternalIP", address), ("Hostname", name)]);
        spot.created = Some(created.parse().unwrap());
        spot
    };
    world.nodes.push(spot("spot-a", "10.0.1.1", "2026-11-01T00:00:02Z"));
    world.nodes.push(spot("spot-b", "10.0.1.2", "2026-11-01T00:00:01Z"));
    let mut ask = |name: &str, address: &str| {
        world.request = object(name, &Csr::of(name).named(&[name], &[address]).pem());
        world.judge().reason
    };
    assert_eq!(ask("spot-b", "10.0.1.2"), "AllRulesPassed");
    assert_eq!(ask("spot-a", "10.0.1.1"), "MaxNodesReached");
    world.pools[1].max_nodes = Some(2);
    world.is_approved();
    // A second selector with room is enough.
    world.pools[1].max_nodes = Some(1);
    world.pools.push(pool(&json!({"selector": {"namePattern": "spot-a", "addressCIDRs": ["10.0.1.0/24"]}})));
    world.is_approved();
}

#[test]
fn the_limits_of_the_queue_come_from_the_policy() {
    let terms =
        Terms::parse(&with_policy("{signingRequests: {pendingPerNode: 2, pendingPerRequester: 7}}").policy).unwrap();
    let limits = Limits { per_node: terms.pending_per_node, per_requester: terms.pending_per_requester };
    assert_eq!(limits, Limits { per_node: 2, per_requester: 7 });
}
