//! Tests of client CSRs: joining with a bootstrap token, and renewal.

use super::csr::{COMMON_NAME, rdn};
use super::*;
use crate::approval::{POOL_GROUP_PREFIX, der};

/// Returns the CSR of a machine that joins as a node with a token of a pool.
fn bootstrap(node: &str, pool: &str) -> SigningRequest {
    let mut request = object(node, &Csr::of(node).pem());
    request.signer_name = "kubernetes.io/kube-apiserver-client-kubelet".to_owned();
    request.username = "system:bootstrap:abcdef".to_owned();
    request.groups = vec![
        "system:bootstrappers".to_owned(),
        format!("{POOL_GROUP_PREFIX}{pool}"),
        "system:authenticated".to_owned(),
    ];
    request.usages = vec!["digital signature".to_owned(), "client auth".to_owned()];
    request
}

/// Returns the default world, in which `worker1` (in `pool0`) joins and has no Node object yet.
fn joining() -> World {
    let mut world = World::new();
    world.policy.kubelet_client.enabled = true;
    world.nodes.retain(|node| node.name != "worker1");
    world.request = bootstrap("worker1", "pool0");
    world
}

/// Returns the default world, in which `worker1` renews its client certificate.
fn renewing() -> World {
    let mut world = joining();
    world.nodes.push(node("worker1", &[("InternalIP", "10.0.0.21")]));
    world.request.username = "system:node:worker1".to_owned();
    world.request.groups = vec!["system:nodes".to_owned(), "system:authenticated".to_owned()];
    world
}

#[test]
fn approves_join_with_token_of_own_pool() {
    joining().is_approved();
    let mut world = joining();
    world.request = bootstrap("spot-a", "pool1");
    world.is_approved();
}

#[test]
fn approves_renewal() {
    renewing().is_approved();
}

#[test]
fn evaluates_client_csrs_only_if_policy_enables_it() {
    let mut world = joining();
    world.policy.kubelet_client.enabled = false;
    world.is(Verdict::Ignore, "enabled", "ApprovalDisabled");
    // The two switches are independent.
    let mut world = joining();
    world.policy.kubelet_serving.enabled = false;
    world.is_approved();
}

#[test]
fn denies_requester_that_is_neither_node_nor_token() {
    let users = [
        "admin",
        "system:bootstrap:",
        "system:bootstrap:abcde",
        "system:bootstrap:abcdefg",
        "system:bootstrap:ABCDEF",
        "system:bootstrap:abc/ef",
        "xsystem:bootstrap:abcdef",
        "system:serviceaccount:kube-system:bootstrap",
    ];
    for user in users {
        let mut world = joining();
        world.request.username = user.to_owned();
        world.is_denied("requester", "RequesterNotANode");
    }
}

#[test]
fn denies_token_without_token_groups() {
    for gone in ["system:bootstrappers", "system:authenticated"] {
        let mut world = joining();
        world.request.groups.retain(|group| group != gone);
        world.is_denied("groups", "RequesterNotInGroup");
    }
    let mut world = renewing();
    world.request.groups.retain(|group| group != "system:nodes");
    world.is_denied("groups", "RequesterNotInGroup");
}

#[test]
fn denies_token_of_no_pool_or_two_pools() {
    let mut world = joining();
    world.request.groups[1] = "system:bootstrappers:kubeadm:default-node-token".to_owned();
    world.is_denied("token-pool", "TokenNotOfOnePool");
    let mut world = joining();
    world.request.groups.push(format!("{POOL_GROUP_PREFIX}pool1"));
    world.is_denied("token-pool", "TokenNotOfOnePool");
}

#[test]
fn waits_for_pool_of_token() {
    let mut world = joining();
    world.request = bootstrap("worker1", "later");
    world.waits("token-pool", "NodePoolNotFound");
}

#[test]
fn denies_token_of_one_pool_for_node_of_another() {
    let mut world = joining();
    world.request = bootstrap("worker1", "pool1");
    world.is_denied("declared-by-pool", "AnotherPoolsNode");
    let mut world = joining();
    world.request = bootstrap("spot-a", "pool0");
    world.is_denied("declared-by-pool", "AnotherPoolsNode");
}

#[test]
fn denies_worker_token_for_control_plane_node() {
    let mut world = joining();
    world.nodes.clear();
    world.pools.push(pool(&json!({"machines": [{"name": "cp1", "addresses": ["10.0.0.11"]}],
        "selector": {"namePattern": "*", "addressCIDRs": ["10.0.0.0/24"]}})));
    world.request = bootstrap("cp1", "pool2");
    world.is_denied("declared-by-pool", "AnotherPoolsNode");
}

#[test]
fn waits_for_undeclared_node() {
    let mut world = joining();
    world.request = bootstrap("worker7", "pool0");
    world.waits("declared", "NodeNotDeclared");
}

#[test]
fn waits_while_node_of_joining_machine_exists() {
    let mut world = joining();
    world.nodes.push(node("worker1", &[]));
    world.waits("node", "NodeExists");
    world.policy.kubelet_client.existing_node = keyplane_crds::ExistingNode::Approve;
    world.is_approved();
}

