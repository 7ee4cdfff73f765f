//! Written, reissued and unchanged objects: the plan, executed in memory.

// Clippy's exemption for tests does not cover helpers outside of `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{SMALL, THREE, cluster, cluster_with_policy, execute, noon, settle, settle_at, settled, text};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_core::observed::{Observed, TargetFacts};
use keyplane_core::plan::{Step, plan};
use keyplane_core::status;
use keyplane_crds::{ClusterSpecStatus, condition_of};
use kube::ResourceExt;

fn names(observed: &Observed) -> BTreeSet<String> {
    observed.secrets.keys().chain(observed.config_maps.keys()).cloned().collect()
}

fn paths(observed: &Observed, secret: &str) -> BTreeMap<String, String> {
    let index: serde_json::Value = serde_json::from_str(&text(observed, secret, "index.json")).unwrap();
    let entries = index.as_array().unwrap().iter();
    entries
        .map(|entry| (entry["path"].as_str().unwrap().to_owned(), entry["mode"].as_str().unwrap().to_owned()))
        .collect()
}

fn data(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect()
}

#[test]
fn cluster_has_the_objects_of_the_contract() {
    let (_, observed) = settled(SMALL);
    let expected = [
        "demo-ca",
        "demo-ca-bundle",
        "demo-cp1-config",
        "demo-cp1-pki",
        "demo-etcd",
        "demo-kubeconfig",
        "demo-proxy",
        "demo-sa",
    ];
    assert_eq!(names(&observed), expected.map(str::to_owned).into());
    for name in ["demo-ca", "demo-etcd", "demo-proxy", "demo-sa", "demo-kubeconfig"] {
        let secret = &observed.secrets[name];
        assert_eq!(secret.type_.as_deref(), Some("cluster.x-k8s.io/secret"), "{name}");
        assert_eq!(secret.labels()["cluster.x-k8s.io/cluster-name"], "demo", "{name}");
        let keys: Vec<_> = secret.data.iter().flatten().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, if name == "demo-kubeconfig" { vec!["value"] } else { vec!["tls.crt", "tls.key"] }, "{name}");
    }
    assert!(text(&observed, "demo-sa", "tls.crt").starts_with("-----BEGIN PUBLIC KEY-----\n"));
}

#[test]
fn unchanged_cluster_has_an_empty_plan_until_renewal() {
    let (cluster, observed) = settled(THREE);
    for days in [0, 100, 240, 4000] {
        let later = noon() + SignedDuration::from_hours(24 * days);
        let plan = plan(&cluster, &observed, later);
        assert!(plan.steps.is_empty() && plan.blockers.is_empty(), "after {days} days: {plan:?}");
    }
}

#[test]
fn interrupted_plan_continues_with_the_same_keys() {
    let cluster = cluster(SMALL);
    let mut crashes = 0;
    for crash in 0.. {
        let mut observed = Observed::default();
        let mut steps_left = crash;
        'broken_off: loop {
            let next = plan(&cluster, &observed, noon());
            if next.steps.is_empty() {
                break;
            }
            for step in next.steps {
                if steps_left == 0 {
                    break 'broken_off;
                }
                steps_left -= 1;
                execute(step, &cluster, &mut observed);
            }
        }
        let before = observed.secrets.clone();
        assert!(settle(&cluster, &mut observed).blockers.is_empty());
        for (name, secret) in &before {
            assert_eq!(data(secret), data(&observed.secrets[name]), "{name} was generated twice");
        }
        assert_eq!(names(&observed).len(), 8);
        crashes += 1;
        if steps_left > 0 {
            break;
        }
    }
    assert!(crashes > 8, "only {crashes} points to crash at");
}

