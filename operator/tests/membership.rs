//! Nodes that join, leave and are lost, and an external etcd: written objects and the status.

// Clippy's exemption for tests does not cover helpers outside of `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::{THREE, cluster, noon, settle, settled, text};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use keyplane_core::etcd::Member;
use keyplane_core::model::Cluster;
use keyplane_core::observed::{EtcdFacts, Observed};
use keyplane_core::pki::{CertificateTemplate, ExtendedUsage, Subject, valid_for};
use keyplane_core::plan::plan;
use keyplane_core::status;
use keyplane_crds::{ClusterSpecStatus, KeyAlgorithm, condition_of, keys};
use keyplane_issuance::x509::{generate, generate_ca, issue};

const CP1: &str = "cp1=https://10.0.0.11:2380";
const CP2: &str = "cp2=https://10.0.0.12:2380";
const CP3: &str = "cp3=https://10.0.0.13:2380";

/// The etcd member of cpN.
fn member(number: u8, learner: bool, started: bool) -> Member {
    Member {
        id: number.into(),
        name: if started { format!("cp{number}") } else { String::new() },
        peer_urls: vec![format!("https://10.0.0.1{number}:2380")],
        learner,
        up: started,
        trouble: (!started).then(|| "has not started".to_owned()),
    }
}

fn voters(numbers: &[u8]) -> Vec<Member> {
    numbers.iter().map(|number| member(*number, false, true)).collect()
}

fn in_etcd(observed: &mut Observed, members: Vec<Member>) {
    observed.target.etcd = Some(Ok(EtcdFacts { members, confirmed: true, waits: None }));
}

/// Both flags in a node's manifest: the state, if it is set, and the members.
fn flags(observed: &Observed, node: &str) -> (Option<String>, String) {
    let manifest = &observed.config_maps[&format!("demo-{node}-config")].data.as_ref().unwrap()["etcd.yaml"];
    let flag = |name: &str| {
        let line = manifest.lines().find_map(|line| line.trim().trim_start_matches("- ").strip_prefix(name));
        line.map(str::to_owned)
    };
    (flag("--initial-cluster-state="), flag("--initial-cluster=").unwrap())
}

fn existing(members: &[&str]) -> (Option<String>, String) {
    (Some("existing".to_owned()), members.join(","))
}

fn begun(members: &[&str]) -> (Option<String>, String) {
    (None, members.join(","))
}

#[test]
fn nodes_join_in_declared_order_while_etcd_is_unreachable() {
    let (_, observed) = settled(THREE);
    assert_eq!(flags(&observed, "cp1"), begun(&[CP1]));
    assert_eq!(flags(&observed, "cp2"), existing(&[CP1, CP2]));
    assert_eq!(flags(&observed, "cp3"), existing(&[CP1, CP2, CP3]));
}

#[test]
fn node_joining_out_of_order_lists_existing_members() {
    let (cluster, mut observed) = settled(THREE);
    in_etcd(&mut observed, vec![member(1, false, true), member(3, true, false)]);
    settle(&cluster, &mut observed);
    assert_eq!(flags(&observed, "cp3"), existing(&[CP1, CP3]));
    in_etcd(&mut observed, vec![member(1, false, true), member(2, true, false), member(3, false, true)]);
    settle(&cluster, &mut observed);
    assert_eq!(flags(&observed, "cp2"), existing(&[CP1, CP2, CP3]));
    assert_eq!(flags(&observed, "cp3"), existing(&[CP1, CP3]), "a member that runs was rewritten");
    assert_eq!(flags(&observed, "cp1"), begun(&[CP1]));
}

#[test]
fn initial_flags_of_a_started_member_never_change() {
    let (three, mut observed) = settled(THREE);
    in_etcd(&mut observed, voters(&[1, 2, 3]));
    settle(&three, &mut observed);
    let written = |observed: &Observed| {
        ["cp2", "cp3"].map(|node| observed.config_maps[&format!("demo-{node}-config")].data.clone())
    };
    let before = written(&observed);
    // cp4 replaces cp1, at the start of the list.
    let replaced = cluster(&THREE.replace("name: cp1, addresses: [10.0.0.11]", "name: cp4, addresses: [10.0.0.14]"));
    for members in [voters(&[2, 3]), vec![member(2, false, true), member(3, false, true), member(4, true, false)]] {
        in_etcd(&mut observed, members);
        settle(&replaced, &mut observed);
        assert_eq!(written(&observed), before);
    }
    let joins = existing(&["cp4=https://10.0.0.14:2380", CP2, CP3]);
    assert_eq!(flags(&observed, "cp4"), joins);
    // A replica that has just started has observed no member. It must neither bootstrap another etcd nor rewrite the
    // flags of the existing one.
    observed.target.etcd = None;
    assert!(plan(&replaced, &observed, noon()).steps.is_empty());
    observed.config_maps.remove("demo-cp4-config");
    settle(&replaced, &mut observed);
    assert_eq!(flags(&observed, "cp4"), existing(&[CP2, CP3, "cp4=https://10.0.0.14:2380"]));
}