#[test]
fn waits_while_another_csr_for_the_node_is_approved() {
    let world = joining();
    let mut approver = world.approver();
    let evaluate = |approver: &Approver| approver.evaluate(&world.request, &world.resolved, world.now);
    let earlier = SigningRequest { name: "csr-0".to_owned(), ..bootstrap("worker1", "pool0") };
    approver.record_approval(&earlier);
    assert_eq!((evaluate(&approver).verdict, evaluate(&approver).reason), (Verdict::Wait, "NodeAlreadyAdmitted"));
    // The approved CSR does not block itself.
    assert_eq!(approver.evaluate(&earlier, &world.resolved, world.now).verdict, Verdict::Approve);
    approver.remove_request("csr-0");
    assert_eq!(evaluate(&approver).verdict, Verdict::Approve);
}

#[test]
fn waits_for_node_of_renewal() {
    let mut world = renewing();
    world.nodes.clear();
    world.waits("node", "NodeNotFound");
}

#[test]
fn waits_for_renewal_of_node_removed_from_pool() {
    let mut world = renewing();
    world.pools[0].machines.clear();
    world.waits("declared", "NodeNotDeclared");
}

#[test]
fn denies_client_csr_for_another_node() {
    let mut world = renewing();
    world.request.request = Csr::of("cp1").pem();
    world.is_denied("common-name", "CommonNameNotRequester");
}

#[test]
fn denies_token_csr_without_node_name() {
    for name in ["admin", "system:node:", "system:node:Worker1", "system:node:a b", "system:masters"] {
        let mut csr = Csr::of("worker1");
        csr.subject[1] = rdn(COMMON_NAME, der::UTF8_STRING, name.as_bytes());
        let mut world = joining();
        world.request.request = csr.pem();
        world.is_denied("common-name", "CommonNameNotANode");
    }
}

#[test]
fn denies_client_csr_with_other_organization() {
    let mut csr = Csr::of("worker1");
    csr.subject[0] = rdn(super::csr::ORGANIZATION, der::UTF8_STRING, b"system:masters");
    let mut world = joining();
    world.request.request = csr.pem();
    world.is_denied("organization", "OrganizationNotAllowed");
}

#[test]
fn denies_client_csr_with_names() {
    let mut world = joining();
    world.request.request = Csr::of("worker1").named(&["worker1"], &[]).pem();
    world.is_denied("no-names", "ExtensionNotAllowed");
    world.request.request = Csr::of("worker1").with_sans(&[]).pem();
    world.is_denied("no-names", "ExtensionNotAllowed");
}

#[test]
fn accepts_both_client_usage_lists_and_no_other() {
    let usages = |usages: &[&str]| {
        let mut world = joining();
        world.request.usages = usages.iter().map(|usage| (*usage).to_owned()).collect();
        world
    };
    usages(&["key encipherment", "digital signature", "client auth"]).is_approved();
    for wrong in [
        &[][..],
        &["client auth"],
        &["digital signature", "server auth"],
        &["digital signature", "client auth", "server auth"],
        &["digital signature", "client auth", "client auth"],
        &["digital signature", "client auth", "cert sign"],
    ] {
        usages(wrong).is_denied("usages", "UsagesNotAllowed");
    }
}

#[test]
fn denies_client_lifetime_above_policy_limit() {
    let mut world = joining();
    world.policy.kubelet_client.max_expiration_seconds = 3600;
    world.request.expiration_seconds = Some(3600);
    world.is_approved();
    world.request.expiration_seconds = Some(3601);
    world.is_denied("expiration", "ExpirationTooLong");
}

#[test]
fn denies_join_with_reserved_name() {
    for name in ["kubernetes", "localhost", "kubernetes.default", "x.svc", "api.demo.example"] {
        let mut world = joining();
        world.pools.push(pool(&json!({"machines": [{"name": name, "addresses": ["10.0.0.50"]}]})));
        world.request = bootstrap(name, "pool2");
        world.is_denied("reserved-names", "ReservedName");
    }
}

#[test]
fn approves_node_named_by_its_address() {
    let mut world = joining();
    world.pools.push(pool(&json!({"machines": [{"name": "10.0.0.50", "addresses": ["10.0.0.50"]}]})));
    world.request = bootstrap("10.0.0.50", "pool2");
    world.is_approved();
}

#[test]
fn max_nodes_limits_joins_with_one_token() {
    let mut world = joining();
    world.pools[1].max_nodes = Some(2);
    world.nodes.push(node("spot-a", &[("InternalIP", "10.0.1.1")]));
    world.request = bootstrap("spot-c", "pool1");
    let mut approver = world.approver();
    let evaluate = |approver: &Approver| approver.evaluate(&world.request, &world.resolved, world.now).reason;
    assert_eq!(evaluate(&approver), "AllRulesPassed");
    // An approved node counts toward the quota before its Node exists, and its Node does not count twice.
    approver.record_approval(&SigningRequest { name: "csr-b".to_owned(), ..bootstrap("spot-b", "pool1") });
    assert_eq!(evaluate(&approver), "MaxNodesReached");
    approver.update_node(node("spot-b", &[]));
    assert_eq!(evaluate(&approver), "MaxNodesReached");
    approver.remove_node("spot-a");
    assert_eq!(evaluate(&approver), "AllRulesPassed");
}

#[test]
fn listed_nodes_do_not_count_toward_quota() {
    let mut world = joining();
    world.pools[1].max_nodes = Some(1);
    world.pools[1].machines = world.pools[0].machines.clone();
    world.pools[1].machines[0].name = "spot-listed".to_owned();
    world.nodes.push(node("spot-listed", &[]));
    world.request = bootstrap("spot-a", "pool1");
    world.is_approved();
    world.nodes.push(node("spot-b", &[]));
    world.waits("max-nodes", "MaxNodesReached");
}
