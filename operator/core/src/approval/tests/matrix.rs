//! The checks of fifteen other approvers, one row each, with a CSR that passes and one that does not. Then attacks on
//! these approvers, and cases that none of them tests.

use super::csr::{COMMON_NAME, ORGANIZATION, extension, part, rdn};
use super::*;
use crate::approval::der::{self, constructed, value};

struct Row {
    check: &'static str,
    passes: fn() -> World,
    fails: fn() -> World,
    verdict: Verdict,
    reason: &'static str,
}

const fn row(
    check: &'static str,
    passes: fn() -> World,
    fails: fn() -> World,
    verdict: Verdict,
    reason: &'static str,
) -> Row {
    Row { check, passes, fails, verdict, reason }
}

fn with(change: impl FnOnce(&mut World)) -> World {
    let mut world = World::new();
    change(&mut world);
    world
}

fn csr(change: impl FnOnce(&mut Csr)) -> World {
    World::with_csr(&Csr::but(change))
}

fn sans(more: &[Vec<u8>]) -> World {
    let mut sans = vec![dns("worker1")];
    sans.extend_from_slice(more);
    World::with_csr(&Csr::of("worker1").with_sans(&sans))
}

fn usages(usages: &[&str]) -> World {
    with(|world| world.request.usages = usages.iter().map(|usage| (*usage).to_owned()).collect())
}

fn policy(yaml: &str) -> World {
    with(|world| world.policy = serde_saphyr::from_str(yaml).unwrap())
}

