//! The add-ons: their objects, the permissions that they need, and the condition `AddonsReady`.

// Clippy's exemption for tests does not cover helpers outside of `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{SMALL, cluster};
use keyplane_core::addons::{Addon, AddonState, WorkloadRollout, health};
use keyplane_core::etcd::initial_cluster;
use keyplane_core::images::required_images;
use keyplane_core::model::{Cluster, Version};
use keyplane_core::target_objects::{self, TargetObject};
use keyplane_core::{cluster_bootstrap, manifests};
use serde_json::{Value, json};

fn with(addons: &str) -> Cluster {
    cluster(&format!("{SMALL}{addons}\n"))
}

fn object(cluster: &Cluster, addon: Addon, kind: &str, name: &str) -> TargetObject {
    let objects = addon.objects(cluster, cluster.version);
    let named =
        |object: &TargetObject| object.resource.kind == kind && object.object.metadata.name.as_deref() == Some(name);
    objects.into_iter().find(named).unwrap()
}

fn workload(cluster: &Cluster, addon: Addon) -> Value {
    addon.workload(cluster, cluster.version).unwrap().object.data
}

fn container(cluster: &Cluster, addon: Addon) -> Value {
    workload(cluster, addon)["spec"]["template"]["spec"]["containers"][0].clone()
}

fn network(cluster: &Cluster) -> Value {
    let config = object(cluster, Addon::Flannel, "ConfigMap", "kube-flannel-cfg").object.data;
    serde_json::from_str(config["data"]["net-conf.json"].as_str().unwrap()).unwrap()
}

#[test]
fn flannel_uses_the_cluster_ranges_of_each_family() {
    let spec = |ranges: &str| {
        let services = if ranges.starts_with("'fd") { "['fd00:96::/112']" } else { "[10.96.0.0/16]" };
        cluster(&format!(
            "{}network: {{serviceCIDRs: {services}, podCIDRs: [{ranges}]}}\naddons: {{flannel: {{enabled: true, backend: host-gw}}}}\n",
            SMALL.replace("network: {podCIDRs: [10.244.0.0/16]}\n", "")
        ))
    };
    let both = network(&spec("10.244.0.0/16, 'fd00:244::/56'"));
    assert_eq!(both["Network"], "10.244.0.0/16");
    assert_eq!((&both["EnableIPv6"], &both["IPv6Network"]), (&json!(true), &json!("fd00:244::/56")));
    assert_eq!(both["Backend"], json!({"Type": "host-gw"}));
    let six = network(&spec("'fd00:244::/56'"));
    assert_eq!((&six["EnableIPv4"], &six["EnableIPv6"]), (&json!(false), &json!(true)));
    assert!(six.get("Network").is_none());
}

#[test]
fn flannel_uses_nftables_with_kube_proxy_and_rolls_out_changes() {
    let plain = with("addons: {flannel: {enabled: true}}");
    let nftables = with("addons: {kubeProxy: {mode: nftables}, flannel: {enabled: true}}");
    assert_eq!(network(&plain)["EnableNFTables"], false);
    assert_eq!(network(&nftables)["EnableNFTables"], true);
    let template = |cluster| workload(cluster, Addon::Flannel)["spec"]["template"].clone();
    assert_ne!(template(&plain), template(&nftables), "the Pods would keep the old configuration");
}

#[test]
fn flannel_connects_to_api_servers_without_kube_proxy() {
    let env = |cluster: &Cluster| container(cluster, Addon::Flannel)["env"].to_string();
    assert!(!env(&with("addons: {flannel: {enabled: true}}")).contains("KUBERNETES_SERVICE_HOST"));
    let without = env(&with("addons: {kubeProxy: {enabled: false}, flannel: {enabled: true}}"));
    assert!(without.contains("KUBERNETES_SERVICE_HOST") && without.contains("api.demo.example"), "{without}");
}

#[test]
fn user_flag_replaces_the_flag_of_flannel() {
    let cluster = with(
        "addons: {flannel: {enabled: true, extraArgs: [{name: healthz-port, value: '9'}, {name: iface, value: eth1}]}}",
    );
    let args = container(&cluster, Addon::Flannel)["args"].clone();
    assert_eq!(args, json!(["--ip-masq", "--kube-subnet-mgr", "--healthz-port=9", "--iface=eth1"]));
}

