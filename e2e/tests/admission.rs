//! What the API server refuses, and whether its words name the field and the cure.

use anyhow::{Context, Result, bail, ensure};
use keyplane_e2e::installation::{cluster_spec, install_kinds};
use keyplane_e2e::{Lab, Management};
use serde_json::{Value, json};

/// A change of a good object that admission must refuse, and what the message must name.
struct Refusal {
    what: &'static str,
    pointer: &'static str,
    value: Value,
    words: &'static [&'static str],
}

fn refusal(what: &'static str, pointer: &'static str, value: Value, words: &'static [&'static str]) -> Refusal {
    Refusal { what, pointer, value, words }
}

/// A machine.
fn node(name: &str, address: &str) -> Value {
    json!({"name": name, "addresses": [address]})
}

/// ClusterSpecs that must not be let in.
#[allow(clippy::too_many_lines)]
#[rustfmt::skip]
fn clusters() -> Vec<Refusal> {
    vec![
        refusal("an unknown version", "/spec/kubernetesVersion", json!("v1.30.1"), &["kubernetesVersion", "v1.37.2"]),
        refusal("a version without v", "/spec/kubernetesVersion", json!("1.37.2"), &["kubernetesVersion", "v1.37.2"]),
        refusal(
            "overlapping ranges",
            "/spec/network/podCIDRs",
            json!(["10.96.4.0/24"]),
            &["serviceCIDRs and podCIDRs must not overlap", "10.244.0.0/16"],
        ),
        refusal(
            "a range that is none",
            "/spec/network/podCIDRs",
            json!(["10.244.0.0"]),
            &["spec.network.podCIDRs", "10.244.0.0/16"],
        ),
        refusal(
            "host bits",
            "/spec/network/serviceCIDRs",
            json!(["10.96.0.1/12"]),
            &["spec.network.serviceCIDRs", "host bits"],
        ),
        refusal(
            "two ranges of one family",
            "/spec/network/serviceCIDRs",
            json!(["10.96.0.0/16", "10.98.0.0/16"]),
            &["dual stack"],
        ),
        refusal(
            "a tiny service range",
            "/spec/network/serviceCIDRs",
            json!(["10.96.0.0/30"]),
            &["serviceCIDRs", "/28"],
        ),
        refusal("a bad DNS domain", "/spec/network/dnsDomain", json!("Cluster_Local"), &["dnsDomain", "cluster.local"]),
        refusal(
            "two nodes of one name",
            "/spec/controlPlane/nodes",
            json!([node("cp1", "192.0.2.1"), node("cp1", "192.0.2.2")]),
            &["spec.controlPlane.nodes", "Duplicate", "cp1"],
        ),
        refusal(
            "two nodes of one address",
            "/spec/controlPlane/nodes",
            json!([node("cp1", "192.0.2.1"), node("cp2", "192.0.2.1")]),
            &["spec.controlPlane.nodes", "each address belongs to one machine"],
        ),
        refusal(
            "an address twice",
            "/spec/controlPlane/nodes/0/addresses",
            json!(["192.0.2.1", "192.0.2.1"]),
            &["addresses", "Duplicate"],
        ),
        refusal(
            "an address that is none",
            "/spec/controlPlane/nodes/0/addresses",
            json!(["192.0.2.300"]),
            &["addresses", "must be an IP address"],
        ),
        refusal(
            "a padded address",
            "/spec/controlPlane/nodes/0/addresses",
            json!(["192.000.2.1"]),
            &["addresses", "must be an IP address"],
        ),
        refusal(
            "an IPv6 address in another form",
            "/spec/controlPlane/nodes/0/addresses",
            json!(["FD00::0:1"]),
            &["addresses", "canonical"],
        ),
        refusal("loopback", "/spec/controlPlane/nodes/0/addresses", json!(["127.0.0.1"]), &["addresses", "loopback"]),
        refusal(
            "link-local",
            "/spec/controlPlane/nodes/0/addresses",
            json!(["169.254.169.254"]),
            &["addresses", "link-local"],
        ),
        refusal(
            "a nodeIP of another machine",
            "/spec/controlPlane/nodes/0/nodeIP",
            json!("192.0.2.9"),
            &["nodeIP", "one of the node's addresses"],
        ),
        refusal(
            "an address of the Services",
            "/spec/controlPlane/nodes/0/addresses",
            json!(["10.96.0.5"]),
            &["addresses", "choose others"],
        ),
        refusal("no node", "/spec/controlPlane/nodes", json!([]), &["spec.controlPlane.nodes"]),
        refusal(
            "a node name with capitals",
            "/spec/controlPlane/nodes/0/name",
            json!("CP1"),
            &["nodes[].name", "for example cp1"],
        ),
        refusal(
            "an endpoint with a scheme",
            "/spec/controlPlaneEndpoint/host",
            json!("https://api.example"),
            &["controlPlaneEndpoint.host", "api.demo.example"],
        ),
        refusal(
            "an endpoint among the Pods",
            "/spec/controlPlaneEndpoint/host",
            json!("10.244.0.9"),
            &["controlPlaneEndpoint.host", "choose an address outside"],
        ),
        refusal(
            "a port that is none",
            "/spec/controlPlaneEndpoint/port",
            json!(70000),
            &["controlPlaneEndpoint.port", "65535"],
        ),
        refusal(
            "a flag with dashes",
            "/spec/controlPlane/apiServer/extraArgs",
            json!([{"name": "--v", "value": "4"}]),
            &["extraArgs", "without dashes"],
        ),
        refusal(
            "a name that no certificate can have",
            "/spec/controlPlane/apiServer/certSANs",
            json!(["api example"]),
            &["certSANs"],
        ),
        refusal(
            "a kubelet setting of Keyplane's",
            "/spec/controlPlane/kubelet",
            json!({"rotateCertificates": false}),
            &["spec.controlPlane.kubelet", "leave them out"],
        ),
        refusal(
            "an unknown taint effect",
            "/spec/controlPlane/taints",
            json!([{"key": "a", "effect": "Never"}]),
            &["taints[].effect", "NoSchedule"],
        ),
        refusal(
            "a registry with a scheme",
            "/spec/imageRepository",
            json!("https://registry.example"),
            &["imageRepository", "without https://"],
        ),
        refusal("a relative data directory", "/spec/etcd/stacked/dataDir", json!("data"), &["dataDir", "absolute"]),
        refusal("an unknown field", "/spec/rotate", json!({"certificates": "1"}), &["rotate"]),
        refusal("an unknown deletion policy", "/spec/deletionPolicy", json!("Orphan"), &["deletionPolicy", "Retain"]),
        refusal("a long name", "/metadata/name", json!("a".repeat(51)), &["metadata.name", "50 characters"]),
    ]
}

