//! Who may declare what.

use std::net::IpAddr;

use keyplane_crds::Layout;

use super::*;
use crate::approval::declaration::Claim;

fn claim(pools: &[NodePoolSpec], node: &str, address: &str) -> Option<Claim> {
    let address: IpAddr = address.parse().unwrap();
    declaration(node, &World::new().cluster, pools).claim(&address)
}

#[test]
fn a_worker_pool_declares_nothing_about_a_control_plane_node() {
    let pools = [
        pool(&json!({"machines": [{"name": "cp1", "addresses": ["10.0.0.66"]}]})),
        pool(&json!({"selector": {"namePattern": "*", "addressCIDRs": ["10.0.0.0/24"]}})),
    ];
    assert_eq!(claim(&pools, "cp1", "10.0.0.66"), None);
    assert_eq!(claim(&pools, "cp1", "10.0.0.11"), Some(Claim::Listed));
    // Nor does it take an address from others by such an entry.
    let reserved = reserved(&World::new().cluster, &pools);
    assert_eq!(reserved.address(&Nodes::default(), "worker1", &"10.0.0.66".parse().unwrap()), None);
}

#[test]
fn a_control_plane_pool_only_adds_to_nodes_of_the_control_plane() {
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
fn a_machine_that_two_pools_list_has_the_addresses_of_both() {
    let pools = [
        pool(&json!({"machines": [{"name": "w", "addresses": ["10.0.0.31"]}]})),
        pool(&json!({"machines": [{"name": "w", "addresses": ["10.0.0.32"]}]})),
    ];
    assert_eq!(claim(&pools, "w", "10.0.0.31"), Some(Claim::Listed));
    assert_eq!(claim(&pools, "w", "10.0.0.32"), Some(Claim::Listed));
    assert_eq!(claim(&pools, "w", "10.0.0.33"), None);
}

#[test]
fn a_selector_declares_the_nodes_that_match_and_the_addresses_in_its_ranges() {
    let pools = [pool(&json!({"selector": {"namePattern": "w-*", "addressCIDRs": ["10.0.1.0/24", "fd00:1::/64"]}}))];
    assert_eq!(claim(&pools, "w-1", "10.0.1.0"), Some(Claim::InRange));
    assert_eq!(claim(&pools, "w-1", "10.0.1.255"), Some(Claim::InRange));
    assert_eq!(claim(&pools, "w-1", "fd00:1::9"), Some(Claim::InRange));
    assert_eq!(claim(&pools, "w-1", "10.0.2.0"), None);
    assert_eq!(claim(&pools, "x-1", "10.0.1.0"), None);
    assert!(!declaration("x-1", &World::new().cluster, &pools).is_declared());
}

#[test]
fn nothing_is_declared_about_servers_that_are_no_nodes() {
    let mut cluster = World::new().cluster;
    assert!(declaration("cp1", &cluster, &[]).is_declared());
    cluster.control_plane.layout = Layout::Systemd;
    cluster.control_plane.register_nodes = false;
    // Not even a pool can lend an API server's name to a kubelet.
    let pools = [
        pool(&json!({"machines": [{"name": "cp1", "addresses": ["10.0.0.11"]}]})),
        pool(&json!({"role": "ControlPlane", "selector": {"namePattern": "cp*", "addressCIDRs": ["10.0.0.0/24"]}})),
    ];
    let declaration = declaration("cp1", &cluster, &pools);
    assert!(!declaration.is_declared());
    let address: IpAddr = "10.0.0.11".parse().unwrap();
    assert_eq!(declaration.claim(&address), None);
    // And what the machine has stays its own.
    assert!(reserved(&cluster, &pools).address(&Nodes::default(), "worker1", &address).is_some());
}
