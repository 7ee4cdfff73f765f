//! Whose turn it is to start something anew that is no new manifest: etcd in its place, kubelets and units.

use std::collections::BTreeMap;

use keyplane_core::agent_report::{NodeReport, WantedRestart};
use keyplane_core::observed::AgentFacts;
use keyplane_core::plan::status;
use keyplane_core::rollout::{Progress, rollout};
use keyplane_crds::keys;
use kube::ResourceExt;

use super::common::{cluster, noon, settle};
use super::{NODES, THREE, World};

/// The machine's agent reports, and has started etcd anew for this.
fn agent(world: &mut World, node: &str, etcd_restart: Option<&str>) {
    let report = NodeReport { etcd_restart: etcd_restart.map(str::to_owned), ..NodeReport::default() };
    let facts = AgentFacts { report: Some(report), reported: Some(noon()), heard: Some(noon()) };
    world.observed.agents.insert(node.to_owned(), facts);
}

/// The authority of etcd on these machines is another one.
fn mark_etcd(world: &mut World, nodes: &[&str]) {
    for node in nodes {
        let secret = world.observed.secrets.get_mut(&format!("demo-{node}-pki")).unwrap();
        secret.annotations_mut().insert(keys::ETCD_RESTART_ANNOTATION.to_owned(), "new".to_owned());
    }
}

/// A change of the API servers' manifests.
fn with_flag(spec: &str) -> String {
    spec.replace("  nodes:", "  apiServer: {extraArgs: [{name: v, value: '4'}]}\n  nodes:")
}

/// The machines whose agents are told to start etcd anew.
fn told(world: &World) -> Vec<&'static str> {
    let is_told = |node: &&str| {
        let config = &world.observed.config_maps[&format!("demo-{node}-config")];
        config.annotations().get(keys::ETCD_RESTART_ANNOTATION).is_some_and(|mark| mark == "new")
    };
    NODES.into_iter().filter(is_told).collect()
}

fn set_up(world: &mut World, node: &str, up: bool) {
    let facts = world.observed.target.etcd.as_mut().unwrap().as_mut().unwrap();
    facts.members.iter_mut().find(|member| member.name == node).unwrap().up = up;
}

