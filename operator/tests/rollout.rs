//! The order of rollouts, and messages about nodes that others have changed.

// Clippy's exemption for tests does not cover helpers outside of `#[test]` functions.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;
#[path = "rollout/turns.rs"]
mod turns;

use std::collections::BTreeMap;

use common::{cluster, execute, noon, settle};
use k8s_openapi::api::core::v1::Pod;
use keyplane_core::etcd::Member;
use keyplane_core::model::Cluster;
use keyplane_core::observed::{EtcdFacts, Observed, StaticPod, TargetFacts};
use keyplane_core::pki::first_certificate;
use keyplane_core::plan::plan;
use keyplane_core::rollout::{Progress, rollout};
use keyplane_core::{objects, status};
use keyplane_crds::{ClusterSpecStatus, Condition, condition_of};
use kube::ResourceExt;
use serde_json::{Value, json};

const THREE: &str = "
kubernetesVersion: v1.36.4
controlPlaneEndpoint: {host: api.demo.example}
controlPlane:
  nodes:
    - {name: cp1, addresses: [10.0.0.11]}
    - {name: cp2, addresses: [10.0.0.12]}
    - {name: cp3, addresses: [10.0.0.13]}
";
const NODES: [&str; 3] = ["cp1", "cp2", "cp3"];

fn upgraded(spec: &str) -> String {
    spec.replace("v1.36.4", "v1.37.2")
}

/// A cluster and its nodes, which run the files that were last applied.
struct World {
    cluster: Cluster,
    observed: Observed,
}

impl World {
    /// All objects are written; no node has started.
    fn new(spec: &str) -> Self {
        let mut world = Self { cluster: cluster(spec), observed: Observed::default() };
        settle(&world.cluster, &mut world.observed);
        world
    }

    /// All nodes run with their current files, and Keyplane has observed them.
    fn up(spec: &str) -> Self {
        let mut world = Self::new(spec);
        for node in NODES.iter().filter(|node| world.config(node).is_some()).copied().collect::<Vec<_>>() {
            world.apply_files(node);
        }
        // Registered kubelets have their own certificates.
        settle(&world.cluster, &mut world.observed);
        world.report();
        world
    }

    fn config(&self, node: &str) -> Option<&BTreeMap<String, String>> {
        self.observed.config_maps.get(&format!("demo-{node}-config"))?.data.as_ref()
    }

    /// The written manifest of a component.
    fn written(&self, node: &str, component: &str) -> &str {
        &self.config(node).unwrap()[&format!("{component}.yaml")]
    }

    fn target(&mut self) -> &mut TargetFacts {
        let target = &mut self.observed.target;
        target.available = Some(Ok(()));
        target.nodes.get_or_insert_default();
        target.static_pods.get_or_insert_default();
        target
    }

