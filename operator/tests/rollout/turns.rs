//! The order of restarts without a new manifest: etcd in place, kubelets and units.

use std::collections::BTreeMap;

use keyplane_core::agent_report::{NodeReport, WantedRestart};
use keyplane_core::observed::AgentFacts;
use keyplane_core::rollout::{Progress, rollout};
use keyplane_core::status;
use keyplane_crds::keys;
use kube::ResourceExt;

use super::common::{cluster, noon, settle};
use super::{NODES, THREE, World};

/// Reports as the node's agent, which has restarted etcd with this checksum.
fn agent(world: &mut World, node: &str, etcd_restart: Option<&str>) {
    let report = NodeReport { etcd_restart: etcd_restart.map(str::to_owned), ..NodeReport::default() };
    let facts = AgentFacts { report: Some(report), reported: Some(noon()), received: Some(noon()) };
    world.observed.agents.insert(node.to_owned(), facts);
}

/// Changes the restart checksum of etcd on these nodes, as a new etcd CA does.
fn change_etcd_checksum(world: &mut World, nodes: &[&str]) {
    for node in nodes {
        let secret = world.observed.secrets.get_mut(&format!("demo-{node}-pki")).unwrap();
        secret.annotations_mut().insert(keys::ETCD_RESTART_ANNOTATION.to_owned(), "new".to_owned());
    }
}

/// A change of the API servers' manifests.
fn with_flag(spec: &str) -> String {
    spec.replace("  nodes:", "  apiServer: {extraArgs: [{name: v, value: '4'}]}\n  nodes:")
}

/// The nodes whose agents must restart etcd.
fn nodes_to_restart_etcd(world: &World) -> Vec<&'static str> {
    let is_told = |node: &&str| {
        let config = &world.observed.config_maps[&format!("demo-{node}-config")];
        config.annotations().get(keys::ETCD_RESTART_ANNOTATION).is_some_and(|checksum| checksum == "new")
    };
    NODES.into_iter().filter(is_told).collect()
}

fn set_up(world: &mut World, node: &str, up: bool) {
    let facts = world.observed.target.etcd.as_mut().unwrap().as_mut().unwrap();
    facts.members.iter_mut().find(|member| member.name == node).unwrap().up = up;
}

#[test]
fn no_change_while_an_etcd_member_of_a_ready_node_is_down() {
    let mut world = World::up(THREE);
    set_up(&mut world, "cp3", false);
    let flag = with_flag(THREE);
    assert!(world.apply(&flag).is_empty());
    let Progress::UnderWay { message, .. } = rollout(&world.cluster, &world.observed).progress else { panic!() };
    assert!(message.contains("etcd on cp3 to be a healthy voter"), "{message}");
    set_up(&mut world, "cp3", true);
    assert_eq!(world.apply(&flag), ["cp1 kube-apiserver"]);
}

#[test]
fn agents_restart_etcd_in_sequence_without_a_new_manifest() {
    let mut world = World::up(THREE);
    for node in NODES {
        agent(&mut world, node, None);
    }
    change_etcd_checksum(&mut world, &NODES);
    assert!(world.apply(THREE).is_empty(), "no manifest is written");
    assert_eq!(nodes_to_restart_etcd(&world), ["cp1"]);
    let Progress::UnderWay { message, .. } = rollout(&world.cluster, &world.observed).progress else { panic!() };
    assert!(message.contains("the agent of cp1 to restart etcd"), "{message}");
    // Another change waits for the restart.
    let flag = with_flag(THREE);
    assert!(world.apply(&flag).is_empty());
    world.apply(THREE);
    // The agent's report alone is not enough.
    agent(&mut world, "cp1", Some("new"));
    set_up(&mut world, "cp1", false);
    world.apply(THREE);
    assert_eq!(nodes_to_restart_etcd(&world), ["cp1"]);
    set_up(&mut world, "cp1", true);
    // No node gets a permit while another member is down.
    set_up(&mut world, "cp3", false);
    world.apply(THREE);
    assert_eq!(nodes_to_restart_etcd(&world), ["cp1"]);
    let Progress::UnderWay { message, .. } = rollout(&world.cluster, &world.observed).progress else { panic!() };
    assert!(message.contains("etcd on cp3 to be a healthy voter"), "{message}");
    set_up(&mut world, "cp3", true);
    world.apply(THREE);
    assert_eq!(nodes_to_restart_etcd(&world), ["cp1", "cp2"]);
    agent(&mut world, "cp2", Some("new"));
    world.apply(THREE);
    agent(&mut world, "cp3", Some("new"));
    assert_eq!(nodes_to_restart_etcd(&world), NODES);
    assert_eq!(rollout(&world.cluster, &world.observed).progress, Progress::Done);
}