#[test]
fn jointly_bootstrapped_nodes_keep_their_flags() {
    let (cluster, mut observed) = settled(THREE);
    for config_map in observed.config_maps.values_mut() {
        let annotations = config_map.metadata.annotations.as_mut().unwrap();
        annotations.remove(keys::ETCD_INITIAL_CLUSTER_ANNOTATION);
        annotations.remove(keys::ETCD_MEMBER_ANNOTATION);
        let Some(manifest) = config_map.data.as_mut().unwrap().get_mut("etcd.yaml") else { continue };
        let lines = manifest.lines().filter(|line| !line.contains("--initial-cluster-state")).map(|line| {
            match line.split_once("--initial-cluster=") {
                Some((before, _)) => format!("{before}--initial-cluster={CP1},{CP2},{CP3}\n"),
                None => format!("{line}\n"),
            }
        });
        *manifest = lines.collect();
    }
    for members in [None, Some(voters(&[1, 2, 3]))] {
        if let Some(members) = members {
            in_etcd(&mut observed, members);
        }
        settle(&cluster, &mut observed);
        for node in ["cp1", "cp2", "cp3"] {
            assert_eq!(flags(&observed, node), begun(&[CP1, CP2, CP3]), "{node}");
        }
    }
}

#[test]
fn removed_node_keeps_its_objects_until_etcd_drops_it() {
    let (three, mut observed) = settled(THREE);
    in_etcd(&mut observed, voters(&[1, 2, 3]));
    settle(&three, &mut observed);
    observed.status = status::report(&three, &observed, &[], None, noon());
    let without_first = cluster(&THREE.replace("    - {name: cp1, addresses: [10.0.0.11]}\n", ""));
    settle(&without_first, &mut observed);
    assert!(observed.secrets.contains_key("demo-cp1-pki"), "it is still in etcd");
    assert!(text(&observed, "demo-cp2-pki", "super-admin.conf").contains("kubernetes-super-admin"));
    // The status still lists the removed node.
    observed.status = status::report(&without_first, &observed, &[], None, noon());
    let listed = |status: &ClusterSpecStatus| {
        status.certificates.iter().filter(|row| row.node.as_deref() == Some("cp1")).count()
    };
    assert!(listed(&observed.status) > 0);
    observed.target.etcd = None;
    settle(&without_first, &mut observed);
    assert!(observed.secrets.contains_key("demo-cp1-pki"), "nobody knows whether it is still in etcd");
    in_etcd(&mut observed, voters(&[2, 3]));
    // Keyplane leaves an object of somebody else with that name unchanged.
    let labels = observed.config_maps.get_mut("demo-cp1-config").unwrap().metadata.labels.as_mut().unwrap();
    labels.remove("app.kubernetes.io/managed-by");
    settle(&without_first, &mut observed);
    assert!(!observed.secrets.contains_key("demo-cp1-pki"));
    assert!(observed.config_maps.contains_key("demo-cp1-config"));
    assert_eq!(listed(&status::report(&without_first, &observed, &[], None, noon())), 0);
}

fn condition(cluster: &Cluster, observed: &Observed, name: &str) -> Option<(String, String, String)> {
    let status = status::report(cluster, observed, &[], None, noon());
    let condition = condition_of(&status.conditions, name)?;
    Some((condition.status.clone(), condition.reason.clone(), condition.message.clone()))
}