    /// Applies the files to the node, and starts its static pods.
    fn apply_files(&mut self, node: &str) {
        for component in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            let manifest = self.written(node, component).to_owned();
            self.run(node, component, &manifest, true);
        }
        self.target().nodes.as_mut().unwrap().insert(node.to_owned(), true);
        self.join(node);
    }

    /// Makes the node's etcd member a voting member.
    fn join(&mut self, node: &str) {
        let number = u64::from(node.as_bytes()[2] - b'0');
        let facts = self.observed.target.etcd.take().and_then(Result::ok);
        let mut members = facts.map(|facts| facts.members).unwrap_or_default();
        members.retain(|member| member.id != number);
        members.push(Member {
            id: number,
            name: node.to_owned(),
            peer_urls: vec![format!("https://10.0.0.1{number}:2380")],
            learner: false,
            up: true,
            trouble: None,
        });
        self.observed.target.etcd = Some(Ok(EtcdFacts { members, confirmed: true, waits: None }));
    }

    /// Runs this manifest on the node.
    fn run(&mut self, node: &str, component: &str, manifest: &str, ready: bool) {
        let mut pod: Value = serde_saphyr::from_str(manifest).unwrap();
        pod["status"] = json!({"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]});
        let pod = StaticPod::from(&serde_json::from_value::<Pod>(pod).unwrap());
        let place = (node.to_owned(), component.to_owned());
        self.target().static_pods.as_mut().unwrap().insert(place, pod);
    }

    /// Changes the spec, executes the plan and reports. Returns the written manifests.
    fn apply(&mut self, spec: &str) -> Vec<String> {
        self.cluster = cluster(spec);
        self.step()
    }

    fn step(&mut self) -> Vec<String> {
        let before: BTreeMap<_, _> = NODES.map(|node| (node, self.config(node).cloned())).into();
        for step in plan(&self.cluster, &self.observed, noon()).steps {
            execute(step, &self.cluster, &mut self.observed);
        }
        self.record();
        let mut changed = vec![];
        for (node, before) in before {
            for (key, text) in self.config(node).into_iter().flatten() {
                if text.contains("kind: Pod") && before.as_ref().and_then(|before| before.get(key)) != Some(text) {
                    changed.push(format!("{node} {}", key.trim_end_matches(".yaml")));
                }
            }
        }
        changed
    }

    /// Only the part of a report that the next rollout reads: reading all certificates is slow.
    fn record(&mut self) {
        let now = rollout(&self.cluster, &self.observed);
        self.observed.status.nodes = now.nodes;
        self.observed.status.kubernetes_version = now.kubernetes_version;
    }

    fn report(&mut self) -> ClusterSpecStatus {
        self.observed.status = status::report(&self.cluster, &self.observed, &[], None, noon());
        self.observed.status.clone()
    }

    fn condition(&mut self, name: &str) -> Condition {
        condition_of(&self.report().conditions, name).unwrap().clone()
    }

    fn unreachable(&mut self) {
        self.observed.target = TargetFacts {
            available: Some(Err(("Unreachable".to_owned(), "no answer".to_owned()))),
            ..TargetFacts::default()
        };
    }
}

#[test]
fn new_cluster_is_written_for_all_nodes_at_once() {
    let mut world = World::new(THREE);
    let written = world.apply(&upgraded(THREE));
    assert_eq!(written.len(), 9, "etcd is the same: {written:?}");
    assert!(world.written("cp3", "kube-apiserver").contains("kube-apiserver:v1.37.2"));
    assert_eq!(rollout(&world.cluster, &world.observed).addons.to_string(), "v1.37.2");
}

#[test]
fn upgrade_proceeds_step_by_step_in_kubeadm_order() {
    let mut world = World::up(THREE);
    assert_eq!(world.report().kubernetes_version.as_deref(), Some("v1.36.4"));
    assert_eq!(world.condition("RolledOut").status, "True");
    // etcd's image is the same for both versions; an additional flag makes it a step, too.
    let wanted =
        format!("{}etcd: {{stacked: {{extraArgs: [{{name: heartbeat-interval, value: '200'}}]}}}}\n", upgraded(THREE));
    let mut written = world.apply(&wanted);
    for node in NODES {
        for component in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            assert_eq!(written, [format!("{node} {component}")]);
            // Written, but not running: no other change.
            assert!(world.step().is_empty());
            let Progress::UnderWay { reason, message } = rollout(&world.cluster, &world.observed).progress else {
                panic!("done before {node} {component}");
            };
            assert_eq!(reason, "WaitingForNodeFiles");
            assert!(
                message.contains(&format!("copy the files of ConfigMap demo-{node}-config to the node")),
                "{message}"
            );
            // Running, but not Ready: no other change.
            let manifest = world.written(node, component).to_owned();
            world.run(node, component, &manifest, false);
            assert!(world.step().is_empty());
            // Some versions change with the first node, others with the last one.
            let rollout = rollout(&world.cluster, &world.observed);
            let after_first = if node == "cp1" { "v1.36.4" } else { "v1.37.2" };
            assert_eq!(rollout.configuration.to_string(), after_first, "{node} {component}");
            let reported = &world.config("cp3").unwrap()["kubeadm-config.yaml"];
            assert!(reported.contains(&format!("kubernetesVersion: {after_first}")), "{reported}");
            assert_eq!(rollout.addons.to_string(), "v1.36.4", "{node} {component}");
            assert_eq!(rollout.kubernetes_version.as_deref(), Some("v1.36.4"));
            world.run(node, component, &manifest, true);
            written = world.step();
        }
    }
    assert!(written.is_empty());
    assert_eq!(rollout(&world.cluster, &world.observed).addons.to_string(), "v1.37.2");
    assert_eq!(world.report().kubernetes_version.as_deref(), Some("v1.37.2"));
    assert_eq!(world.condition("RolledOut").status, "True");
    assert_eq!(world.condition("Ready").status, "True");
}

