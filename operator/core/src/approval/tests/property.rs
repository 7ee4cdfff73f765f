//! Property test: whatever the Nodes report, the pools declare and the requester writes, no name or address of others
//! is approved.
//!
//! The test checks this with a second implementation that shares no code with the rules and parses the request
//! differently.

use std::cell::Cell;
use std::net::IpAddr;

use keyplane_crds::ExistingNode;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::*;
use crate::approval::POOL_GROUP_PREFIX;

const NODES: [&str; 6] = ["cp1", "worker1", "worker2", "spot-a", "spot-b", "kubernetes"];
const NAMES: [&str; 12] = [
    "cp1",
    "worker1",
    "worker2",
    "spot-a",
    "spot-b",
    "kubernetes",
    "Kubernetes.default.svc.",
    "api.demo.example",
    "worker1.corp.example",
    "spot-a.corp.example",
    "*.corp.example",
    "localhost",
];
const ADDRESSES: [&str; 12] = [
    "10.0.0.11",
    "10.0.0.21",
    "10.0.0.22",
    "10.0.1.1",
    "10.0.1.2",
    "10.0.2.9",
    "10.96.0.1",
    "10.244.0.5",
    "127.0.0.1",
    "10.0.0.100",
    "fd00::15",
    "169.254.1.1",
];
const PATTERNS: [&str; 5] = ["spot-*", "*", "worker*", "cp*", "spot-a"];
const RANGES: [&str; 4] = ["10.0.1.0/24", "10.0.0.0/16", "0.0.0.0/0", "fd00::/8"];

/// A case consists of indices into the lists above.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)]
struct Scene {
    pools: Vec<PoolCase>,
    nodes: Vec<(usize, Vec<usize>, Vec<usize>)>,
    domains: bool,
    existing: bool,
    endpoint_is_address: bool,
    /// Whether the Node and the pool have the requested names and addresses, as in most approved cases.
    honest: bool,
    request: RequestCase,
}

#[derive(Clone, Debug)]
struct PoolCase {
    control_plane: bool,
    machines: Vec<(usize, Vec<usize>)>,
    selector: Option<(usize, usize)>,
    max_nodes: Option<i32>,
}

#[derive(Clone, Debug)]
struct RequestCase {
    client: bool,
    token_of: Option<usize>,
    requester: usize,
    /// The node in the subject, usually the requester.
    subject: usize,
    names: Vec<usize>,
    addresses: Vec<usize>,
    usages: usize,
}

fn subset(of: usize, at_most: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..of, 0..=at_most)
}

fn pool_case() -> impl Strategy<Value = PoolCase> {
    (
        prop::bool::weighted(0.2),
        prop::collection::vec((0..NODES.len(), subset(ADDRESSES.len(), 2)), 0..3),
        prop::option::of((0..PATTERNS.len(), 0..RANGES.len())),
        prop::option::weighted(0.2, 1..3_i32),
    )
        .prop_map(|(control_plane, machines, selector, max_nodes)| PoolCase {
            control_plane,
            machines,
            selector,
            max_nodes,
        })
}

/// Requests close to the names and addresses of the requester, so that many are approved.
fn request_case() -> impl Strategy<Value = RequestCase> {
    (
        prop::bool::weighted(0.3),
        prop::option::weighted(0.5, 0..3_usize),
        0..NODES.len(),
        prop_oneof![9 => Just(None), 1 => (0..NODES.len()).prop_map(Some)],
        prop_oneof![6 => Just(None), 4 => subset(NAMES.len(), 2).prop_map(Some)],
        subset(ADDRESSES.len(), 2),
        prop_oneof![8 => Just(0_usize), 2 => 0..4_usize],
    )
        .prop_map(|(client, token_of, requester, subject, names, addresses, usages)| RequestCase {
            client,
            token_of,
            requester,
            subject: subject.unwrap_or(requester),
            // The list of names begins with the names of the nodes, in the same order.
            names: names.unwrap_or_else(|| vec![requester]),
            addresses,
            usages,
        })
}

fn scene() -> impl Strategy<Value = Scene> {
    (
        prop::collection::vec(pool_case(), 1..4),
        prop::collection::vec((0..NODES.len(), subset(ADDRESSES.len(), 4), subset(NAMES.len(), 2)), 0..5),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.7),
        request_case(),
    )
        .prop_map(|(pools, nodes, domains, existing, endpoint_is_address, honest, request)| {
            let mut scene = Scene { pools, nodes, domains, existing, endpoint_is_address, honest, request };
            if scene.honest {
                let RequestCase { subject, addresses, names, .. } = scene.request.clone();
                scene.nodes.push((subject, addresses.clone(), names));
                scene.pools[0].machines.push((subject, addresses));
            }
            scene
        })
}

fn texts<'a>(list: &[&'a str], indices: &[usize]) -> Vec<&'a str> {
    indices.iter().map(|index| list[*index]).collect()
}