/// CertificatePolicies that must not be let in.
#[rustfmt::skip]
fn policies() -> Vec<Refusal> {
    vec![
        refusal(
            "a leaf that outlives its authority",
            "/spec",
            json!({"authority": {"validity": "100h"}, "leaf": {"validity": "200h", "renewBefore": "30%"}}),
            &["spec.leaf.validity", "shorter"],
        ),
        refusal(
            "an override that outlives the authority",
            "/spec",
            json!({"overrides": [{"certificate": "apiserver", "validity": "99999h"}]}),
            &["overrides[].validity", "shorter"],
        ),
        refusal("days", "/spec/leaf/validity", json!("365d"), &["spec.leaf.validity", "8760h"]),
        refusal(
            "a renewal before the beginning",
            "/spec",
            json!({"leaf": {"validity": "24h", "renewBefore": "48h"}}),
            &["renewBefore", "shorter"],
        ),
        refusal("all of the life", "/spec/leaf/renewBefore", json!("100%"), &["renewBefore", "99%"]),
        refusal("an unknown key", "/spec/leaf/keyAlgorithm", json!("Ed25519"), &["keyAlgorithm", "ECDSA-P256"]),
        refusal(
            "an unknown certificate",
            "/spec/overrides",
            json!([{"certificate": "webhook"}]),
            &["overrides[].certificate", "apiserver"],
        ),
        refusal(
            "a long request",
            "/spec/kubeletServing/maxExpirationSeconds",
            json!(99_999_999),
            &["maxExpirationSeconds", "31708800"],
        ),
        refusal(
            "a regular expression that is none",
            "/spec/kubeletServing/dnsNameRegex",
            json!("worker-["),
            &["spec.kubeletServing.dnsNameRegex"],
        ),
        refusal(
            "a domain that is none",
            "/spec/kubeletServing/dnsDomains",
            json!(["*.example.com"]),
            &["spec.kubeletServing.dnsDomains", "example.com"],
        ),
        refusal(
            "a range with host bits",
            "/spec/kubeletServing/addressCIDRs",
            json!(["10.0.0.1/24"]),
            &["spec.kubeletServing.addressCIDRs", "host bits"],
        ),
        refusal(
            "a wait without end",
            "/spec/signingRequests/waitLimit",
            json!("1000h"),
            &["spec.signingRequests.waitLimit", "24h"],
        ),
        refusal("short RSA keys", "/spec/signingRequests/minRSABits", json!(1024), &["minRSABits", "2048"]),
        refusal("a key of another kind", "/spec/signingRequests/keyAlgorithms", json!(["Ed25519"]), &["keyAlgorithms"]),
        refusal("no key at all", "/spec/signingRequests/keyAlgorithms", json!([]), &["keyAlgorithms"]),
        refusal(
            "an approver that declares nothing",
            "/spec/approver",
            json!({"reserved": {"serviceCIDRs": ["10.96.0.0/12"], "endpoints": ["api.example.com"]}}),
            &["spec.approver", "machines"],
        ),
        refusal(
            "an approver that does not know the Services",
            "/spec/approver",
            json!({"nodes": [{"namePattern": "*", "addressCIDRs": ["10.0.0.0/16"]}], "reserved": {"endpoints": ["api.example.com"]}}),
            &["serviceCIDRs"],
        ),
        refusal(
            "an endpoint with a port",
            "/spec/approver",
            json!({"nodes": [{"namePattern": "*", "addressCIDRs": ["10.0.0.0/16"]}],
                "reserved": {"serviceCIDRs": ["10.96.0.0/12"], "endpoints": ["api.example.com:6443"]}}),
            &["endpoints", "without a port"],
        ),
        refusal(
            "two machines of one address",
            "/spec/approver",
            json!({"machines": [node("a", "10.0.0.1"), node("b", "10.0.0.1")],
                "reserved": {"serviceCIDRs": ["10.96.0.0/12"], "endpoints": ["api.example.com"]}}),
            &["spec.approver.machines", "each address belongs to one machine"],
        ),
    ]
}