#[test]
fn progress_names_the_step_the_versions_and_the_wait() {
    let mut world = World::up(THREE);
    world.apply(&upgraded(THREE));
    let waiting = world.condition("RolledOut").message;
    assert_eq!(
        waiting,
        "3 of 12 steps are done, next is cp1: kube-controller-manager v1.36.4 -> v1.37.2; waits for cp1 to run \
         kube-apiserver with its current manifest: copy the files of ConfigMap demo-cp1-config to the node, or find out why it does not start"
    );
    let ready = world.condition("Ready");
    assert_eq!((ready.status.as_str(), ready.message), ("False", waiting));
}

#[test]
fn unreachable_target_stops_the_rollout() {
    let mut world = World::up(THREE);
    world.unreachable();
    assert!(world.apply(&upgraded(THREE)).is_empty());
    assert_eq!(world.condition("RolledOut").reason, "WaitingForTarget");
    // A Keyplane that has just started has observed nothing either.
    world.observed.target = TargetFacts::default();
    assert!(world.step().is_empty());
    // A user overrides the order.
    world.observed.at_once = true;
    assert_eq!(world.step().len(), 9);
}

#[test]
fn bad_flag_reaches_one_node_and_can_be_reverted() {
    let bad = THREE.replace("  nodes:", "  apiServer: {extraArgs: [{name: nonsense, value: 'yes'}]}\n  nodes:");
    let mut world = World::up(THREE);
    assert_eq!(world.apply(&bad), ["cp1 kube-apiserver"]);
    let manifest = world.written("cp1", "kube-apiserver").to_owned();
    world.run("cp1", "kube-apiserver", &manifest, false);
    assert!(world.step().is_empty());
    // A manifest that was never observed to run is replaced even if the target cluster does not answer.
    world.unreachable();
    let better = bad.replace("nonsense", "v").replace("'yes'", "'2'");
    assert_eq!(world.apply(&better), ["cp1 kube-apiserver"]);
    assert_eq!(world.apply(THREE), ["cp1 kube-apiserver"]);
    // The node still has the bad manifest. This is expected, because the good one is written already.
    world.apply_files("cp2");
    world.apply_files("cp3");
    world.run("cp1", "kube-apiserver", &manifest, false);
    assert_eq!(world.condition("RolledOut").reason, "WaitingForNodeFiles");
    assert_eq!(world.condition("NodesInSync").status, "True");
    world.apply_files("cp1");
    assert!(world.step().is_empty());
    assert_eq!(world.condition("RolledOut").status, "True");
}

#[test]
fn no_change_while_another_node_is_down() {
    let mut world = World::up(THREE);
    world.target().nodes.as_mut().unwrap().insert("cp3".to_owned(), false);
    assert!(world.apply(&upgraded(THREE)).is_empty());
    let condition = world.condition("RolledOut");
    assert!(condition.reason == "WaitingForNode" && condition.message.contains("the Node cp3 to be Ready"));
    world.apply_files("cp3");
    let manifest = world.written("cp3", "etcd").to_owned();
    world.run("cp3", "etcd", &manifest, false);
    assert!(world.step().is_empty());
    assert!(world.condition("RolledOut").message.contains("etcd on cp3 to be Ready"));
    world.apply_files("cp3");
    assert_eq!(world.step(), ["cp1 kube-apiserver"]);
}