#[test]
fn user_settings_override_the_scale() {
    let sized = with("scale: {nodes: 5000}");
    assert_eq!(workload(&sized, Addon::CoreDns)["spec"]["replicas"], 313);
    assert_eq!(container(&sized, Addon::CoreDns)["resources"]["requests"]["memory"], "214Mi");
    assert_eq!(container(&sized, Addon::KubeProxy)["resources"]["requests"]["cpu"], "100m");
    let own = with(
        "scale: {nodes: 5000}\naddons: {coreDNS: {replicas: 9, resources: {requests: {cpu: '1'}}}, kubeProxy: {resources: {limits: {memory: 1Gi}}}}",
    );
    assert_eq!(workload(&own, Addon::CoreDns)["spec"]["replicas"], 9);
    assert_eq!(container(&own, Addon::CoreDns)["resources"], json!({"requests": {"cpu": "1"}}));
    assert_eq!(container(&own, Addon::KubeProxy)["resources"], json!({"limits": {"memory": "1Gi"}}));
}

#[test]
fn scale_sets_control_plane_flags_unless_user_flags_do() {
    let flags = |spec: &str| {
        let cluster = cluster(spec);
        let files = manifests::files(
            &cluster,
            &cluster.nodes[0],
            &initial_cluster(&cluster, &cluster.nodes[0], None, |_| None).flags,
        );
        files.into_iter().map(|file| file.content).collect::<Vec<_>>().join("\n")
    };
    assert!(!flags(SMALL).contains("inflight") && !flags(SMALL).contains("kube-api-qps"));
    let large = flags(&format!("{SMALL}scale: {{nodes: 4000}}\n"));
    assert!(large.contains("--max-requests-inflight=3000") && large.contains("--max-mutating-requests-inflight=1000"));
    assert_eq!(large.matches("--kube-api-qps=100").count(), 2, "the controller-manager and the scheduler");
    let own = SMALL.replace("{nodes:", "{apiServer: {extraArgs: [{name: max-requests-inflight, value: '7'}]}, nodes:");
    let own = flags(&format!("{own}scale: {{nodes: 4000}}\n"));
    assert!(own.contains("--max-requests-inflight=7") && !own.contains("--max-requests-inflight=3000"));
    assert!(own.contains("--max-mutating-requests-inflight=1000"));
}

#[test]
fn dns_replicas_are_free_unless_the_spec_sets_them() {
    let free = |spec: &str| {
        let cluster = with(spec);
        !Addon::CoreDns.workload(&cluster, cluster.version).unwrap().initial_only.is_empty()
    };
    assert!(free(""));
    assert!(!free("addons: {coreDNS: {replicas: 3}}") && !free("scale: {nodes: 10}"));
}

#[test]
fn images_follow_the_requested_version() {
    let cluster = with("");
    let objects = Addon::KubeProxy.objects(&cluster, Version { minor: 36, patch: 3 });
    assert!(format!("{:?}", objects.last().unwrap().object).contains("kube-proxy:v1.36.3"));
}

#[test]
fn lists_images_of_enabled_add_ons_once_with_overrides() {
    let cluster = with(
        "addons: {coreDNS: {enabled: false}, flannel: {enabled: true}}\nimageRepository: r.example/k\nimages: {flannel: 'r.example/f:1', pause: 'r.example/p:2'}",
    );
    assert_eq!(
        required_images(&cluster),
        [
            "r.example/k/kube-apiserver:v1.37.2",
            "r.example/k/kube-controller-manager:v1.37.2",
            "r.example/k/kube-scheduler:v1.37.2",
            "r.example/k/kube-proxy:v1.37.2",
            "r.example/p:2",
            "r.example/k/etcd:3.7.0-0",
            "r.example/f:1",
            "ghcr.io/flannel-io/flannel-cni-plugin:v1.9.1-flannel3",
        ]
    );
}

#[test]
fn external_etcd_needs_no_image() {
    let cluster = with("etcd: {external: {endpoints: ['https://etcd1.example:2379'], secretRef: {name: etcd}}}");
    assert!(!required_images(&cluster).iter().any(|image| image.contains("/etcd:")));
}