/// NodePools that must not be let in.
#[rustfmt::skip]
fn pools() -> Vec<Refusal> {
    vec![
        refusal(
            "neither machines nor a selector",
            "/spec",
            json!({"clusterRef": {"name": "demo"}}),
            &["machines", "selector"],
        ),
        refusal(
            "two machines of one name",
            "/spec/machines",
            json!([node("w1", "192.0.2.1"), node("w1", "192.0.2.2")]),
            &["machines", "Duplicate"],
        ),
        refusal(
            "two machines of one address",
            "/spec/machines",
            json!([node("w1", "192.0.2.1"), node("w2", "192.0.2.1")]),
            &["spec.machines", "each address belongs to one machine"],
        ),
        refusal("an address that is none", "/spec/machines", json!([node("w1", "here")]), &["machines[].addresses"]),
        refusal(
            "a bad pattern",
            "/spec/selector",
            json!({"namePattern": "Worker?", "addressCIDRs": ["192.0.2.0/24"]}),
            &["namePattern", "worker-*"],
        ),
        refusal("a limit of nothing", "/spec/maxNodes", json!(5), &["spec.maxNodes", "spec.selector"]),
        refusal(
            "a selector without ranges",
            "/spec/selector",
            json!({"namePattern": "worker-*", "addressCIDRs": []}),
            &["addressCIDRs"],
        ),
    ]
}