#[test]
fn nothing_is_changed_elsewhere_while_a_member_of_etcd_is_down_whose_node_still_seems_ready() {
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
fn agents_start_etcd_anew_one_after_the_other_and_its_pod_stays_as_it_is() {
    let mut world = World::up(THREE);
    for node in NODES {
        agent(&mut world, node, None);
    }
    mark_etcd(&mut world, &NODES);
    assert!(world.apply(THREE).is_empty(), "no manifest is written");
    assert_eq!(told(&world), ["cp1"]);
    let Progress::UnderWay { message, .. } = rollout(&world.cluster, &world.observed).progress else { panic!() };
    assert!(message.contains("the agent of cp1 to start etcd anew"), "{message}");
    // Another change waits for it.
    let flag = with_flag(THREE);
    assert!(world.apply(&flag).is_empty());
    world.apply(THREE);
    // The agent's word alone is not enough.
    agent(&mut world, "cp1", Some("new"));
    set_up(&mut world, "cp1", false);
    world.apply(THREE);
    assert_eq!(told(&world), ["cp1"]);
    set_up(&mut world, "cp1", true);
    // Nor is it anybody's turn while another member is down.
    set_up(&mut world, "cp3", false);
    world.apply(THREE);
    assert_eq!(told(&world), ["cp1"]);
    let Progress::UnderWay { message, .. } = rollout(&world.cluster, &world.observed).progress else { panic!() };
    assert!(message.contains("etcd on cp3 to be a healthy voter"), "{message}");
    set_up(&mut world, "cp3", true);
    world.apply(THREE);
    assert_eq!(told(&world), ["cp1", "cp2"]);
    agent(&mut world, "cp2", Some("new"));
    world.apply(THREE);
    agent(&mut world, "cp3", Some("new"));
    assert_eq!(told(&world), NODES);
    assert_eq!(rollout(&world.cluster, &world.observed).progress, Progress::Done);
}

#[test]
fn without_an_agent_etcd_gets_another_manifest_which_stays_when_an_agent_comes() {
    let mut world = World::up(THREE);
    mark_etcd(&mut world, &["cp1"]);
    assert_eq!(world.apply(THREE), ["cp1 etcd"]);
    assert!(world.written("cp1", "etcd").contains(keys::ETCD_RESTART_ANNOTATION));
    world.carry("cp1");
    agent(&mut world, "cp1", None);
    assert!(world.apply(THREE).is_empty());
    assert_eq!(told(&world), [""; 0]);
    assert_eq!(rollout(&world.cluster, &world.observed).progress, Progress::Done);
}

/// The machine's agent would restart this.
fn wants_restart(world: &mut World, node: &str, mark: Option<&str>) {
    let restart = mark.map(|mark| WantedRestart { units: vec!["kubelet".to_owned()], mark: mark.to_owned() });
    let report = NodeReport { restart, ..NodeReport::default() };
    let facts = AgentFacts { report: Some(report), reported: Some(noon()), heard: Some(noon()) };
    world.observed.agents.insert(node.to_owned(), facts);
}

fn turns(world: &World) -> Vec<&str> {
    let turn = |node: &str| {
        world.observed.config_maps[&format!("demo-{node}-config")].annotations()[keys::RESTART_PERMIT_ANNOTATION]
            .as_str()
    };
    NODES.map(turn).to_vec()
}

#[test]
fn agents_restart_kubelets_one_machine_after_the_other_and_nothing_else_changes_meanwhile() {
    let spec = format!("{THREE}nodeAgent: {{managementServer: 'https://management.example:6443'}}\n");
    let mut world = World::up(&spec);
    assert_eq!(turns(&world), ["", "", ""], "an agent restarts nothing unless it is told to");
    for node in NODES {
        wants_restart(&mut world, node, Some("a"));
    }
    world.apply(&spec);
    assert_eq!(turns(&world), ["a", "", ""]);
    let flag = with_flag(&spec);
    assert!(world.apply(&flag).is_empty());
    let Progress::UnderWay { message, .. } = rollout(&world.cluster, &world.observed).progress else { panic!() };
    assert!(message.contains("the agent of cp1 to restart kubelet"), "{message}");
    world.apply(&spec);
    // Done; but a neighbour is not well.
    wants_restart(&mut world, "cp1", None);
    world.target().nodes.as_mut().unwrap().insert("cp3".to_owned(), false);
    world.apply(&spec);
    assert_eq!(turns(&world), ["a", "", "a"], "what is down anyway needs no turn");
    let Progress::UnderWay { message, .. } = rollout(&world.cluster, &world.observed).progress else { panic!() };
    assert!(message.contains("cp3 to be Ready"), "{message}");
    world.target().nodes.as_mut().unwrap().insert("cp3".to_owned(), true);
    set_up(&mut world, "cp3", false);
    world.apply(&spec);
    assert_eq!(turns(&world), ["a", "", "a"]);
    set_up(&mut world, "cp3", true);
    wants_restart(&mut world, "cp3", None);
    world.apply(&spec);
    assert_eq!(turns(&world), ["a", "a", "a"]);
    wants_restart(&mut world, "cp2", None);
    assert!(world.apply(&spec).is_empty());
    assert_eq!(rollout(&world.cluster, &world.observed).progress, Progress::Done);
    // The next one is another one.
    wants_restart(&mut world, "cp1", Some("b"));
    wants_restart(&mut world, "cp2", Some("b"));
    world.apply(&spec);
    assert_eq!(turns(&world), ["b", "a", "a"]);
}

#[test]
fn agents_wait_for_nobody_while_something_is_revoked() {
    let spec = format!("{THREE}nodeAgent: {{managementServer: 'https://management.example:6443'}}\n");
    let mut world = World::up(&spec);
    for node in NODES {
        wants_restart(&mut world, node, Some("a"));
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
    assert_eq!(turns(&world), ["a", "a", "a"]);
    for node in NODES {
        let config = &world.observed.config_maps[&format!("demo-{node}-config")];
        let mark = &world.observed.secrets[&format!("demo-{node}-pki")].annotations()[keys::ETCD_RESTART_ANNOTATION];
        assert_eq!(config.annotations().get(keys::ETCD_RESTART_ANNOTATION), Some(mark), "etcd on {node}");
    }
}