#[test]
fn only_the_first_node_has_super_admin_conf() {
    let (_, observed) = settled(THREE);
    for (node, super_admin) in [("cp1", true), ("cp2", false), ("cp3", false)] {
        let paths = paths(&observed, &format!("demo-{node}-pki"));
        assert_eq!(paths.contains_key("/etc/kubernetes/super-admin.conf"), super_admin, "{node}");
        for (file, mode) in [
            ("pki/ca.crt", "0644"),
            ("pki/ca.key", "0600"),
            ("pki/etcd/ca.key", "0600"),
            ("pki/front-proxy-ca.key", "0600"),
            ("pki/sa.key", "0600"),
            ("pki/sa.pub", "0600"),
            ("pki/apiserver.key", "0600"),
            ("pki/cluster-signing-ca.crt", "0644"),
            ("admin.conf", "0600"),
            ("kubelet.conf", "0600"),
            ("scheduler.conf", "0600"),
            ("controller-manager.conf", "0600"),
        ] {
            assert_eq!(paths.get(&format!("/etc/kubernetes/{file}")).map(String::as_str), Some(mode), "{node} {file}");
        }
    }
    let own = |node: &str| text(&observed, &format!("demo-{node}-pki"), "apiserver.key");
    assert_ne!(own("cp1"), own("cp2"), "nodes share a key");
    assert!(text(&observed, "demo-cp2-pki", "controller-manager.conf").contains("https://10.0.0.12:6443"));
    assert!(text(&observed, "demo-cp2-pki", "kubelet.conf").contains("https://10.0.0.12:6443"));
    assert!(text(&observed, "demo-cp2-pki", "admin.conf").contains("https://api.demo.example:6443"));
}

#[test]
fn additional_san_reissues_only_the_api_server_certificate() {
    let (_, mut observed) = settled(SMALL);
    let before = data(&observed.secrets["demo-cp1-pki"]);
    let changed = cluster(&SMALL.replace("{nodes:", "{apiServer: {certSANs: [more.example]}, nodes:"));
    let next = plan(&changed, &observed, noon());
    let reported: Vec<_> = next
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Secret(draft) => Some(draft.describe()),
            Step::ConfigMap(_) | Step::Removal(_) => None,
        })
        .collect();
    assert_eq!(reported, ["wrote Secret demo-cp1-pki for node cp1: issued apiserver (NamesChanged)"]);
    settle(&changed, &mut observed);
    let after = data(&observed.secrets["demo-cp1-pki"]);
    let different: Vec<_> = before.keys().filter(|key| before[*key] != after[*key]).collect();
    assert_eq!(different, ["apiserver.crt"]);
}

#[test]
fn changed_endpoint_rewrites_kubeconfigs_with_the_same_keys() {
    let (_, mut observed) = settled(SMALL);
    let key = |observed: &Observed| {
        keyplane_core::kubeconfig::embedded_credential(&text(observed, "demo-kubeconfig", "value")).unwrap()
    };
    let before = key(&observed);
    let changed = cluster(&SMALL.replace("api.demo.example", "new.demo.example"));
    settle(&changed, &mut observed);
    assert_eq!(key(&observed), before);
    assert!(text(&observed, "demo-kubeconfig", "value").contains("https://new.demo.example:6443"));
    assert!(text(&observed, "demo-cp1-pki", "admin.conf").contains("https://new.demo.example:6443"));
}

#[test]
fn kubelet_conf_embeds_a_certificate_until_registration() {
    let (cluster, mut observed) = settled(SMALL);
    let conf = |observed: &Observed| text(observed, "demo-cp1-pki", "kubelet.conf");
    let refers = "/var/lib/kubelet/pki/kubelet-client-current.pem";
    assert!(conf(&observed).contains("client-key-data") && !conf(&observed).contains(refers));
    observed.target = TargetFacts { available: Some(Ok(())), nodes: Some(BTreeMap::new()), ..TargetFacts::default() };
    assert!(plan(&cluster, &observed, noon()).steps.is_empty(), "no Node is registered yet");
    observed.target.nodes = Some([("cp1".to_owned(), false)].into());
    settle(&cluster, &mut observed);
    assert!(!conf(&observed).contains("client-key-data") && conf(&observed).contains(refers));
    // A target cluster that does not answer proves nothing.
    observed.target = TargetFacts::default();
    assert!(plan(&cluster, &observed, noon()).steps.is_empty());
    // A recreated node starts with a bootstrap certificate again.
    observed.target.nodes = Some(BTreeMap::new());
    settle(&cluster, &mut observed);
    assert!(conf(&observed).contains("client-key-data"));
}

#[test]
fn foreign_objects_are_unchanged_and_reported() {
    for taken in ["demo-ca", "demo-sa", "demo-cp1-pki", "demo-kubeconfig"] {
        let cluster = cluster(SMALL);
        let mut observed = Observed::default();
        let mut theirs = Secret::default();
        theirs.metadata.name = Some(taken.to_owned());
        // Cluster API's own Secrets have this label; the label does not make them Keyplane's.
        theirs.labels_mut().insert("cluster.x-k8s.io/cluster-name".to_owned(), "demo".to_owned());
        observed.secrets.insert(taken.to_owned(), theirs.clone());
        let last = settle(&cluster, &mut observed);
        assert_eq!(last.blockers.len(), 1, "{taken}");
        assert_eq!(last.blockers[0].reason, "ForeignObject");
        assert!(last.blockers[0].message.contains(taken), "{}", last.blockers[0].message);
        assert_eq!(observed.secrets[taken], theirs);
    }
}