#[test]
fn status_names_a_missing_joining_or_unhealthy_node() {
    let (cluster, mut observed) = settled(THREE);
    observed.target.available = Some(Ok(()));
    let nodes = |ready: &[(&str, bool)]| -> Option<BTreeMap<String, bool>> {
        Some(ready.iter().map(|(name, ready)| ((*name).to_owned(), *ready)).collect())
    };
    let all = nodes(&[("cp1", true), ("cp2", true), ("cp3", true)]);
    let lost = nodes(&[("cp1", true), ("cp2", true), ("cp3", false)]);
    let mut silent = voters(&[1, 2, 3]);
    (silent[2].up, silent[2].trouble) = (false, Some("does not answer".to_owned()));
    let mut full = voters(&[1, 2, 3]);
    full[1].trouble = Some("has the alarm NOSPACE".to_owned());
    let learning = vec![member(1, false, true), member(2, true, true), member(3, true, false)];
    for (ready, members, reason, words) in [
        (all.clone(), voters(&[1, 2, 3]), "NodesReady", ""),
        (lost.clone(), silent.clone(), "NodeMissing", "cp3: the Node is not Ready, its etcd member does not answer"),
        (lost, voters(&[1, 2, 3]), "NodeNotReady", "cp3: the Node is not Ready"),
        (all.clone(), silent, "EtcdMemberUnhealthy", "cp3: its etcd member does not answer"),
        (all.clone(), full, "EtcdMemberUnhealthy", "cp2: its etcd member has the alarm NOSPACE"),
        (
            all.clone(),
            learning,
            "EtcdMemberJoining",
            "cp2: its etcd member is still a learner; cp3: its etcd member has not",
        ),
        (
            nodes(&[("cp1", true), ("cp2", true)]),
            voters(&[1, 2]),
            "NodeMissing",
            "cp3: the Node does not exist, not in etcd yet",
        ),
        (all, voters(&[1, 2, 3, 4]), "EtcdMemberLeaving", "cp4: still a member of etcd"),
    ] {
        observed.target.nodes = ready;
        in_etcd(&mut observed, members);
        let reported = condition(&cluster, &observed, "ControlPlaneNodesReady").unwrap();
        assert_eq!(reported.1, reason, "{reported:?}");
        assert!(reported.2.contains(words), "{words:?} is not in {reported:?}");
        // The API server answers nevertheless; Ready still reports the missing node.
        assert_eq!(condition(&cluster, &observed, "ControlPlaneAvailable").unwrap().0, "True");
        let ready = condition(&cluster, &observed, "Ready").unwrap();
        assert_eq!(ready.0 == "True", reason == "NodesReady", "{ready:?}");
    }
    observed.target.etcd = Some(Err("no member of etcd answers".to_owned()));
    assert_eq!(condition(&cluster, &observed, "ControlPlaneNodesReady").unwrap().1, "EtcdUnreachable");
}

#[test]
fn loss_of_one_failure_domain_must_leave_a_majority() {
    let spread = |domains: &[Option<&str>], more: &str| {
        let nodes = domains.iter().enumerate().map(|(number, domain)| {
            let domain = domain.map_or(String::new(), |domain| format!(", failureDomain: {domain}"));
            format!("    - {{name: cp{number}, addresses: [10.0.0.1{number}]{domain}}}\n")
        });
        let head = THREE.split("    - {").next().unwrap();
        let cluster = cluster(&format!("{head}{}{more}", nodes.collect::<String>()));
        condition(&cluster, &Observed::default(), "SpreadAcrossFailureDomains").map(|reported| reported.1)
    };
    let (a, b, c) = (Some("a"), Some("b"), Some("c"));
    let external = "etcd: {external: {endpoints: ['https://e:2379'], secretRef: {name: e}}}\n";
    for (domains, more, expected) in [
        (&[None, None, None][..], "", None),
        (&[a, b, c], "", Some("Spread")),
        (&[a, a, b, b, c], "", Some("Spread")),
        (&[a, b, b], "", Some("DomainHoldsMajority")),
        (&[a, b, None], "", Some("NotAllDeclared")),
        (&[a], "", Some("TooFewNodes")),
        (&[a, b], "", Some("TooFewNodes")),
        (&[a, b], external, Some("Spread")),
        (&[a, a], external, Some("DomainHoldsMajority")),
    ] {
        assert_eq!(spread(domains, more).as_deref(), expected, "{domains:?} {more}");
    }
}

const EXTERNAL: &str = "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: {host: api.demo.example}
controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.11]}]}
etcd: {external: {endpoints: ['https://etcd1.example:2379'], secretRef: {name: corp-etcd}}}
";