/// Changes of a ClusterSpec that must not be let in.
#[rustfmt::skip]
fn changes() -> Vec<Refusal> {
    vec![
        refusal("a downgrade", "/spec/kubernetesVersion", json!("v1.36.1"), &["no downgrade"]),
        refusal("an older patch", "/spec/kubernetesVersion", json!("v1.37.1"), &["no downgrade"]),
        refusal(
            "other Service addresses",
            "/spec/network/serviceCIDRs",
            json!(["10.128.0.0/12"]),
            &["spec.network can't be changed"],
        ),
        refusal("another data directory", "/spec/etcd/stacked/dataDir", json!("/data"), &["etcd would start empty"]),
        refusal(
            "one node more",
            "/spec/controlPlane/nodes",
            json!([node("cp1", "192.0.2.1"), node("cp2", "192.0.2.2")]),
            &["can't be added"],
        ),
    ]
}

/// Puts a value where the pointer says, making the objects on the way.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut place = object;
    for key in pointer.trim_start_matches('/').split('/') {
        place = match key.parse::<usize>() {
            Ok(index) if place.is_array() => &mut place[index],
            _ => &mut place[key],
        };
    }
    *place = value;
}

#[test]
#[ignore = "needs root and the lab's parts: make test"]
fn bad_input_is_refused_at_admission_with_the_field_and_the_cure() -> Result<()> {
    let lab = Lab::start()?;
    let management = Management::start(&lab)?;
    install_kinds(&management)?;
    let admin = management.admin();
    let policy = json!({"apiVersion": "keyplane.io/v1alpha1", "kind": "CertificatePolicy",
        "metadata": {"name": "demo", "namespace": "default"}, "spec": {"leaf": {}}});
    let pool = json!({"apiVersion": "keyplane.io/v1alpha1", "kind": "NodePool",
        "metadata": {"name": "demo", "namespace": "default"},
        "spec": {"clusterRef": {"name": "demo"}, "machines": [node("w1", "192.0.2.21")]}});
    let mut problems = vec![];
    for (good, table) in [(cluster_spec("demo", "192.0.2.1"), clusters()), (policy, policies()), (pool, pools())] {
        admin.apply(&good.to_string()).context("the good object was refused")?;
        admin.run(&["delete", good["kind"].as_str().unwrap_or_default(), "demo"])?;
        for case in table {
            let mut bad = good.clone();
            set(&mut bad, case.pointer, case.value.clone());
            match admin.apply(&bad.to_string()) {
                Ok(_) => {
                    problems.push(format!("{} was let in", case.what));
                    admin.run(&["delete", bad["kind"].as_str().unwrap_or_default(), "--all"])?;
                }
                Err(error) => {
                    let told = format!("{error:#}");
                    let missing: Vec<_> = case.words.iter().filter(|word| !told.contains(*word)).collect();
                    if !missing.is_empty() {
                        problems.push(format!("{}: {missing:?} not in: {told}", case.what));
                    }
                }
            }
        }
    }
    let good = cluster_spec("demo", "192.0.2.1");
    admin.apply(&good.to_string())?;
    for case in changes() {
        let mut changed = good.clone();
        set(&mut changed, case.pointer, case.value.clone());
        match admin.apply(&changed.to_string()) {
            Ok(_) => bail!("{} was let in", case.what),
            Err(error) => {
                let told = format!("{error:#}");
                if !case.words.iter().all(|word| told.contains(word)) {
                    problems.push(format!("{}: {:?} not in: {told}", case.what, case.words));
                }
            }
        }
    }
    let mut newer = good;
    set(&mut newer, "/spec/kubernetesVersion", json!("v1.37.3"));
    admin.apply(&newer.to_string()).context("a newer patch was refused")?;
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}
