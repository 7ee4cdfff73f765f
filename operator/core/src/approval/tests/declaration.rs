//! Tests of the declarations.

use std::net::IpAddr;

use keyplane_crds::Layout;

use super::*;
use crate::approval::declaration::Claim;

fn claim(pools: &[NodePoolSpec], node: &str, address: &str) -> Option<Claim> {
    let address: IpAddr = address.parse().unwrap();
    declaration(node, &World::new().cluster, pools).claim(&address)
}

#[test]
fn worker_pool_declares_nothing_about_control_plane_node() {
    let pools = [
        pool(&json!({"machines": [{"name": "cp1", "addresses": ["10.0.0.66"]}]})),
        pool(&json!({"selector": {"namePattern": "*", "addressCIDRs": ["10.0.0.0/24"]}})),
    ];
    assert_eq!(claim(&pools, "cp1", "10.0.0.66"), None);
    assert_eq!(claim(&pools, "cp1", "10.0.0.11"), Some(Claim::Listed));
    // Such an entry does not reserve the address either.
    let reserved = reserved(&World::new().cluster, &pools);
    assert_eq!(reserved.address(&Nodes::default(), "worker1", &"10.0.0.66".parse().unwrap()), None);
}

#[test]
fn control_plane_pool_adds_only_to_control_plane_nodes() {
    let pools = [
        pool(&json!({"role": "ControlPlane", "machines": [
            {"name": "cp1", "addresses": ["10.0.0.12"]},
            {"name": "cp9", "addresses": ["10.0.0.19"]},
        ]})),
        pool(&json!({"role": "ControlPlane", "selector": {"namePattern": "cp*", "addressCIDRs": ["10.0.3.0/24"]}})),
    ];
    assert_eq!(claim(&pools, "cp1", "10.0.0.11"), Some(Claim::Listed));
    assert_eq!(claim(&pools, "cp1", "10.0.0.12"), Some(Claim::Listed));
    assert_eq!(claim(&pools, "cp1", "10.0.3.1"), Some(Claim::InRange));
    assert!(!declaration("cp9", &World::new().cluster, &pools).is_declared());
    assert_eq!(claim(&pools, "cp9", "10.0.3.1"), None);
}

#[test]
fn node_listed_in_two_pools_has_addresses_of_both() {
    let pools = [
        pool(&json!({"machines": [{"name": "w", "addresses": ["10.0.0.31"]}]})),
        pool(&json!({"machines": [{"name": "w", "addresses": ["10.0.0.32"]}]})),
    ];
    assert_eq!(claim(&pools, "w", "10.0.0.31"), Some(Claim::Listed));
    assert_eq!(claim(&pools, "w", "10.0.0.32"), Some(Claim::Listed));
    assert_eq!(claim(&pools, "w", "10.0.0.33"), None);
}

#[test]
fn selector_declares_matching_nodes_and_its_ranges() {
    let pools = [pool(&json!({"selector": {"namePattern": "w-*", "addressCIDRs": ["10.0.1.0/24", "fd00:1::/64"]}}))];
    assert_eq!(claim(&pools, "w-1", "10.0.1.0"), Some(Claim::InRange));
    assert_eq!(claim(&pools, "w-1", "10.0.1.255"), Some(Claim::InRange));
    assert_eq!(claim(&pools, "w-1", "fd00:1::9"), Some(Claim::InRange));
    assert_eq!(claim(&pools, "w-1", "10.0.2.0"), None);
    assert_eq!(claim(&pools, "x-1", "10.0.1.0"), None);
    assert!(!declaration("x-1", &World::new().cluster, &pools).is_declared());
}

#[test]
fn control_plane_without_kubelets_is_not_declared() {
    let mut cluster = World::new().cluster;
    assert!(declaration("cp1", &cluster, &[]).is_declared());
    cluster.control_plane.layout = Layout::Systemd;
    cluster.control_plane.register_nodes = false;
    // A pool can't declare the name of an API server for a kubelet either.
    let pools = [
        pool(&json!({"machines": [{"name": "cp1", "addresses": ["10.0.0.11"]}]})),
        pool(&json!({"role": "ControlPlane", "selector": {"namePattern": "cp*", "addressCIDRs": ["10.0.0.0/24"]}})),
    ];
    let declaration = declaration("cp1", &cluster, &pools);
    assert!(!declaration.is_declared());
    let address: IpAddr = "10.0.0.11".parse().unwrap();
    assert_eq!(declaration.claim(&address), None);
    // The addresses of the control-plane node stay reserved.
    assert!(reserved(&cluster, &pools).address(&Nodes::default(), "worker1", &address).is_some());
}