/// The files from the owner of an external etcd: trust bundle, client certificate and key.
fn corp_etcd() -> Secret {
    let algorithm = KeyAlgorithm::EcdsaP256;
    let (not_before, not_after) = valid_for(noon(), std::time::Duration::from_hours(1000));
    let ca = generate_ca("corp", algorithm, not_before, not_after).unwrap();
    let key = generate(algorithm).unwrap();
    let order = CertificateTemplate {
        subject: Subject { common_name: "demo".to_owned(), organizations: vec![] },
        alternative_names: vec![],
        extended_usages: vec![ExtendedUsage::ClientAuth],
        not_before,
        not_after,
    };
    let certificate = issue(&order, &key, &ca).unwrap();
    let mut secret = Secret::default();
    secret.metadata.name = Some("corp-etcd".to_owned());
    let data = [("ca.crt", ca.certificate_pem()), ("tls.crt", &certificate), ("tls.key", key.pem())];
    secret.data = Some(data.map(|(key, text)| (key.to_owned(), ByteString(text.as_bytes().to_vec()))).into());
    secret
}

fn data(secret: &Secret, key: &str) -> String {
    String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap()
}

#[test]
fn external_etcd_uses_provided_keys_only() {
    let cluster = cluster(EXTERNAL);
    let mut observed = Observed::default();
    let first = corp_etcd();
    observed.secrets.insert("corp-etcd".to_owned(), first.clone());
    assert!(settle(&cluster, &mut observed).blockers.is_empty());
    assert!(!observed.secrets.contains_key("demo-etcd"));
    let node = observed.secrets["demo-cp1-pki"].clone();
    let keys: Vec<_> =
        node.data.iter().flatten().map(|(key, _)| key.as_str()).filter(|key| key.contains("etcd")).collect();
    assert_eq!(keys, ["apiserver-etcd-client.crt", "apiserver-etcd-client.key", "etcd-ca.crt"]);
    assert_eq!(data(&node, "etcd-ca.crt"), data(&first, "ca.crt"));
    assert_eq!(observed.secrets["corp-etcd"], first, "the user's Secret is the user's");
    // Keyplane distributes a new client certificate; the node's own keys stay.
    let second = corp_etcd();
    observed.secrets.insert("corp-etcd".to_owned(), second.clone());
    settle(&cluster, &mut observed);
    let renewed = &observed.secrets["demo-cp1-pki"];
    assert_eq!(data(renewed, "apiserver-etcd-client.key"), data(&second, "tls.key"));
    assert_eq!(data(renewed, "apiserver.key"), data(&node, "apiserver.key"));
    // Keyplane neither lists nor renews the certificates of the external etcd.
    let listed = status::report(&cluster, &observed, &[], None, noon()).certificates;
    assert!(listed.iter().all(|row| !row.name.contains("etcd")), "{listed:?}");
}

#[test]
fn reports_a_bad_external_etcd_secret_with_the_remedy() {
    let cluster = cluster(EXTERNAL);
    let mut observed = Observed::default();
    let good = corp_etcd();
    observed.secrets.insert("corp-etcd".to_owned(), good.clone());
    settle(&cluster, &mut observed);
    let written = observed.secrets["demo-cp1-pki"].clone();
    let without = |key: &str| {
        let mut secret = good.clone();
        secret.data.as_mut().unwrap().remove(key);
        Some(secret)
    };
    let mut mixed = good.clone();
    mixed.data.as_mut().unwrap().insert("tls.key".to_owned(), corp_etcd().data.unwrap()["tls.key"].clone());
    for (secret, reason, words) in [
        (None, "SecretNotFound", "kubectl create secret generic corp-etcd"),
        (without("ca.crt"), "SecretUnusable", "lacks ca.crt"),
        (without("tls.key"), "SecretUnusable", "lacks tls.key"),
        (Some(mixed), "SecretUnusable", "the public key of tls.crt does not match tls.key"),
    ] {
        observed.secrets.remove("corp-etcd");
        observed.secrets.extend(secret.map(|secret| ("corp-etcd".to_owned(), secret)));
        let reported = settle(&cluster, &mut observed).blockers;
        assert_eq!((reported.len(), reported[0].reason), (1, reason), "{reported:?}");
        assert!(
            reported[0].message.contains(words) && !reported[0].message.contains("PRIVATE"),
            "{}",
            reported[0].message
        );
        assert_eq!(observed.secrets["demo-cp1-pki"], written);
    }
    observed.secrets.insert("corp-etcd".to_owned(), good);
    let later = noon() + k8s_openapi::jiff::SignedDuration::from_hours(1001);
    assert_eq!(plan(&cluster, &observed, later).blockers[0].reason, "EtcdCertificateExpired");
}
