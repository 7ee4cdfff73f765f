//! Clusters that are restored from a backup: Keyplane generates no key that the backup has, in any order of objects.

// Clippy's exemption for tests does not cover helpers outside of `#[test]` functions.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;

use common::{THREE, cluster, execute, noon, settle, settled, text};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_core::model::Cluster;
use keyplane_core::observed::Observed;
use keyplane_core::pki::first_certificate;
use keyplane_core::plan::{is_unknown, plan};
use keyplane_core::status;
use keyplane_crds::{condition_of, keys};
use kube::ResourceExt;

/// A spec with every kind of Secret.
const RICH: &str = "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: {host: api.demo.example}
controlPlane:
  nodes:
    - {name: cp1, addresses: [10.0.0.11]}
    - {name: cp2, addresses: [10.0.0.12]}
users: [{name: ada, groups: [developers]}]
encryptionAtRest: {provider: secretbox}
";

const HARD_WAY: &str = common::HARD_WAY;

fn annotated(cluster: &Cluster, restore: &str) -> Cluster {
    let annotations = [("keyplane.io/restore".to_owned(), restore.to_owned())];
    cluster.clone().with_annotations(&annotations.into())
}

/// The result of `kubectl get secrets,configmaps -l keyplane.io/cluster=demo -o yaml` and `kubectl create` in another
/// management cluster.
fn restored(observed: &Observed) -> Observed {
    let is_selected =
        |labels: &BTreeMap<String, String>| labels.get(keys::CLUSTER_LABEL).is_some_and(|name| name == "demo");
    let mut restored = Observed::default();
    for secret in observed.secrets.values().filter(|secret| is_selected(secret.labels())) {
        restored.secrets.insert(secret.name_any(), put_back(secret));
    }
    for config_map in observed.config_maps.values().filter(|config_map| is_selected(config_map.labels())) {
        restored.config_maps.insert(config_map.name_any(), config_map.clone());
    }
    restored
}

fn put_back(secret: &Secret) -> Secret {
    let mut secret = secret.clone();
    let metadata = &mut secret.metadata;
    metadata.resource_version = Some("1".to_owned());
    metadata.uid = Some("another".to_owned());
    metadata.creation_timestamp = Some(Time(noon() + SignedDuration::from_hours(100)));
    metadata.managed_fields = Some(vec![written_by("kubectl-create", noon() + SignedDuration::from_hours(100))]);
    secret
}

fn written_by(manager: &str, time: Timestamp) -> ManagedFieldsEntry {
    ManagedFieldsEntry { manager: Some(manager.to_owned()), time: Some(Time(time)), ..ManagedFieldsEntry::default() }
}

fn reasons(observed: &Observed, cluster: &Cluster) -> Vec<&'static str> {
    plan(cluster, observed, noon()).blockers.iter().map(|blocker| blocker.reason).collect()
}

#[test]
fn labelled_objects_are_a_complete_backup() {
    for spec in [RICH, THREE, HARD_WAY] {
        let (cluster, before) = settled(spec);
        let restored = restored(&before);
        assert_eq!(restored.secrets.len(), before.secrets.len(), "every Secret has the label");
        for cluster in [cluster.clone(), annotated(&cluster, "true")] {
            let next = plan(&cluster, &restored, noon());
            assert!(next.steps.is_empty() && next.blockers.is_empty(), "{:?}", next.blockers);
        }
    }
}

#[test]
fn spec_restored_first_generates_no_key_of_the_backup() {
    let (cluster, before) = settled(RICH);
    let all = restored(&before);
    let waiting = annotated(&cluster, "true");
    // One object after the other, in the order of kubectl.
    let mut observed = Observed::default();
    for (name, secret) in &all.secrets {
        let next = plan(&waiting, &observed, noon());
        assert!(next.steps.is_empty(), "before {name}");
        assert_eq!(next.blockers[0].reason, "WaitingForRestore");
        observed.secrets.insert(name.clone(), secret.clone());
    }
    let reported = &plan(&waiting, &observed, noon()).blockers[0].message.clone();
    assert!(
        reported.contains("ConfigMap demo-cp1-config") && reported.contains("labels and annotations"),
        "{reported}"
    );
    observed.config_maps.clone_from(&all.config_maps);
    assert!(plan(&waiting, &observed, noon()).steps.is_empty());
    // Keyplane creates objects that the backup lacks, once the restore is over.
    observed.secrets.remove("demo-user-ada-kubeconfig");
    assert_eq!(reasons(&observed, &waiting), ["WaitingForRestore"]);
    assert!(settle(&cluster, &mut observed).blockers.is_empty());
    assert_eq!(text(&observed, "demo-ca", "tls.key"), text(&before, "demo-ca", "tls.key"));
}

