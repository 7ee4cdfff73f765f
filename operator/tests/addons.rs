//! The add-ons: what they are made of, what rights they take, and what the condition says.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{SMALL, cluster};
use keyplane_core::addons::{Addon, AddonFacts, Rollout, health};
use keyplane_core::cluster_bootstrap;
use keyplane_core::etcd::initial_cluster;
use keyplane_core::images::required_images;
use keyplane_core::manifests;
use keyplane_core::model::{Cluster, Version};
use keyplane_core::target_objects;
use keyplane_core::target_objects::TargetObject;
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
fn flannel_has_the_cluster_s_ranges_in_each_family() {
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
fn flannel_uses_nftables_when_kube_proxy_does_and_its_pods_follow_the_configuration() {
    let plain = with("addons: {flannel: {enabled: true}}");
    let nftables = with("addons: {kubeProxy: {mode: nftables}, flannel: {enabled: true}}");
    assert_eq!(network(&plain)["EnableNFTables"], false);
    assert_eq!(network(&nftables)["EnableNFTables"], true);
    let template = |cluster| workload(cluster, Addon::Flannel)["spec"]["template"].clone();
    assert_ne!(template(&plain), template(&nftables), "the Pods would keep the old configuration");
}

#[test]
fn flannel_goes_straight_to_the_api_servers_where_there_is_no_kube_proxy() {
    let env = |cluster: &Cluster| container(cluster, Addon::Flannel)["env"].to_string();
    assert!(!env(&with("addons: {flannel: {enabled: true}}")).contains("KUBERNETES_SERVICE_HOST"));
    let without = env(&with("addons: {kubeProxy: {enabled: false}, flannel: {enabled: true}}"));
    assert!(without.contains("KUBERNETES_SERVICE_HOST") && without.contains("api.demo.example"), "{without}");
}

#[test]
fn a_flag_of_the_users_replaces_flannels() {
    let cluster = with(
        "addons: {flannel: {enabled: true, extraArgs: [{name: healthz-port, value: '9'}, {name: iface, value: eth1}]}}",
    );
    let args = container(&cluster, Addon::Flannel)["args"].clone();
    assert_eq!(args, json!(["--ip-masq", "--kube-subnet-mgr", "--healthz-port=9", "--iface=eth1"]));
}

#[test]
fn what_the_user_writes_wins_over_the_size() {
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
fn the_size_sets_flags_of_the_control_plane_and_the_users_flags_win() {
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
fn the_number_of_dns_pods_is_free_unless_somebody_writes_it() {
    let free = |spec: &str| {
        let cluster = with(spec);
        !Addon::CoreDns.workload(&cluster, cluster.version).unwrap().at_first.is_empty()
    };
    assert!(free(""));
    assert!(!free("addons: {coreDNS: {replicas: 3}}") && !free("scale: {nodes: 10}"));
}

#[test]
fn images_follow_the_version_that_is_asked_for() {
    let cluster = with("");
    let objects = Addon::KubeProxy.objects(&cluster, Version { minor: 36, patch: 3 });
    assert!(format!("{:?}", objects.last().unwrap().object).contains("kube-proxy:v1.36.3"));
}

#[test]
fn images_are_listed_once_for_what_is_switched_on_with_overrides() {
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
fn an_etcd_of_the_users_needs_no_image() {
    let cluster = with("etcd: {external: {endpoints: ['https://etcd1.example:2379'], secretRef: {name: etcd}}}");
    assert!(!required_images(&cluster).iter().any(|image| image.contains("/etcd:")));
}

/// What Keyplane's own user may do: `verb group/resource namespace/name`.
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
fn rights_are_by_name_and_only_for_what_is_to_be_done() {
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
    // Rights are given away by the super-admin alone, and a namespace takes with it what others have put there.
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
fn every_object_of_an_add_on_says_whose_it_is() {
    let cluster = with("");
    for addon in Addon::ALL {
        for object in addon.objects(&cluster, cluster.version) {
            let labels = object.object.metadata.labels.clone().unwrap();
            assert_eq!(labels["app.kubernetes.io/managed-by"], "keyplane", "{}", object.describe());
        }
    }
}

#[test]
fn the_condition_tells_the_worst_by_name() {
    let cluster = with("");
    let rollout = |available, complete| Some(Rollout { wanted: 2, available, complete });
    let applied = |rollout| AddonFacts::Applied { rollout, left: vec![] };
    let reason = |facts: Option<Vec<(Addon, AddonFacts)>>| {
        let facts: Option<BTreeMap<_, _>> = facts.map(|facts| facts.into_iter().collect());
        health(&cluster, facts.as_ref())
    };
    assert_eq!(reason(None).reason, "NotContacted");
    assert_eq!(reason(Some(vec![])).reason, "RollingOut");
    let running = (Addon::KubeProxy, applied(rollout(2, true)));
    let half = reason(Some(vec![running.clone(), (Addon::CoreDns, applied(rollout(1, false)))]));
    assert_eq!((half.good, half.reason), (false, "RollingOut"));
    assert_eq!(half.message, "CoreDNS: 1 of 2 Pods are available");
    let foreign = AddonFacts::Foreign(vec!["Deployment kube-system/coredns".to_owned()]);
    let foreign = reason(Some(vec![running.clone(), (Addon::CoreDns, foreign)]));
    assert_eq!(foreign.reason, "ForeignObject");
    assert!(
        foreign.message.contains("Deployment kube-system/coredns") && foreign.message.contains("managed-by=keyplane")
    );
    let failed = reason(Some(vec![(Addon::Flannel, AddonFacts::Failed("no".to_owned()))]));
    assert_eq!((failed.reason, failed.message.as_str()), ("ApplyFailed", "Flannel: no"));
    let left =
        AddonFacts::Applied { rollout: rollout(2, true), left: vec!["ConfigMap kube-system/coredns".to_owned()] };
    let all = reason(Some(vec![running, (Addon::CoreDns, left)]));
    assert_eq!((all.good, all.reason), (true, "Installed"));
    assert_eq!(
        all.message,
        "Pods available: kube-proxy 2/2, CoreDNS 2/2; left to the user: ConfigMap kube-system/coredns"
    );
    let none = with("addons: {coreDNS: {enabled: false}, kubeProxy: {enabled: false}}");
    assert_eq!(health(&none, Some(&BTreeMap::new())).reason, "NotRequired");
}