fn world(scene: &Scene) -> World {
    let mut world = World::new();
    world.cluster.control_plane_endpoint.host =
        if scene.endpoint_is_address { "10.0.0.100" } else { "api.demo.example" }.to_owned();
    world.pools = scene
        .pools
        .iter()
        .map(|case| {
            let machines: Vec<Value> = case
                .machines
                .iter()
                .map(|(name, addresses)| json!({"name": NODES[*name], "addresses": texts(&ADDRESSES, addresses)}))
                .collect();
            let mut value = json!({
                "role": if case.control_plane { "ControlPlane" } else { "Worker" },
                "machines": machines,
                "maxNodes": case.max_nodes,
            });
            if let Some((pattern, range)) = case.selector {
                value["selector"] = json!({"namePattern": PATTERNS[pattern], "addressCIDRs": [RANGES[range]]});
            }
            pool(&value)
        })
        .collect();
    world.nodes = scene
        .nodes
        .iter()
        .map(|(name, addresses, names)| {
            let mut reported = vec![("Hostname", NODES[*name])];
            reported.extend(texts(&ADDRESSES, addresses).into_iter().map(|address| ("InternalIP", address)));
            reported.extend(texts(&NAMES, names).into_iter().map(|name| ("InternalDNS", name)));
            node(NODES[*name], &reported)
        })
        .collect();
    if scene.domains {
        world.policy.kubelet_serving.dns_domains = vec!["corp.example".to_owned()];
    }
    world.policy.kubelet_client.enabled = true;
    if scene.existing {
        world.policy.kubelet_client.existing_node = ExistingNode::Approve;
    }
    let case = &scene.request;
    let mut csr = Csr::of(NODES[case.subject]);
    if !case.client {
        csr = csr.named(&texts(&NAMES, &case.names), &texts(&ADDRESSES, &case.addresses));
    }
    world.request = object(NODES[case.requester], &csr.pem());
    let purpose = ["server auth", "client auth"][usize::from(case.client)];
    world.request.usages = match case.usages {
        0 => vec!["digital signature", purpose],
        1 => vec!["digital signature", "key encipherment", purpose],
        2 => vec![],
        _ => vec!["digital signature", "server auth", "client auth"],
    }
    .into_iter()
    .map(ToOwned::to_owned)
    .collect();
    if case.client {
        world.request.signer_name = "kubernetes.io/kube-apiserver-client-kubelet".to_owned();
        if let Some(pool) = case.token_of {
            world.request.username = "system:bootstrap:abcdef".to_owned();
            world.request.groups = vec![
                "system:bootstrappers".to_owned(),
                format!("{POOL_GROUP_PREFIX}pool{pool}"),
                "system:authenticated".to_owned(),
            ];
        }
    }
    world
}

/// The content of a request according to the parser alone.
#[derive(Debug, Default)]
pub struct Wanted {
    pub organization: Vec<String>,
    pub common_name: Vec<String>,
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub others: usize,
}

/// Returns the content of a request according to the parser alone.
pub fn read_request(pem: &[u8]) -> Wanted {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).unwrap();
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).unwrap();
    let subject = &request.certification_request_info.subject;
    let text = |part: &x509_parser::x509::AttributeTypeAndValue<'_>| part.as_str().unwrap().to_owned();
    let mut wanted = Wanted {
        organization: subject.iter_organization().map(text).collect(),
        common_name: subject.iter_common_name().map(text).collect(),
        ..Wanted::default()
    };
    wanted.others += subject.iter_attributes().count() - 2;
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else {
            wanted.others += 1;
            continue;
        };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => wanted.names.push((*name).to_owned()),
                GeneralName::IPAddress(octets) if octets.len() == 4 => {
                    wanted.addresses.push(IpAddr::from(<[u8; 4]>::try_from(*octets).unwrap()));
                }
                GeneralName::IPAddress(octets) => {
                    wanted.addresses.push(IpAddr::from(<[u8; 16]>::try_from(*octets).unwrap()));
                }
                _ => wanted.others += 1,
            }
        }
    }
    wanted
}

fn glob(pattern: &str, name: &str) -> bool {
    match pattern.split_first_char() {
        None => name.is_empty(),
        Some(('*', rest)) => (0..=name.len()).any(|end| !name[..end].contains('.') && glob(rest, &name[end..])),
        Some((letter, rest)) => name.strip_prefix(letter).is_some_and(|name| glob(rest, name)),
    }
}

trait SplitFirst {
    fn split_first_char(&self) -> Option<(char, &str)>;
}

impl SplitFirst for str {
    fn split_first_char(&self) -> Option<(char, &str)> {
        let first = self.chars().next()?;
        Some((first, &self[first.len_utf8()..]))
    }
}