#[test]
fn partial_backup_is_never_completed_with_new_keys() {
    let (cluster, before) = settled(THREE);
    let all = restored(&before);
    for existing in ["demo-ca", "demo-etcd", "demo-proxy", "demo-sa"] {
        let mut observed = Observed::default();
        observed.secrets.insert(existing.to_owned(), all.secrets[existing].clone());
        let next = plan(&cluster, &observed, noon());
        assert!(next.steps.is_empty(), "{existing}");
        assert!(next.blockers.iter().all(|blocker| blocker.reason == "WaitingForRestore"), "{:?}", next.blockers);
        assert!(next.blockers[0].message.contains(existing), "{:?}", next.blockers);
        // A user can override the protection with the annotation.
        assert!(!plan(&annotated(&cluster, "false"), &observed, noon()).steps.is_empty());
        // An object that Keyplane created a moment ago is no backup: the creation of the cluster continues.
        let ours = written_by("keyplane", noon() + SignedDuration::from_hours(101));
        observed.secrets.get_mut(existing).unwrap().metadata.managed_fields = Some(vec![ours]);
        assert!(plan(&cluster, &observed, noon()).blockers.is_empty());
        // A managedFields entry from before the restore belongs to the old object.
        let old = written_by("keyplane", noon());
        observed.secrets.get_mut(existing).unwrap().metadata.managed_fields = Some(vec![old]);
        assert!(plan(&cluster, &observed, noon()).steps.is_empty());
    }
}

#[test]
fn generates_no_keys_for_nodes_that_run_a_cluster() {
    let (cluster, before) = settled(THREE);
    let mut observed = Observed::default();
    assert!(is_unknown(&cluster, &observed) && !is_unknown(&cluster, &before));
    let of = |file: &str| first_certificate(file, &text(&before, "demo-cp2-pki", file)).unwrap();
    // A proxy answers for addresses without a server.
    observed.target.serving.insert("cp2".to_owned(), of("etcd-server.crt"));
    assert!(!plan(&cluster, &observed, noon()).steps.is_empty());
    observed.target.serving.insert("cp2".to_owned(), of("apiserver.crt"));
    let next = plan(&cluster, &observed, noon());
    assert!(next.steps.is_empty());
    assert_eq!(next.blockers[0].reason, "ClusterAlreadyRunning");
    assert!(next.blockers[0].message.contains("cp2") && next.blockers[0].message.contains("keyplane.io/restore=false"));
    assert!(!plan(&annotated(&cluster, "false"), &observed, noon()).steps.is_empty());
    observed.secrets = restored(&before).secrets;
    observed.config_maps = before.config_maps;
    let next = plan(&cluster, &observed, noon());
    assert!(next.steps.is_empty() && next.blockers.is_empty());
}

#[test]
fn restored_cluster_is_unchanged_until_observed_running() {
    let (_, before) = settled(THREE);
    let newer = cluster(&THREE.replace("v1.37.2", "v1.37.3"));
    let restored = restored(&before);
    assert!(!plan(&newer, &restored, noon()).steps.is_empty());
    let next = plan(&annotated(&newer, "true"), &restored, noon());
    assert!(next.steps.is_empty());
}

#[test]
fn reports_a_backup_from_before_a_rotation() {
    let (cluster, stale) = settled(THREE);
    let later = noon() + SignedDuration::from_hours(1);
    let mut newer = Observed::default();
    common::settle_at(later, &cluster, &mut newer);
    let mut observed = restored(&stale);
    observed.target.available = Some(Err(("Unreachable".to_owned(), "unknown issuer".to_owned())));
    let presented =
        |observed: &Observed| first_certificate("apiserver", &text(observed, "demo-cp1-pki", "apiserver.crt")).unwrap();
    observed.target.serving.insert("cp1".to_owned(), presented(&newer));
    let next = plan(&cluster, &observed, later);
    assert!(next.steps.is_empty() && next.blockers.is_empty());
    let in_sync = |observed: &Observed| {
        let status = status::report(&cluster, observed, &[], None, later);
        condition_of(&status.conditions, "NodesInSync").unwrap().clone()
    };
    let reported = in_sync(&observed);
    assert_eq!((reported.status.as_str(), reported.reason.as_str()), ("False", "CADiffers"));
    assert!(reported.message.contains("older than the node's files"), "{}", reported.message);
    // In the other direction: the node has not received its files yet.
    observed = restored(&newer);
    observed.target.available = Some(Err(("Unreachable".to_owned(), "unknown issuer".to_owned())));
    observed.target.serving.insert("cp1".to_owned(), presented(&stale));
    assert!(in_sync(&observed).message.contains("copy the files of Secret demo-cp1-pki"));
    observed.target.serving.insert("cp1".to_owned(), presented(&newer));
    assert_eq!(in_sync(&observed).reason, "Unknown");
}

#[test]
fn interrupted_creation_continues() {
    let cluster = cluster(THREE);
    let mut observed = Observed::default();
    for step in plan(&cluster, &observed, noon()).steps.into_iter().take(2) {
        execute(step, &cluster, &mut observed);
    }
    assert_eq!(observed.secrets.len(), 2);
    assert!(settle(&cluster, &mut observed).blockers.is_empty());
}
