//! The Pod network with static routes: a bridge on each node, and a route to every other node.
//!
//! The Pod CIDR of a Node is known once the Node exists, because the controller-manager allocates it. The addresses
//! that a Node reports are not trusted: routes use the declared addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node as NodeObject;
use serde_json::{Value, json};

use super::unit::Service;
use super::{file, setting};
use crate::host_files::File;
use crate::model::{Cluster, Node};

/// The Pod CIDRs of each Node.
pub type PodRanges = BTreeMap<String, Vec<IpNet>>;

/// Returns the Pod CIDRs of a Node.
#[must_use]
pub fn pod_ranges(node: &NodeObject) -> Vec<IpNet> {
    let ranges = node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten());
    ranges.filter_map(|range| range.parse().ok()).collect()
}

/// The keys and paths of the files that exist only once Nodes have Pod CIDRs.
pub const POD_NETWORK_FILES: [(&str, &str); 3] = [BRIDGE, LOOPBACK, ROUTES];

const BRIDGE: (&str, &str) = ("10-bridge.conflist", "/etc/cni/net.d/10-bridge.conflist");
/// The loopback configuration, written only with the bridge: alone it would make a Node Ready without a Pod network.
const LOOPBACK: (&str, &str) = ("99-loopback.conf", "/etc/cni/net.d/99-loopback.conf");
const ROUTES: (&str, &str) = ("pod-routes.service", "/etc/systemd/system/pod-routes.service");

const CNI_VERSION: &str = "1.0.0";
/// The protocol number of the unit's routes, so that the unit can delete its own routes. No known routing daemon uses
/// it (`/etc/iproute2/rt_protos`).
const ROUTE_PROTOCOL: &str = "75";
/// The iptables chain of the unit's NAT rules.
const CHAIN: &str = "POD-ROUTES";

/// Renders the Pod network files of a node; none without static routes. While the Pod CIDRs are unknown because the
/// target cluster does not answer, the files in `before` stay.
#[must_use]
pub fn pod_network(
    cluster: &Cluster,
    node: &Node,
    ranges: Option<&PodRanges>,
    before: Option<&BTreeMap<String, String>>,
) -> Vec<File> {
    if !cluster.has_pod_routes() {
        return vec![];
    }
    let Some(ranges) = ranges else {
        let kept = POD_NETWORK_FILES.into_iter();
        return kept.filter_map(|(key, path)| Some(file(key, path, before?.get(key)?.clone()))).collect();
    };
    let mut files = vec![];
    let own = if cluster.has_kubelet(node) { ranges_of(cluster, node, ranges) } else { vec![] };
    if !own.is_empty() {
        files.push(file(BRIDGE.0, BRIDGE.1, pretty(&bridge(&own))));
        let loopback = json!({"cniVersion": CNI_VERSION, "name": "lo", "type": "loopback"});
        files.push(file(LOOPBACK.0, LOOPBACK.1, pretty(&loopback)));
    }
    let others = cluster.all_nodes().filter(|other| other.name != node.name && cluster.has_kubelet(other));
    let routes: Vec<_> = others
        .flat_map(|other| {
            let ranges = ranges_of(cluster, other, ranges).into_iter();
            ranges.filter_map(|range| Some((range, address_for(other, &range)?)))
        })
        .collect();
    if !own.is_empty() || !routes.is_empty() {
        files.push(file(ROUTES.0, ROUTES.1, routes_unit(cluster, &own, &routes)));
    }
    files
}

/// Returns the valid Pod CIDRs of a node: within the cluster's CIDRs, and without overlap with another Node. A kubelet
/// creates its own Node, so it may claim any CIDR.
fn ranges_of(cluster: &Cluster, node: &Node, ranges: &PodRanges) -> Vec<IpNet> {
    let overlap = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    let of_others = |range: &IpNet| {
        let others = ranges.iter().filter(|(name, _)| **name != node.name);
        others.flat_map(|(_, ranges)| ranges).any(|other| overlap(range, other))
    };
    let own = ranges.get(&node.name).into_iter().flatten();
    own.filter(|range| cluster.pod_cidrs.iter().any(|all| all.contains(*range)) && !of_others(range)).copied().collect()
}

fn address_for(node: &Node, range: &IpNet) -> Option<IpAddr> {
    let same_family = |address: &IpAddr| address.is_ipv4() == range.addr().is_ipv4();
    std::iter::once(node.advertise_address).chain(node.addresses.iter().copied()).find(same_family)
}

fn bridge(own: &[IpNet]) -> Value {
    let ranges: Vec<_> = own.iter().map(|range| json!([{"subnet": range.to_string()}])).collect();
    let routes: Vec<_> = own.iter().map(|range| json!({"dst": everywhere(range)})).collect();
    json!({
        "cniVersion": CNI_VERSION,
        "name": "bridge",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                // The plugin would masquerade traffic to Pods on other nodes too; pod-routes.service excludes it.
                "ipMasq": false,
                // A Pod may be behind the Service that it calls.
                "hairpinMode": true,
                "ipam": {"type": "host-local", "ranges": ranges, "routes": routes},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn everywhere(range: &IpNet) -> &'static str {
    if range.addr().is_ipv4() { "0.0.0.0/0" } else { "::/0" }
}

fn routes_unit(cluster: &Cluster, own: &[IpNet], routes: &[(IpNet, IpAddr)]) -> String {
    let mut settings = vec![setting("Type", "oneshot"), setting("RemainAfterExit", "yes")];
    let mut run = |name: &'static str, may_fail: bool, line: &str| {
        settings.push((name, format!("{}{line}", if may_fail { "-" } else { "" })));
    };
    for (range, address) in routes {
        let family = if range.addr().is_ipv4() { "-4" } else { "-6" };
        run("ExecStart", false, &format!("ip {family} route replace {range} via {address} proto {ROUTE_PROTOCOL}"));
    }
    // Traffic that leaves the cluster gets the address of the node, because there is no route back to the Pod.
    for range in own {
        let program = if range.addr().is_ipv4() { "iptables" } else { "ip6tables" };
        let Some(all) = cluster.pod_cidrs.iter().find(|all| all.contains(range)) else { continue };
        let nat = format!("{program} --wait --table nat");
        run("ExecStart", true, &format!("{nat} --new-chain {CHAIN}"));
        run("ExecStart", false, &format!("{nat} --flush {CHAIN}"));
        run(
            "ExecStart",
            false,
            &format!("{nat} --append {CHAIN} --source {range} ! --destination {all} --jump MASQUERADE"),
        );
        run("ExecStart", true, &format!("{nat} --delete POSTROUTING --jump {CHAIN}"));
        run("ExecStart", false, &format!("{nat} --append POSTROUTING --jump {CHAIN}"));
        run("ExecStop", true, &format!("{nat} --delete POSTROUTING --jump {CHAIN}"));
    }
    for family in ["-4", "-6"] {
        if cluster.pod_cidrs.iter().any(|range| range.addr().is_ipv4() == (family == "-4")) {
            run("ExecStop", true, &format!("ip {family} route flush proto {ROUTE_PROTOCOL}"));
        }
    }
    Service {
        description: "Routes to the Pods of other machines",
        documentation: "https://kubernetes.io/docs/concepts/cluster-administration/networking/",
        after: &["network-online.target"],
        wants: &["network-online.target"],
        settings,
        ..Service::default()
    }
    .text()
}

fn pretty(value: &Value) -> String {
    // Serializing a JSON value does not fail.
    format!("{}\n", serde_json::to_string_pretty(value).unwrap_or_default())
}
