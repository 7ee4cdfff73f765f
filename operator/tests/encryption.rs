//! Encryption keys from creation to removal: the plan, executed in memory.

// Clippy's exemption for tests does not cover helpers outside of `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::{HARD_WAY, SMALL, THREE, cluster, execute, noon, settle, settle_at, settled, text};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_core::encryption::{Facts, Reencryption, configuration_hash, keys_in};
use keyplane_core::model::Cluster;
use keyplane_core::observed::Observed;
use keyplane_core::plan::{Step, encryption_use, encryption_work, plan};
use keyplane_core::status;
use keyplane_crds::{ClusterSpecStatus, RotationPhase, condition_of};

const FILE: &str = "encryption-config.yaml";

fn encrypted(spec: &str) -> String {
    format!("{spec}encryptionAtRest: {{}}\n")
}

fn after(minutes: i64) -> Timestamp {
    noon() + SignedDuration::from_mins(minutes)
}

fn stage(observed: &Observed) -> &str {
    &observed.secrets["demo-encryption"].metadata.annotations.as_ref().unwrap()["keyplane.io/rotation-stage"]
}

fn manifest<'a>(observed: &'a Observed, node: &str) -> &'a str {
    &observed.config_maps[&format!("demo-{node}-config")].data.as_ref().unwrap()["kube-apiserver.yaml"]
}

/// The target cluster, after every API server has loaded its files and every object is re-encrypted.
fn catch_up(cluster: &Cluster, observed: &mut Observed) {
    let loaded = cluster.nodes.iter().map(|node| {
        let file = text(observed, &format!("demo-{}-pki", node.name), FILE);
        (node.name.clone(), Ok(configuration_hash(&file)))
    });
    let mut facts = Facts { configurations: loaded.collect(), reencryption: None };
    if let Some(work) = encryption_work(cluster, observed) {
        let progress = keyplane_core::encryption::Progress { done: work.resources, ..Default::default() };
        facts.reencryption = Some(Reencryption { since: work.since, progress, trouble: None });
    }
    observed.target.encryption = Some(facts);
}

/// Runs all stages, 11 minutes each, and returns their names.
fn run(cluster: &Cluster, observed: &mut Observed) -> Vec<String> {
    let mut stages = vec![];
    for minutes in (11..120).step_by(11) {
        settle_at(after(minutes), cluster, observed);
        catch_up(cluster, observed);
        stages.push(stage(observed).to_owned());
    }
    stages.dedup();
    stages
}

fn report(cluster: &Cluster, observed: &Observed) -> ClusterSpecStatus {
    report_at(noon(), cluster, observed)
}

fn report_at(now: Timestamp, cluster: &Cluster, observed: &Observed) -> ClusterSpecStatus {
    let cluster = cluster.clone().with_encryption(encryption_use(cluster, observed));
    let blockers = plan(&cluster, observed, now).blockers;
    status::report(&cluster, observed, &blockers, None, now)
}

fn condition(cluster: &Cluster, observed: &Observed) -> Option<(String, String, String)> {
    let status = report(cluster, observed);
    let condition = condition_of(&status.conditions, "EncryptedAtRest")?;
    Some((condition.status.clone(), condition.reason.clone(), condition.message.clone()))
}

