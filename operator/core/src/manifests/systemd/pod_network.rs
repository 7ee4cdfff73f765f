//! The network of the Pods where the machines' own routes are it: a bridge on each machine, and a route to each other.
//!
//! A Node's range of addresses is known once the Node is there, because the controller-manager gives it. What the Node
//! says of its addresses is not asked: routes lead where the machines are declared to be.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node as NodeObject;
use serde_json::{Value, json};

use super::unit::Service;
use super::{file, setting};
use crate::host_files::File;
use crate::model::{Cluster, Node};

/// The ranges of Pod addresses that each Node has.
pub type PodRanges = BTreeMap<String, Vec<IpNet>>;

/// The ranges of a Node.
#[must_use]
pub fn pod_ranges(node: &NodeObject) -> Vec<IpNet> {
    let ranges = node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten());
    ranges.filter_map(|range| range.parse().ok()).collect()
}

/// The files that are not there before Nodes have ranges: keys and paths.
pub const POD_NETWORK_FILES: [(&str, &str); 3] = [BRIDGE, LOOPBACK, ROUTES];

const BRIDGE: (&str, &str) = ("10-bridge.conflist", "/etc/cni/net.d/10-bridge.conflist");
/// With the bridge only: alone it would make a Node Ready whose Pods have no network.
const LOOPBACK: (&str, &str) = ("99-loopback.conf", "/etc/cni/net.d/99-loopback.conf");
const ROUTES: (&str, &str) = ("pod-routes.service", "/etc/systemd/system/pod-routes.service");

const CNI_VERSION: &str = "1.0.0";
/// Marks the routes as the unit's, so that it can take away its own. The numbers of known routing daemons are others
/// (`/etc/iproute2/rt_protos`).
const ROUTE_PROTOCOL: &str = "75";
/// The unit's chain of NAT rules.
const CHAIN: &str = "POD-ROUTES";

/// The files of a machine's Pod network; none where routes are not the network. While the target does not say what ranges
/// its Nodes have, those that were written `before` stand.
#[must_use]
pub fn pod_network(
    cluster: &Cluster,
    machine: &Node,
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
    let own = if cluster.has_kubelet(machine) { ranges_of(cluster, machine, ranges) } else { vec![] };
    if !own.is_empty() {
        files.push(file(BRIDGE.0, BRIDGE.1, pretty(&bridge(&own))));
        let loopback = json!({"cniVersion": CNI_VERSION, "name": "lo", "type": "loopback"});
        files.push(file(LOOPBACK.0, LOOPBACK.1, pretty(&loopback)));
    }
    let others = cluster.machines().filter(|other| other.name != machine.name && cluster.has_kubelet(other));
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

/// The ranges of a machine that are its own: inside of the cluster's, and no other Node's too. A Node is made by its
/// kubelet, which may claim what it wants.
fn ranges_of(cluster: &Cluster, machine: &Node, ranges: &PodRanges) -> Vec<IpNet> {
    let overlap = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    let of_others = |range: &IpNet| {
        let others = ranges.iter().filter(|(name, _)| **name != machine.name);
        others.flat_map(|(_, ranges)| ranges).any(|other| overlap(range, other))
    };
    let own = ranges.get(&machine.name).into_iter().flatten();
    own.filter(|range| cluster.pod_cidrs.iter().any(|all| all.contains(*range)) && !of_others(range)).copied().collect()
}

fn address_for(machine: &Node, range: &IpNet) -> Option<IpAddr> {
    let same_family = |address: &IpAddr| address.is_ipv4() == range.addr().is_ipv4();
    std::iter::once(machine.advertise_address).chain(machine.addresses.iter().copied()).find(same_family)
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
                // The plugin would hide a Pod's address from Pods on other machines; pod-routes.service does it right.
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
    // A Pod that leaves the cluster has its machine's address: nobody outside knows the way back to the Pod's.
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
    // A JSON value always has a text.
    format!("{}\n", serde_json::to_string_pretty(value).unwrap_or_default())
}