/// The permissions of Keyplane's own user: `verb group/resource namespace/name`.
fn rights(cluster: &Cluster) -> BTreeSet<String> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut rights = BTreeSet::new();
    for role in cluster_bootstrap::objects(cluster, "", cluster.version, false)
        .iter()
        .filter(|object| object.resource.kind.ends_with("Role"))
    {
        if role.object.metadata.name.as_deref() != Some(target_objects::USER) {
            continue;
        }
        let namespace = role.object.metadata.namespace.as_deref().unwrap_or("*");
        for rule in role.object.data["rules"].as_array().unwrap() {
            for (verb, resource) in texts(&rule["verbs"])
                .iter()
                .flat_map(|verb| texts(&rule["resources"]).into_iter().map(move |resource| (verb, resource)))
            {
                for name in texts(&rule["resourceNames"]) {
                    rights.insert(format!("{verb} {resource} {namespace}/{name}"));
                }
            }
        }
    }
    rights
}

#[test]
fn permissions_are_by_name_and_minimal() {
    let on = rights(&with("addons: {flannel: {enabled: true}}"));
    let off = rights(&with("addons: {coreDNS: {enabled: false}, kubeProxy: {enabled: false}}"));
    for right in [
        "patch deployments kube-system/coredns",
        "create services kube-system/kube-dns",
        "watch daemonsets */kube-flannel-ds",
    ] {
        assert!(on.contains(right), "{right}");
        assert!(!off.contains(right), "{right}");
    }
    for right in [
        "delete deployments kube-system/coredns",
        "delete clusterroles */flannel",
        "delete configmaps */kube-flannel-cfg",
    ] {
        assert!(off.contains(right), "{right}");
        assert!(!on.contains(right), "{right}");
    }
    // Only the super-admin grants permissions. A deleted namespace would also delete the objects of others in it.
    for rights in [&on, &off] {
        assert!(
            !rights
                .iter()
                .any(|right| right.contains("roles") && (right.starts_with("patch") || right.starts_with("create")))
        );
        assert!(!rights.iter().any(|right| right.contains("namespaces") && !right.starts_with("get")));
    }
}

#[test]
fn every_add_on_object_has_the_managed_by_label() {
    let cluster = with("");
    for addon in Addon::ALL {
        for object in addon.objects(&cluster, cluster.version) {
            let labels = object.object.metadata.labels.clone().unwrap();
            assert_eq!(labels["app.kubernetes.io/managed-by"], "keyplane", "{}", object.describe());
        }
    }
}

#[test]
fn condition_names_the_worst_add_on() {
    let cluster = with("");
    let rollout = |available, complete| Some(WorkloadRollout { desired: 2, available, complete });
    let applied = |rollout| AddonState::Applied { rollout, unmanaged: vec![] };
    let reason = |facts: Option<Vec<(Addon, AddonState)>>| {
        let facts: Option<BTreeMap<_, _>> = facts.map(|facts| facts.into_iter().collect());
        health(&cluster, facts.as_ref())
    };
    assert_eq!(reason(None).reason, "NotContacted");
    assert_eq!(reason(Some(vec![])).reason, "RollingOut");
    let running = (Addon::KubeProxy, applied(rollout(2, true)));
    let half = reason(Some(vec![running.clone(), (Addon::CoreDns, applied(rollout(1, false)))]));
    assert_eq!((half.ready, half.reason), (false, "RollingOut"));
    assert_eq!(half.message, "CoreDNS: 1 of 2 Pods are available");
    let foreign = AddonState::Foreign(vec!["Deployment kube-system/coredns".to_owned()]);
    let foreign = reason(Some(vec![running.clone(), (Addon::CoreDns, foreign)]));
    assert_eq!(foreign.reason, "ForeignObject");
    assert!(
        foreign.message.contains("Deployment kube-system/coredns") && foreign.message.contains("managed-by=keyplane")
    );
    let failed = reason(Some(vec![(Addon::Flannel, AddonState::Failed("no".to_owned()))]));
    assert_eq!((failed.reason, failed.message.as_str()), ("ApplyFailed", "Flannel: no"));
    let unmanaged =
        AddonState::Applied { rollout: rollout(2, true), unmanaged: vec!["ConfigMap kube-system/coredns".to_owned()] };
    let all = reason(Some(vec![running, (Addon::CoreDns, unmanaged)]));
    assert_eq!((all.ready, all.reason), (true, "Installed"));
    assert_eq!(
        all.message,
        "Pods available: kube-proxy 2/2, CoreDNS 2/2; left to the user: ConfigMap kube-system/coredns"
    );
    let none = with("addons: {coreDNS: {enabled: false}, kubeProxy: {enabled: false}}");
    assert_eq!(health(&none, Some(&BTreeMap::new())).reason, "NotRequired");
}