#[test]
fn new_cluster_has_a_key_on_every_api_server() {
    let (cluster, observed) = settled(&encrypted(THREE));
    let keys = keys_in(&text(&observed, "demo-cp1-pki", FILE));
    assert_eq!(keys, BTreeMap::from([("key-1".to_owned(), text(&observed, "demo-encryption", "key-1"))]));
    assert_eq!(keys["key-1"].len(), 44, "32 bytes as base64");
    for node in ["cp1", "cp2", "cp3"] {
        let file = text(&observed, &format!("demo-{node}-pki"), FILE);
        assert_eq!(keys_in(&file), keys);
        assert!(!file.contains("identity"), "{file}");
        let index = text(&observed, &format!("demo-{node}-pki"), "index.json");
        assert!(index.contains(r#""path":"/etc/kubernetes/encryption/config.yaml","mode":"0600""#), "{index}");
        let manifest = manifest(&observed, node);
        for part in [
            "--encryption-provider-config=/etc/kubernetes/encryption/config.yaml",
            "--encryption-provider-config-automatic-reload=true",
            "mountPath: /etc/kubernetes/encryption\n",
        ] {
            assert!(manifest.contains(part), "{manifest}");
        }
        let configuration = &observed.config_maps[&format!("demo-{node}-config")].data.as_ref().unwrap();
        assert!(configuration["kubeadm-config.yaml"].contains("encryption-provider-config"));
        for text in configuration.values() {
            assert!(!text.contains(&keys["key-1"]), "a key in a ConfigMap");
        }
    }
    let (holds, reason, message) = condition(&cluster, &observed).unwrap();
    assert_eq!((holds.as_str(), reason.as_str()), ("True", "Encrypted"));
    assert_eq!(message, "secrets are encrypted with key-1 (secretbox)");
    assert_eq!(report(&cluster, &observed).rotations, []);
}

#[test]
fn units_have_the_file_at_the_path_of_the_hard_way() {
    let (_, observed) = settled(&encrypted(HARD_WAY));
    let index = text(&observed, "demo-server-pki", "index.json");
    assert!(index.contains("/var/lib/kubernetes/encryption/config.yaml"), "{index}");
    let unit = &observed.config_maps["demo-server-config"].data.as_ref().unwrap()["kube-apiserver.service"];
    assert!(unit.contains("--encryption-provider-config=/var/lib/kubernetes/encryption/config.yaml"), "{unit}");
    // A worker node has no API server.
    let cluster = common::cluster_with_pool(&encrypted(HARD_WAY), common::WORKERS);
    let mut observed = Observed::default();
    settle(&cluster, &mut observed);
    assert!(!observed.secrets["demo-node-0-pki"].data.as_ref().unwrap().contains_key(FILE));
}

#[test]
fn cluster_without_encryption_has_no_key_or_file() {
    let (cluster, observed) = settled(SMALL);
    assert!(!observed.secrets.contains_key("demo-encryption"));
    assert!(!text(&observed, "demo-cp1-pki", "index.json").contains("encryption"));
    assert!(!manifest(&observed, "cp1").contains("encryption"));
    assert_eq!(condition(&cluster, &observed), None);
}

#[test]
fn encryption_is_enabled_rotated_and_disabled_while_running() {
    let (plain, mut observed) = settled(SMALL);
    observed.status = report(&plain, &observed);
    let all = ["Publish", "Write", "Reencrypt", "Settle", "Drop", "Completed"];

    let on = cluster(&encrypted(SMALL));
    settle(&on, &mut observed);
    assert_eq!(stage(&observed), "Publish");
    let file = text(&observed, "demo-cp1-pki", FILE);
    assert!(file.find("identity").unwrap() < file.find("key-1").unwrap(), "{file}");
    let (holds, reason, message) = condition(&on, &observed).unwrap();
    assert_eq!((holds.as_str(), reason.as_str()), ("False", "Publish"));
    assert!(
        message.contains("cp1: its API server was not contacted yet") && message.contains("demo-cp1-pki"),
        "{message}"
    );
    let late = report_at(after(31), &on, &observed);
    assert_eq!(condition_of(&late.conditions, "EncryptedAtRest").unwrap().reason, "EncryptionStuck");
    let row = report(&on, &observed).rotations.remove(0);
    assert_eq!(
        (row.name.as_str(), row.phase, row.stage.as_deref()),
        ("encryption-key", RotationPhase::Preparing, Some("Publish"))
    );
    assert_eq!(run(&on, &mut observed), all);
    observed.status = report(&on, &observed);
    assert_eq!(observed.status.rotations[0].phase, RotationPhase::Completed);

    let rotate = cluster(&format!("{}rotate: {{encryptionKey: spring}}\n", encrypted(SMALL)));
    settle(&rotate, &mut observed);
    assert_eq!(report(&rotate, &observed).rotations[0].requested.as_deref(), Some("spring"));
    assert_eq!(run(&rotate, &mut observed), all);
    assert_eq!(keys_in(&text(&observed, "demo-cp1-pki", FILE)).into_keys().collect::<Vec<_>>(), ["key-2"]);
    // The same value requests nothing, and the former key is kept for backups.
    assert_eq!(run(&rotate, &mut observed), ["Completed"]);
    assert_ne!(text(&observed, "demo-encryption", "retired-key-1"), text(&observed, "demo-encryption", "key-2"));
    let by_annotation = BTreeMap::from([("keyplane.io/rotate-encryption-key".to_owned(), "now".to_owned())]);
    let again = rotate.clone().with_annotations(&by_annotation);
    assert_eq!(run(&again, &mut observed), all);
    assert!(condition(&again, &observed).unwrap().2.contains("key-3"));

    // The flags stay until everything is decrypted. Then they are removed, but the file stays for API servers that have
    // not restarted yet.
    settle_at(after(121), &plain, &mut observed);
    assert!(manifest(&observed, "cp1").contains("--encryption-provider-config="));
    assert_eq!(run(&plain, &mut observed), all);
    settle(&plain, &mut observed);
    assert!(!manifest(&observed, "cp1").contains("encryption"));
    let file = text(&observed, "demo-cp1-pki", FILE);
    assert!(file.contains("identity") && keys_in(&file).is_empty(), "{file}");
    observed.status = report(&plain, &observed);
    assert_eq!(condition_of(&observed.status.conditions, "EncryptedAtRest"), None);
    // A user who deletes the Secret states that no backup needs the keys: Keyplane removes the rest.
    observed.secrets.remove("demo-encryption");
    assert!(settle(&plain, &mut observed).blockers.is_empty());
    assert!(!text(&observed, "demo-cp1-pki", "index.json").contains("encryption"));
}

#[test]
fn writes_the_file_before_the_manifest_that_names_it() {
    let (_, mut observed) = settled(SMALL);
    let on = cluster(&encrypted(SMALL));
    let mut order = vec![];
    for _ in 0..3 {
        for step in plan(&on, &observed, noon()).steps {
            order.push(match &step {
                Step::Secret(draft) => draft.name.clone(),
                Step::ConfigMap(config_map) => config_map.metadata.name.clone().unwrap(),
                Step::Removal(removal) => removal.name.clone(),
            });
            execute(step, &on, &mut observed);
        }
    }
    assert_eq!(order, ["demo-encryption", "demo-cp1-pki", "demo-cp1-config"]);
}

#[test]
fn no_key_is_generated_twice_after_a_crash_at_any_step() {
    let (_, mut observed) = settled(&encrypted(SMALL));
    let rotate = cluster(&format!("{}rotate: {{encryptionKey: spring}}\n", encrypted(SMALL)));
    let mut keys = vec![];
    // One step at a time; the rest of each plan is lost.
    for minute in (0..300).step_by(3) {
        if let Some(step) = plan(&rotate, &observed, after(minute)).steps.into_iter().next() {
            execute(step, &rotate, &mut observed);
        }
        if minute % 5 == 0 {
            catch_up(&rotate, &mut observed);
        }
        keys.extend(keys_in(&text(&observed, "demo-cp1-pki", FILE)));
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 2, "two names, one key each");
    assert_eq!(stage(&observed), "Completed");
    assert_eq!(keys_in(&text(&observed, "demo-cp1-pki", FILE)).into_keys().collect::<Vec<_>>(), ["key-2"]);
}

#[test]
fn missing_keys_block_all_writes_for_nodes() {
    for spec in [encrypted(SMALL), SMALL.to_owned()] {
        let (_, mut observed) = settled(&encrypted(SMALL));
        let cluster = cluster(&spec);
        observed.secrets.remove("demo-encryption");
        let next = settle(&cluster, &mut observed);
        assert_eq!(next.blockers[0].reason, "EncryptionKeysMissing");
        assert!(next.blockers[0].message.contains("Secret demo-cp1-pki still has keys"), "{:?}", next.blockers);
        assert!(manifest(&observed, "cp1").contains("--encryption-provider-config="));
        assert_eq!(condition(&cluster, &observed).unwrap().1, "EncryptionKeysMissing");
    }
}

#[test]
fn status_remembers_keys_lost_with_all_node_secrets() {
    let (cluster, mut observed) = settled(&encrypted(SMALL));
    observed.status = report(&cluster, &observed);
    observed.secrets.retain(|name, _| !name.ends_with("-pki") && name != "demo-encryption");
    for _ in 0..3 {
        assert_eq!(settle(&cluster, &mut observed).blockers[0].reason, "EncryptionKeysMissing");
        observed.status = report(&cluster, &observed);
    }
}

#[test]
fn detects_an_older_copy_of_the_keys() {
    let (_, mut observed) = settled(&encrypted(SMALL));
    let backup = observed.secrets["demo-encryption"].clone();
    let rotate = cluster(&format!("{}rotate: {{encryptionKey: spring}}\n", encrypted(SMALL)));
    run(&rotate, &mut observed);
    let newest = observed.secrets.insert("demo-encryption".to_owned(), backup).unwrap();
    let blockers = settle(&rotate, &mut observed).blockers;
    assert_eq!(blockers[0].reason, "EncryptionKeysOutdated");
    assert!(blockers[0].message.contains("lacks key-2"), "{}", blockers[0].message);
    observed.secrets.insert("demo-encryption".to_owned(), newest);
    assert!(settle(&rotate, &mut observed).blockers.is_empty());
}

#[test]
fn foreign_secret_blocks_only_encryption() {
    let (plain, mut observed) = settled(SMALL);
    let mut foreign = observed.secrets["demo-kubeconfig"].clone();
    foreign.metadata.labels = None;
    foreign.metadata.name = Some("demo-encryption".to_owned());
    observed.secrets.insert("demo-encryption".to_owned(), foreign);
    assert!(settle(&plain, &mut observed).blockers.is_empty());
    let blockers = settle(&cluster(&encrypted(SMALL)), &mut observed).blockers;
    assert_eq!(blockers[0].reason, "ForeignObject");
}

#[test]
fn user_configuration_waits_until_encryption_is_disabled() {
    let (_, mut observed) = settled(&encrypted(SMALL));
    let own = "controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.11]}], apiServer: {extraArgs: [{name: encryption-provider-config, value: /a}]}}";
    let spec = SMALL.replace("controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.11]}]}", own);
    let cluster = cluster(&spec);
    let blockers = settle(&cluster, &mut observed).blockers;
    assert_eq!(blockers[0].reason, "EncryptionInUse");
    assert!(!manifest(&observed, "cp1").contains("/a\n"));
}

#[test]
fn external_etcd_may_contain_objects() {
    let spec = format!(
        "{}etcd: {{external: {{endpoints: ['https://10.0.0.5:2379'], secretRef: {{name: etcd}}}}}}\n",
        encrypted(SMALL)
    );
    let cluster = cluster(&spec);
    let mut observed = Observed::default();
    settle(&cluster, &mut observed);
    assert_eq!(stage(&observed), "Publish");
}

#[test]
fn messages_contain_no_key() {
    let (_, mut observed) = settled(&encrypted(SMALL));
    let rotate = cluster(&format!("{}rotate: {{encryptionKey: spring}}\n", encrypted(SMALL)));
    let next = plan(&rotate, &observed, noon());
    let reported = format!("{next:?}");
    settle(&rotate, &mut observed);
    let status = serde_json::to_string(&report(&rotate, &observed)).unwrap();
    let files = plan(&cluster(SMALL), &observed, noon());
    for key in ["key-1", "key-2"] {
        let secret = text(&observed, "demo-encryption", key);
        assert!(!reported.contains(&secret) && !status.contains(&secret) && !format!("{files:?}").contains(&secret));
    }
}