#[test]
fn clusters_with_colliding_names_do_not_share_a_secret() {
    // demo with the node a-cp1, and demo-a with the node cp1, both use the name demo-a-cp1-pki.
    let (_, mut observed) = settled(&SMALL.replace("cp1", "a-cp1"));
    let other =
        keyplane_core::model::Cluster::parse("demo-a", "default", &cluster(SMALL).spec, cluster(SMALL).policy).unwrap();
    let last = settle(&other, &mut observed);
    assert_eq!(last.blockers[0].reason, "ForeignObject");
    assert!(last.blockers[0].message.contains("demo-a-cp1-pki"));
}

#[test]
fn lost_ca_is_not_regenerated_while_traces_exist() {
    for lost in ["demo-ca", "demo-etcd", "demo-proxy", "demo-sa"] {
        let (cluster, observed) = settled(SMALL);
        let cas = keyplane_core::certificate_authorities::ClusterCas::load(&cluster, &observed).unwrap();
        let status = ClusterSpecStatus {
            certificates: status::certificates(&cluster, &observed, &cas),
            ..ClusterSpecStatus::default()
        };
        for (trace, secrets, status) in
            [("the node's Secret", true, ClusterSpecStatus::default()), ("the status", false, status)]
        {
            let mut left = Observed { status, ..Observed::default() };
            if secrets {
                left.secrets = observed.secrets.clone();
            }
            left.secrets.remove(lost);
            let next = plan(&cluster, &left, noon());
            let minted: Vec<_> =
                next.steps.iter().filter(|step| matches!(step, Step::Secret(draft) if draft.name == lost)).collect();
            assert!(minted.is_empty(), "{lost} was regenerated despite {trace}");
            let reported = next.blockers.iter().find(|blocker| blocker.message.contains(lost)).unwrap();
            assert_eq!(reported.reason, "CAMissing");
        }
    }
}

#[test]
fn status_keeps_the_trace_of_a_lost_ca() {
    let (cluster, mut observed) = settled(SMALL);
    observed.status = status::report(&cluster, &observed, &[], None, noon());
    let listed = observed.status.certificates.clone();
    assert!(!listed.is_empty());
    observed.secrets.clear();
    let blockers = plan(&cluster, &observed, noon()).blockers;
    let after = status::report(&cluster, &observed, &blockers, None, noon());
    assert_eq!(after.certificates, listed, "without the list no trace is left, so the keys are regenerated");
    assert_eq!(condition_of(&after.conditions, "Stalled").unwrap().status, "True");
}

#[test]
fn unreadable_or_foreign_ca_stops_issuance() {
    let (cluster, observed) = settled(SMALL);
    let (_, other) = settled(SMALL);
    let replaced = |secret: &str, key: &str, value: &[u8]| {
        let mut changed = Observed { secrets: observed.secrets.clone(), ..Observed::default() };
        let data = changed.secrets.get_mut(secret).unwrap().data.as_mut().unwrap();
        data.get_mut(key).unwrap().0 = value.to_vec();
        changed
    };
    let others = |key: &str| other.secrets["demo-ca"].data.as_ref().unwrap()[key].0.clone();
    let mut swapped = replaced("demo-ca", "tls.crt", &others("tls.crt"));
    swapped.secrets.get_mut("demo-ca").unwrap().data.as_mut().unwrap().get_mut("tls.key").unwrap().0 =
        others("tls.key");
    for (what, observed, reason) in [
        ("another key", replaced("demo-ca", "tls.key", &others("tls.key")), "CAUnreadable"),
        ("no certificate", replaced("demo-etcd", "tls.crt", b"x"), "CAUnreadable"),
        ("another public key", replaced("demo-sa", "tls.crt", b"x"), "CAUnreadable"),
        ("another CA", swapped, "CAChanged"),
    ] {
        let next = plan(&cluster, &observed, noon());
        assert_eq!(next.blockers.first().map(|blocker| blocker.reason), Some(reason), "{what}");
        let node = |step: &Step| matches!(step, Step::Secret(draft) if draft.name == "demo-cp1-pki");
        assert!(!next.steps.iter().any(node), "{what}: the node's certificates were reissued");
        assert!(!format!("{next:?}").contains("PRIVATE KEY"));
    }
}