#[rustfmt::skip]
const MATRIX: &[Row] = &[
    row("signerName", World::new, || with(|w| w.request.signer_name = "kubernetes.io/kube-apiserver-client".into()), Verdict::Ignore, "OtherSigner"),
    row("not settled yet", World::new, || with(|w| w.request.settled = true), Verdict::Ignore, "AlreadySettled"),
    row("username prefix", World::new, || with(|w| w.request.username = "worker1".into()), Verdict::Deny, "RequesterNotANode"),
    row("non-empty node name", World::new, || with(|w| w.request.username = "system:node:".into()), Verdict::Deny, "RequesterNotANode"),
    row("group system:nodes", World::new, || with(|w| w.request.groups = vec!["system:authenticated".into()]), Verdict::Deny, "RequesterNotInGroup"),
    row("group system:authenticated", World::new, || with(|w| w.request.groups = vec!["system:nodes".into()]), Verdict::Deny, "RequesterNotInGroup"),
    row("CN == username", World::new, || with(|w| w.request.request = Csr::of("cp1").named(&["worker1"], &[]).pem()), Verdict::Deny, "CommonNameNotRequester"),
    row("O exactly system:nodes", || csr(|c| c.subject.swap(0, 1)), || csr(|c| c.subject[0] = rdn(ORGANIZATION, der::UTF8_STRING, b"system:masters")), Verdict::Deny, "OrganizationNotAllowed"),
    row("one O", World::new, || csr(|c| c.subject.push(rdn(ORGANIZATION, der::UTF8_STRING, b"system:masters"))), Verdict::Deny, "SubjectNotAllowed"),
    row("usages of RSA kubelets", || usages(&["digital signature", "key encipherment", "server auth"]), || usages(&["digital signature", "key encipherment", "server auth", "client auth"]), Verdict::Deny, "UsagesNotAllowed"),
    row("usages of ECDSA kubelets", || usages(&["digital signature", "server auth"]), || usages(&[]), Verdict::Deny, "UsagesNotAllowed"),
    row("at least one SAN: a name", || World::requesting(&["worker1"], &[]), || World::requesting(&[], &[]), Verdict::Deny, "SANMissing"),
    row("at least one SAN: an address", || World::requesting(&[], &["10.0.0.21"]), || World::with_csr(&Csr::of("worker1")), Verdict::Deny, "SANMissing"),
    row("no e-mail SAN", || sans(&[]), || sans(&[value(0x81, b"root@worker1")]), Verdict::Deny, "SANKindNotAllowed"),
    row("no URI SAN", || sans(&[]), || sans(&[value(0x86, b"spiffe://x")]), Verdict::Deny, "SANKindNotAllowed"),
    row("no other extension", World::new, || csr(|c| c.attributes = vec![super::csr::attribute(&[super::csr::names(&[dns("worker1")]), extension(super::csr::BASIC_CONSTRAINTS, &constructed(der::SEQUENCE, &[value(der::BOOLEAN, &[0xff])]))])]), Verdict::Deny, "ExtensionNotAllowed"),
    row("DNS name is the node's", World::new, || World::requesting(&["worker2"], &[]), Verdict::Deny, "NameNotDeclared"),
    row("DNS name in the Node's status", World::new, || with(|w| w.nodes[1] = node("worker1", &[("InternalIP", "10.0.0.21"), ("InternalIP", "fd00::15")])), Verdict::Wait, "NameNotReported"),
    row("DNS name by regex", || policy("{kubeletServing: {dnsNameRegex: 'worker.'}}"), || policy("{kubeletServing: {dnsNameRegex: 'cp.'}}"), Verdict::Deny, "NameNotAllowed"),
    row("DNS name resolves", World::new, || policy("{kubeletServing: {forwardResolution: true}}"), Verdict::Wait, "NameNotResolved"),
    row("IP declared", World::new, || World::requesting(&[], &["10.0.0.22"]), Verdict::Deny, "AddressNotDeclared"),
    row("IP in the Node's status", World::new, || with(|w| w.nodes[1] = node("worker1", &[("Hostname", "worker1")])), Verdict::Wait, "AddressNotReported"),
    row("IP by CIDR", || policy("{kubeletServing: {addressCIDRs: [10.0.0.0/8, 'fd00::/16']}}"), || policy("{kubeletServing: {addressCIDRs: [192.0.2.0/24]}}"), Verdict::Deny, "AddressNotAllowed"),
    row("Node exists", World::new, || with(|w| w.nodes.clear()), Verdict::Wait, "NodeNotFound"),
    row("expirationSeconds", || with(|w| w.request.expiration_seconds = Some(31_708_800)), || with(|w| w.request.expiration_seconds = Some(31_708_801)), Verdict::Deny, "ExpirationTooLong"),
    row("self-signature", World::new, || csr(|c| c.break_signature = true), Verdict::Deny, "SignatureInvalid"),
    row("request size", World::new, || with(|w| w.request.request.resize(20_000, b' ')), Verdict::Deny, "RequestTooLarge"),
    row("SAN count", || policy("{kubeletServing: {maxNames: 3}}"), || policy("{kubeletServing: {maxNames: 1}}"), Verdict::Deny, "TooManySANs"),
    row("a violation can be ignored", || policy("{kubeletServing: {onViolation: Ignore}}"), || with(|w| { w.policy.kubelet_serving.on_violation = keyplane_crds::OnViolation::Ignore; w.request.usages.clear(); }), Verdict::Ignore, "UsagesNotAllowed"),
];

#[test]
fn covers_all_checks_of_other_approvers() {
    for Row { check, passes, fails, verdict, reason } in MATRIX {
        let good = passes().evaluate();
        assert_eq!(good.verdict, Verdict::Approve, "{check}: {}", good.message);
        let bad = fails().evaluate();
        assert_eq!((bad.verdict, bad.reason), (*verdict, *reason), "{check}: {}", bad.message);
    }
}

/// Returns a world in which another node reports false names and addresses.
fn liar(addresses: &[(&str, &str)]) -> World {
    let mut world = World::new();
    world.nodes[1] = node("worker1", &[&[("Hostname", "worker1"), ("InternalIP", "10.0.0.21")], addresses].concat());
    world
}