#[test]
fn does_not_wait_for_a_node_that_never_started() {
    let mut world = World::new(THREE);
    world.apply_files("cp1");
    world.report();
    let written = world.apply(&upgraded(THREE));
    let of = |node: &str| written.iter().filter(|name| name.starts_with(node)).count();
    assert_eq!((of("cp1"), of("cp2"), of("cp3")), (1, 3, 3), "{written:?}");
    world.apply_files("cp1");
    assert_eq!(world.step(), ["cp1 kube-controller-manager"]);
}

#[test]
fn losing_a_node_does_not_revert_a_finished_rollout() {
    let mut world = World::up(THREE);
    world.target().nodes.as_mut().unwrap().insert("cp3".to_owned(), false);
    world.target().static_pods.as_mut().unwrap().retain(|(node, _), _| node != "cp3");
    assert_eq!(world.condition("RolledOut").status, "True");
    assert_eq!(world.report().nodes.len(), 3);
    world.unreachable();
    assert_eq!(world.report().kubernetes_version.as_deref(), Some("v1.36.4"));
}

/// Leaves the node's manifests as `kubeadm upgrade` of that version does.
fn upgrade_with_kubeadm(world: &mut World, node: &str) {
    let upgraded_world = World::new(&upgraded(THREE));
    for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        // kubeadm does not write this flag.
        let manifest =
            upgraded_world.written(node, component).lines().filter(|line| !line.contains("--kubelet-certificate-auth"));
        world.run(node, component, &manifest.collect::<Vec<_>>().join("\n"), true);
    }
}

#[test]
fn upgrade_with_kubeadm_is_reported_and_can_be_adopted() {
    let mut world = World::up(THREE);
    upgrade_with_kubeadm(&mut world, "cp1");
    world.target().configured_ahead = Some(cluster(&upgraded(THREE)).version);
    assert!(world.step().is_empty());
    let condition = world.condition("NodesInSync");
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "VersionDiffers"));
    for words in [
        "cp1: kube-apiserver, kube-controller-manager, kube-scheduler run v1.37.2 and the spec says v1.36.4",
        "set spec.kubernetesVersion to v1.37.2",
        "copy the files of ConfigMap demo-cp1-config",
        "kube-system/kubeadm-config has version v1.37.2",
    ] {
        assert!(condition.message.contains(words), "{words} in {}", condition.message);
    }
    assert_eq!(world.condition("Ready").status, "True", "it is only reported");
    // Adopted all at once for that node, so that applying the files never downgrades it.
    let written = world.apply(&upgraded(THREE));
    assert_eq!(written, ["cp1 kube-apiserver", "cp1 kube-controller-manager", "cp1 kube-scheduler"]);
    world.apply_files("cp1");
    assert_eq!(world.step(), ["cp2 kube-apiserver"]);
    assert_eq!(world.condition("NodesInSync").status, "True");
}

#[test]
fn reports_a_manifest_changed_on_the_node() {
    let mut world = World::up(THREE);
    let changed = world.written("cp2", "kube-scheduler").replace("--leader-elect=true", "--leader-elect=false");
    world.run("cp2", "kube-scheduler", &changed, true);
    let condition = world.condition("NodesInSync");
    assert_eq!(condition.reason, "ManifestDiffers");
    assert!(condition.message.starts_with("cp2: kube-scheduler"), "{}", condition.message);
    assert_eq!(world.condition("RolledOut").status, "True");
    // A pending change of Keyplane itself is not a difference.
    let mut world = World::up(THREE);
    world.apply(&upgraded(THREE));
    assert_eq!(world.condition("NodesInSync").status, "True");
}

