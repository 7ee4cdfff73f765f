//! Reports of agents, and their evaluation.

// Clippy's exemption for tests does not cover helpers outside of `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod common;

use common::{THREE, noon, settled};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_core::agent_access::check_applied;
use keyplane_core::agent_access::machines;
use keyplane_core::agent_access::machines::sync_problems;
use keyplane_core::agent_report::NodeReport;
use keyplane_core::model::Cluster;
use keyplane_core::names::{node_config_map, node_secret};
use keyplane_core::objects::trust_checksum;
use keyplane_core::observed::{AgentFacts, Observed};
use keyplane_crds::keys;
use kube::ResourceExt;

fn checksum(object: &impl ResourceExt) -> String {
    object.annotations()[keys::CONTENT_CHECKSUM_ANNOTATION].clone()
}

/// The agent of a node that has applied all its files.
fn agent(cluster: &Cluster, observed: &Observed, node: &str) -> AgentFacts {
    let report = NodeReport {
        version: "1".to_owned(),
        secret: observed.secrets.get(&node_secret(&cluster.name, node)).map(checksum),
        config: observed.config_maps.get(&node_config_map(&cluster.name, node)).map(checksum),
        ..NodeReport::default()
    };
    AgentFacts { report: Some(report), reported: Some(noon()), received: Some(noon()) }
}

fn later(seconds: i64) -> Timestamp {
    noon() + SignedDuration::from_secs(seconds)
}

type Change = fn(&mut AgentFacts);

#[test]
fn node_holds_only_what_its_agent_reports() {
    let (cluster, mut observed) = settled(THREE);
    observed.agents.insert("cp1".to_owned(), agent(&cluster, &observed, "cp1"));
    assert_eq!(check_applied(&cluster, &observed, "cp1", later(300)), Ok(()));
    let changes: [(Change, &str); 5] = [
        (
            |agent| agent.report.as_mut().unwrap().secret = Some("old".to_owned()),
            "has not applied the current version of Secret demo-cp1-pki",
        ),
        (
            |agent| agent.report.as_mut().unwrap().config = None,
            "has not applied the current version of ConfigMap demo-cp1-config",
        ),
        (|agent| agent.report.as_mut().unwrap().errors = vec!["disk full".to_owned()], "its agent reports: disk full"),
        (|agent| agent.received = Some(later(-1)), "has not reported since 2026-11-23T11:59:59Z"),
        (|agent| agent.reported = Some(later(-3600)), "its clock is more than five minutes behind"),
    ];
    for (change, words) in changes {
        let mut agent = agent(&cluster, &observed, "cp1");
        change(&mut agent);
        observed.agents.insert("cp1".to_owned(), agent);
        let why = check_applied(&cluster, &observed, "cp1", later(300)).unwrap_err();
        assert!(why.starts_with("cp1: ") && why.contains(words), "{why}");
        let reported = sync_problems(&cluster, &observed, later(300));
        assert!(reported.len() == 1 && reported[0].1 == why, "{reported:?}");
    }
}

#[test]
fn without_agent_each_object_is_confirmed_once_per_content() {
    let (cluster, mut observed) = settled(THREE);
    let acknowledge = |observed: &mut Observed, config_too: bool| {
        let secret = observed.secrets.get_mut("demo-cp2-pki").unwrap();
        let now = checksum(secret);
        secret.annotations_mut().insert(keys::APPLIED_CHECKSUM_ANNOTATION.to_owned(), now);
        if config_too {
            let config = observed.config_maps.get_mut("demo-cp2-config").unwrap();
            let now = checksum(config);
            config.annotations_mut().insert(keys::APPLIED_CHECKSUM_ANNOTATION.to_owned(), now);
        }
    };
    let why = check_applied(&cluster, &observed, "cp2", noon()).unwrap_err();
    assert!(why.contains("kubectl annotate --overwrite secret demo-cp2-pki keyplane.io/applied-checksum="), "{why}");
    // A user who has never confirmed anything gets no message.
    assert_eq!(sync_problems(&cluster, &observed, noon()), []);
    acknowledge(&mut observed, false);
    let why = check_applied(&cluster, &observed, "cp2", noon()).unwrap_err();
    assert!(why.contains("copy the files of ConfigMap demo-cp2-config"), "{why}");
    acknowledge(&mut observed, true);
    assert_eq!(check_applied(&cluster, &observed, "cp2", noon()), Ok(()));
    let secret = observed.secrets.get_mut("demo-cp2-pki").unwrap();
    secret.annotations_mut().insert(keys::CONTENT_CHECKSUM_ANNOTATION.to_owned(), "newer".to_owned());
    assert!(check_applied(&cluster, &observed, "cp2", noon()).is_err());
    let reported = sync_problems(&cluster, &observed, noon());
    assert!(reported.len() == 1 && reported[0].0 == "NotApplied", "{reported:?}");
}

#[test]
fn worker_with_an_old_trust_bundle_does_not_count() {
    let (cluster, mut observed) = settled(THREE);
    let bundle = observed.config_maps["demo-ca-bundle"].data.as_ref().unwrap()["ca.crt"].clone();
    let mut config = observed.config_maps["demo-cp1-config"].metadata.clone();
    let annotations = config.annotations.as_mut().unwrap();
    annotations.insert(keys::TRUST_CHECKSUM_ANNOTATION.to_owned(), trust_checksum("old"));
    annotations
        .insert(keys::APPLIED_CHECKSUM_ANNOTATION.to_owned(), annotations[keys::CONTENT_CHECKSUM_ANNOTATION].clone());
    observed.workers.insert("w1".to_owned(), config);
    assert!(machines(&cluster, &observed).contains("w1"));
    let why = check_applied(&cluster, &observed, "w1", noon()).unwrap_err();
    assert!(why.contains("demo-w1-config does not contain the current trust bundle yet"), "{why}");
    let annotations = observed.workers.get_mut("w1").unwrap().annotations.as_mut().unwrap();
    annotations.insert(keys::TRUST_CHECKSUM_ANNOTATION.to_owned(), trust_checksum(&bundle));
    assert_eq!(check_applied(&cluster, &observed, "w1", noon()), Ok(()));
    assert!(check_applied(&cluster, &observed, "nobody", noon()).unwrap_err().contains("not written yet"));
}

#[test]
fn agent_has_a_minute_to_apply_files() {
    let (cluster, mut observed) = settled(THREE);
    let mut old = agent(&cluster, &observed, "cp1");
    old.report.as_mut().unwrap().secret = Some("old".to_owned());
    observed.agents.insert("cp1".to_owned(), old);
    let secret = observed.secrets.get_mut("demo-cp1-pki").unwrap();
    let entry = serde_json::json!([{"manager": "keyplane", "time": noon().to_string()}]);
    secret.metadata.managed_fields = serde_json::from_value(entry).unwrap();
    assert!(check_applied(&cluster, &observed, "cp1", later(60)).is_err());
    assert_eq!(sync_problems(&cluster, &observed, later(60)), []);
    assert_eq!(sync_problems(&cluster, &observed, later(61))[0].0, "NotApplied");
}