#[test]
fn without_agent_etcd_gets_a_new_manifest_that_an_agent_keeps() {
    let mut world = World::up(THREE);
    change_etcd_checksum(&mut world, &["cp1"]);
    assert_eq!(world.apply(THREE), ["cp1 etcd"]);
    assert!(world.written("cp1", "etcd").contains(keys::ETCD_RESTART_ANNOTATION));
    world.apply_files("cp1");
    agent(&mut world, "cp1", None);
    assert!(world.apply(THREE).is_empty());
    assert_eq!(nodes_to_restart_etcd(&world), [""; 0]);
    assert_eq!(rollout(&world.cluster, &world.observed).progress, Progress::Done);
}

/// Makes the node's agent request this restart.
fn request_restart(world: &mut World, node: &str, checksum: Option<&str>) {
    let restart =
        checksum.map(|checksum| WantedRestart { units: vec!["kubelet".to_owned()], mark: checksum.to_owned() });
    let report = NodeReport { restart, ..NodeReport::default() };
    let facts = AgentFacts { report: Some(report), reported: Some(noon()), received: Some(noon()) };
    world.observed.agents.insert(node.to_owned(), facts);
}

fn permits(world: &World) -> Vec<&str> {
    let permit = |node: &str| {
        world.observed.config_maps[&format!("demo-{node}-config")].annotations()[keys::RESTART_PERMIT_ANNOTATION]
            .as_str()
    };
    NODES.map(permit).to_vec()
}

#[test]
fn agents_restart_kubelets_in_sequence_without_other_changes() {
    let spec = format!("{THREE}nodeAgent: {{managementServer: 'https://management.example:6443'}}\n");
    let mut world = World::up(&spec);
    assert_eq!(permits(&world), ["", "", ""], "an agent restarts nothing without a permit");
    for node in NODES {
        request_restart(&mut world, node, Some("a"));
    }
    world.apply(&spec);
    assert_eq!(permits(&world), ["a", "", ""]);
    let flag = with_flag(&spec);
    assert!(world.apply(&flag).is_empty());
    let Progress::UnderWay { message, .. } = rollout(&world.cluster, &world.observed).progress else { panic!() };
    assert!(message.contains("the agent of cp1 to restart kubelet"), "{message}");
    world.apply(&spec);
    // The restart is done, but another node is not healthy.
    request_restart(&mut world, "cp1", None);
    world.target().nodes.as_mut().unwrap().insert("cp3".to_owned(), false);
    world.apply(&spec);
    assert_eq!(permits(&world), ["a", "", "a"], "a node that is down needs no permit");
    let Progress::UnderWay { message, .. } = rollout(&world.cluster, &world.observed).progress else { panic!() };
    assert!(message.contains("cp3 to be Ready"), "{message}");
    world.target().nodes.as_mut().unwrap().insert("cp3".to_owned(), true);
    set_up(&mut world, "cp3", false);
    world.apply(&spec);
    assert_eq!(permits(&world), ["a", "", "a"]);
    set_up(&mut world, "cp3", true);
    request_restart(&mut world, "cp3", None);
    world.apply(&spec);
    assert_eq!(permits(&world), ["a", "a", "a"]);
    request_restart(&mut world, "cp2", None);
    assert!(world.apply(&spec).is_empty());
    assert_eq!(rollout(&world.cluster, &world.observed).progress, Progress::Done);
    // The next restart is another one.
    request_restart(&mut world, "cp1", Some("b"));
    request_restart(&mut world, "cp2", Some("b"));
    world.apply(&spec);
    assert_eq!(permits(&world), ["b", "a", "a"]);
}

#[test]
fn revocation_permits_all_restarts_at_once() {
    let spec = format!("{THREE}nodeAgent: {{managementServer: 'https://management.example:6443'}}\n");
    let mut world = World::up(&spec);
    for node in NODES {
        request_restart(&mut world, node, Some("a"));
    }
    let mut annotations =
        BTreeMap::from([("keyplane.io/revoke-certificate-authorities".to_owned(), "leak".to_owned())]);
    world.cluster = cluster(&spec).with_annotations(&annotations);
    let status = status::report(&world.cluster, &world.observed, &[], None, noon());
    annotations.insert("keyplane.io/confirm-revocation".to_owned(), status.revocation.unwrap().confirm);
    world.cluster = cluster(&spec).with_annotations(&annotations);
    world.observed.target.available = Some(Err(("Unreachable".to_owned(), "no answer".to_owned())));
    world.observed.target.nodes = None;
    world.observed.target.static_pods = None;
    settle(&world.cluster, &mut world.observed);
    assert_eq!(permits(&world), ["a", "a", "a"]);
    for node in NODES {
        let config = &world.observed.config_maps[&format!("demo-{node}-config")];
        let checksum =
            &world.observed.secrets[&format!("demo-{node}-pki")].annotations()[keys::ETCD_RESTART_ANNOTATION];
        assert_eq!(config.annotations().get(keys::ETCD_RESTART_ANNOTATION), Some(checksum), "etcd on {node}");
    }
}