#[test]
fn reports_a_foreign_certificate_with_its_serial() {
    let mut world = World::up(THREE);
    let of = |world: &World, node: &str| {
        let secret = &world.observed.secrets[&format!("demo-{node}-pki")];
        first_certificate("apiserver", objects::text(secret, "apiserver.crt").unwrap()).unwrap()
    };
    let own = of(&world, "cp1");
    world.target().serving.insert("cp1".to_owned(), own);
    assert_eq!(world.condition("NodesInSync").status, "True");
    // Another certificate of the same CA, as kubeadm issues it.
    let renewed = of(&world, "cp2");
    world.target().serving.insert("cp1".to_owned(), renewed.clone());
    let condition = world.condition("NodesInSync");
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "CertificateDiffers"));
    for words in ["cp1: ", "kubeadm certs renew", &renewed.serial, "Secret demo-cp1-pki"] {
        assert!(condition.message.contains(words), "{words} in {}", condition.message);
    }
    let strange = of(&World::new(THREE), "cp1");
    world.target().serving.insert("cp1".to_owned(), strange);
    assert!(world.condition("NodesInSync").message.contains("another CA"));
    world.unreachable();
    assert_eq!(world.condition("NodesInSync").status, "Unknown");
}

#[test]
fn condition_names_a_kubelet_of_another_version() {
    let mut world = World::up(THREE);
    world.target().kubelets = [("cp1", "v1.36.4"), ("worker1", "v1.35.9")].map(|(a, b)| (a.into(), b.into())).into();
    let condition = world.condition("KubeletVersionsMatch");
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "KubeletOlder"));
    assert!(condition.message.contains("kubelet v1.35.9 on worker1"), "{}", condition.message);
    assert_eq!(world.condition("Ready").status, "True");
}

#[test]
fn unchanged_state_writes_nothing() {
    let mut world = World::up(THREE);
    let before = world.report();
    assert!(plan(&world.cluster, &world.observed, noon()).steps.is_empty());
    assert_eq!(world.report(), before);
    assert!(world.observed.config_maps.values().all(|config_map| config_map.name_any().starts_with("demo-")));
}

#[test]
fn revocation_writes_at_once_and_keeps_the_upgrade_order() {
    let mut world = World::up(THREE);
    let mut annotations = BTreeMap::new();
    let mut annotate = |world: &mut World, key: &str, value: &str| {
        annotations.insert(format!("keyplane.io/{key}"), value.to_owned());
        world.cluster = cluster(&upgraded(THREE)).with_annotations(&annotations);
    };
    annotate(&mut world, "revoke-certificate-authorities", "leak");
    settle(&world.cluster, &mut world.observed);
    let status = status::report(&world.cluster, &world.observed, &[], None, noon());
    let images = |world: &World| NODES.map(|node| world.written(node, "kube-apiserver").contains("v1.37.2"));
    let upgrading = images(&world);
    assert_eq!(upgrading[1..], [false, false]);
    annotate(&mut world, "confirm-revocation", &status.revocation.unwrap().confirm);
    // After the first file, no API server answers.
    world.observed.target.available = Some(Err(("Unreachable".to_owned(), "no answer".to_owned())));
    world.observed.target.nodes = None;
    world.observed.target.static_pods = None;
    settle(&world.cluster, &mut world.observed);
    for node in NODES {
        for component in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            let annotation = format!("keyplane.io/restart-checksum.{component}");
            let value = &world.observed.secrets[&format!("demo-{node}-pki")].annotations()[&annotation];
            assert!(world.written(node, component).contains(value.as_str()), "{component} on {node}");
        }
    }
    assert_eq!(images(&world), upgrading);
    assert!(matches!(rollout(&world.cluster, &world.observed).progress, Progress::UnderWay { .. }));
}