#[test]
fn denies_attacks_on_other_approvers() {
    let evaluate_csr = |mut world: World, names: &[&str], addresses: &[&str]| {
        world.request.request = Csr::of("worker1").named(names, addresses).pem();
        world.evaluate()
    };
    // GHSA-87pw-5j2g-6376: the identity taken from the first DNS name.
    let first_name = evaluate_csr(World::new(), &["cp1", "worker1"], &["10.0.0.21"]);
    // From its review: wildcards, and the name of the API server in another case.
    let wildcard = evaluate_csr(World::new(), &["*.demo.example"], &[]);
    let case = evaluate_csr(World::new(), &["KUBERNETES.default.svc"], &[]);
    let dotted = evaluate_csr(World::new(), &["Kubernetes.Default."], &[]);
    // k0s #8333: names and addresses of the API server, also from the status of the node.
    let api_name = evaluate_csr(liar(&[("InternalDNS", "api.demo.example")]), &["api.demo.example"], &[]);
    let service = evaluate_csr(liar(&[("InternalIP", "10.96.0.1")]), &[], &["10.96.0.1"]);
    // Addresses that a node reports falsely: of another node, loopback, the metadata service, of a Pod.
    let others = evaluate_csr(liar(&[("InternalIP", "10.0.0.11")]), &[], &["10.0.0.11"]);
    let loopback = evaluate_csr(liar(&[("InternalIP", "127.0.0.1")]), &[], &["127.0.0.1"]);
    let metadata = evaluate_csr(liar(&[("InternalIP", "169.254.169.254")]), &[], &["169.254.169.254"]);
    let pod = evaluate_csr(liar(&[("InternalIP", "10.244.1.2")]), &[], &["10.244.1.2"]);
    let stranger = evaluate_csr(liar(&[("InternalIP", "192.0.2.7")]), &[], &["192.0.2.7"]);
    // The prefix check of postfinance accepts `worker1.evil.example` for `worker1`.
    let prefix = evaluate_csr(liar(&[("ExternalDNS", "worker1.evil.example")]), &["worker1.evil.example"], &[]);
    for evaluation in
        [first_name, wildcard, case, dotted, api_name, service, others, loopback, metadata, pod, stranger, prefix]
    {
        assert_eq!(evaluation.verdict, Verdict::Deny, "{}: {}", evaluation.reason, evaluation.message);
    }
}

#[test]
fn denies_encoding_attacks() {
    let twice = part(COMMON_NAME, der::UTF8_STRING, b"system:node:cp1");
    let own = part(COMMON_NAME, der::UTF8_STRING, b"system:node:worker1");
    let two_names = csr(|c| c.subject[1] = constructed(der::SET, &[own, twice]));
    let nodes = rdn(ORGANIZATION, der::UTF8_STRING, b"system:nodes");
    let repeated = csr(|c| c.subject.push(nodes));
    let block = String::from_utf8(Csr::but(|_| ()).pem()).unwrap();
    let two_blocks = with(|world| world.request.request = format!("{block}{block}").into_bytes());
    let trailing = csr(|c| c.trailing = vec![5, 0]);
    let mapped = sans(&[address(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 21])]);
    let nul = sans(&[dns("worker1\0.evil.example")]);
    let as_name = sans(&[dns("010.0.0.21")]);
    for world in [&two_names, &repeated, &two_blocks, &trailing, &mapped, &nul, &as_name] {
        let evaluation = world.evaluate();
        assert_eq!(evaluation.verdict, Verdict::Deny, "{}: {}", evaluation.reason, evaluation.message);
    }
}

#[test]
fn waits_for_late_objects_and_then_approves() {
    let mut world = World::with_node("spot-a", "10.0.1.7");
    let all = std::mem::take(&mut world.nodes);
    world.waits("node", "NodeNotFound");
    world.nodes = vec![node("spot-a", &[])];
    world.waits("node", "NodeHasNoAddresses");
    world.nodes = vec![node("spot-a", &[("Hostname", "spot-a")])];
    world.waits("node-addresses", "AddressNotReported");
    world.nodes = all;
    world.is_approved();
}

#[test]
fn never_approves_address_that_two_nodes_report() {
    for name in ["spot-a", "spot-b"] {
        let mut world = World::with_node(name, "10.0.1.7");
        world.nodes.push(node(if name == "spot-a" { "spot-b" } else { "spot-a" }, &[("InternalIP", "10.0.1.7")]));
        world.waits("reserved-addresses", "AddressInUse");
    }
}