/// Returns whether the pools declare this node, and the addresses and ranges that they declare.
fn declared(world: &World, node: &str) -> (bool, Vec<String>, Vec<IpAddr>, Vec<ipnet::IpNet>) {
    let control_plane = node == "cp1";
    let mut pools: Vec<String> = vec![];
    let mut listed: Vec<IpAddr> = if control_plane { vec!["10.0.0.11".parse().unwrap()] } else { vec![] };
    let mut is_listed = control_plane;
    for (index, pool) in world.pools.iter().enumerate() {
        for machine in pool.machines.iter().filter(|machine| machine.name == node) {
            if (pool.role == keyplane_crds::NodePoolRole::ControlPlane) == control_plane {
                is_listed = true;
                pools.push(format!("pool{index}"));
                listed.extend(machine.addresses.iter().map(|address| address.parse::<IpAddr>().unwrap()));
            }
        }
    }
    let mut ranges = vec![];
    for (index, pool) in world.pools.iter().enumerate() {
        let Some(selector) = &pool.selector else { continue };
        let same = (pool.role == keyplane_crds::NodePoolRole::ControlPlane) == control_plane;
        if same && glob(&selector.name_pattern, node) && (control_plane || !is_listed) {
            pools.push(format!("pool{index}"));
            ranges.extend(selector.address_cidrs.iter().map(|range| range.parse::<ipnet::IpNet>().unwrap()));
        }
    }
    (is_listed || !ranges.is_empty(), pools, listed, ranges)
}

/// Checks the guarantees of an approval. Returns the violated guarantee.
fn is_safe(world: &World) -> Result<(), String> {
    let request = &world.request;
    let wanted = read_request(&request.request);
    let check = |good: bool, what: &str| if good { Ok(()) } else { Err(format!("{what}: {wanted:?}")) };
    check(wanted.organization == ["system:nodes"] && wanted.common_name.len() == 1, "subject")?;
    check(wanted.others == 0, "the request has other content")?;
    let node = wanted.common_name[0].strip_prefix("system:node:").unwrap_or_default().to_owned();
    let reported = world.nodes.iter().rev().find(|reported| reported.name == node);
    let (is_declared, pools, listed, ranges) = declared(world, &node);
    check(is_declared, "the node is not declared")?;
    if request.signer_name.ends_with("kube-apiserver-client-kubelet") {
        check(wanted.names.is_empty() && wanted.addresses.is_empty(), "a client certificate with names")?;
        check(!request.usages.iter().any(|usage| usage == "server auth"), "usages")?;
        check(!["kubernetes", "localhost"].contains(&node.as_str()), "a reserved node name")?;
        if let Some(_token) = request.username.strip_prefix("system:bootstrap:") {
            let of_pool = pools.iter().any(|pool| request.groups.contains(&format!("{POOL_GROUP_PREFIX}{pool}")));
            check(of_pool, "another pool's token")?;
            let may_exist = world.policy.kubelet_client.existing_node == ExistingNode::Approve;
            return check(may_exist || reported.is_none(), "the Node is there");
        }
        check(reported.is_some(), "renewal without a Node")?;
        return check(request.username == wanted.common_name[0], "another's client certificate");
    }
    check(request.username == wanted.common_name[0], "another's certificate")?;
    check(!request.usages.iter().any(|usage| usage == "client auth"), "usages")?;
    let reported = reported.ok_or("there is no Node")?;
    check(!wanted.names.is_empty() || !wanted.addresses.is_empty(), "the request has no names")?;
    for name in &wanted.names {
        let name = name.to_lowercase().trim_end_matches('.').to_owned();
        let in_domain = !world.policy.kubelet_serving.dns_domains.is_empty() && name == format!("{node}.corp.example");
        check(name == node || in_domain, "another name")?;
        check(!name.starts_with("kubernetes") && name != "api.demo.example", "a reserved name")?;
        check(reported.names.iter().any(|known| known.as_str() == name), "a name that the Node does not report")?;
    }
    for address in &wanted.addresses {
        let text = address.to_string();
        let own = listed.contains(address);
        check(own || ranges.iter().any(|range| range.contains(address)), "an address that is not declared")?;
        check(reported.addresses.contains(address), "an address that the Node does not report")?;
        for prefix in ["10.96.", "10.244.", "127.", "169.254."] {
            check(!text.starts_with(prefix), "a reserved address")?;
        }
        let endpoint = world.cluster.control_plane_endpoint.host == text;
        check(!endpoint, "the endpoint's address")?;
        for other in NODES.iter().filter(|other| **other != node) {
            let (_, _, listed_for_other, _) = declared(world, other);
            check(!listed_for_other.contains(address), "an address that is listed for another")?;
            let claimed = world.nodes.iter().any(|known| {
                known.name == *other && {
                    let last = world.nodes.iter().rev().find(|known| known.name == *other);
                    last.is_some_and(|last| last.addresses.contains(address))
                }
            });
            check(own || !claimed, "an address that another Node reports")?;
        }
    }
    Ok(())
}

#[test]
fn never_approves_names_or_addresses_of_others() {
    let config = Config { cases: 2000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let (serving, clients) = (Cell::new(0), Cell::new(0));
    let result = runner.run(&scene(), |scene| {
        let world = world(&scene);
        let evaluation = world.evaluate();
        if evaluation.verdict == Verdict::Approve {
            let counter = if scene.request.client { &clients } else { &serving };
            counter.set(counter.get() + 1);
            is_safe(&world).map_err(TestCaseError::fail)?;
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    // Without any approval, the test would prove nothing.
    assert!(serving.get() > 100 && clients.get() > 40, "{} and {} were approved", serving.get(), clients.get());
}