#[test]
fn reissues_only_a_corrupted_leaf() {
    let (cluster, mut observed) = settled(SMALL);
    let before = data(&observed.secrets["demo-cp1-pki"]);
    let broken = observed.secrets.get_mut("demo-cp1-pki").unwrap().data.as_mut().unwrap();
    broken.get_mut("etcd-peer.crt").unwrap().0 = b"broken".to_vec();
    broken.remove("scheduler.conf");
    settle(&cluster, &mut observed);
    let after = data(&observed.secrets["demo-cp1-pki"]);
    let different: Vec<_> = before.keys().filter(|key| before.get(*key) != after.get(*key)).collect();
    assert_eq!(different, ["etcd-peer.crt", "scheduler.conf"]);
}

#[test]
fn config_maps_contain_no_secret() {
    let (_, observed) = settled(THREE);
    for config_map in observed.config_maps.values() {
        let text = serde_json::to_string(config_map).unwrap();
        assert!(!text.contains("PRIVATE KEY") && !text.contains("client-key-data"), "{}", config_map.name_any());
    }
}

#[test]
fn status_reason_names_the_missing_part() {
    let (cluster, mut observed) = settled(SMALL);
    let report = |observed: &Observed, now: Timestamp| status::report(&cluster, observed, &[], Some(3), now);
    let ready = |status: &ClusterSpecStatus| {
        let condition = condition_of(&status.conditions, "Ready").unwrap();
        (condition.status.clone(), condition.reason.clone())
    };
    let is = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    assert_eq!(ready(&report(&observed, noon())), is("False", "NotContacted"));
    observed.target.available = Some(Err(("Unreachable".to_owned(), "no answer".to_owned())));
    assert_eq!(ready(&report(&observed, noon())), is("False", "Unreachable"));
    observed.target = TargetFacts {
        available: Some(Ok(())),
        nodes: Some([("cp1".to_owned(), true)].into()),
        ..TargetFacts::default()
    };
    let good = report(&observed, noon());
    assert_eq!(ready(&good), is("True", "Ready"));
    assert_eq!((good.ready_nodes, good.desired_nodes, good.observed_generation), (Some(1), Some(1), Some(3)));
    // Three CAs, twelve certificates on the node, and the admin kubeconfig.
    assert_eq!(good.certificates.len(), 16);
    assert_eq!(ready(&report(&observed, noon() + SignedDuration::from_hours(24 * 300))), is("False", "RenewalDue"));
    assert_eq!(ready(&report(&observed, noon() + SignedDuration::from_hours(24 * 366))), is("False", "Expired"));
    // The same state a minute later gives the same status: no write.
    observed.status = good.clone();
    assert_eq!(report(&observed, noon() + SignedDuration::from_mins(1)), good);
}

#[test]
fn warns_of_ca_expiry_a_year_before() {
    let certificates = |policy: &str, days: i64| {
        let cluster = cluster_with_policy(SMALL, policy);
        let mut observed = Observed::default();
        settle_at(noon(), &cluster, &mut observed);
        // All other certificates are renewed automatically.
        let now = noon() + SignedDuration::from_hours(24 * days);
        settle_at(now, &cluster, &mut observed);
        let status = status::report(&cluster, &observed, &[], None, now);
        let condition = condition_of(&status.conditions, "CertificatesValid").unwrap();
        (condition.reason.clone(), condition.message.clone())
    };
    let quarterly =
        "{authority: {validity: 87600h, keyAlgorithm: ECDSA-P256}, leaf: {validity: 2160h, keyAlgorithm: ECDSA-P256}}";
    assert_eq!(certificates(quarterly, 3284).0, "Valid");
    let (reason, message) = certificates(quarterly, 3286);
    assert_eq!(reason, "CAExpiresSoon");
    assert!(message.contains("ca, etcd-ca, front-proxy-ca"), "{message}");
    let short =
        "{authority: {validity: 2h, keyAlgorithm: ECDSA-P256}, leaf: {validity: 30m, keyAlgorithm: ECDSA-P256}}";
    assert_eq!(certificates(short, 0).0, "Valid");
}
