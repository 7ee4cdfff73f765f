use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::SignedDuration;
use keyplane_crds::KeyAlgorithm;

use super::*;
use crate::pki::{CertificateAuthority, CertificateTemplate, ExtendedUsage, Subject as Name, first_certificate};
use crate::rotation::Server;
use crate::x509::{cross_sign, generate, generate_ca, issue};

const BUNDLE: &str = "old and new";
const CLUSTER: Subject = Subject::CertificateAuthority(CaName::Cluster);
const ETCD: Subject = Subject::CertificateAuthority(CaName::Etcd);
const FRONT_PROXY: Subject = Subject::CertificateAuthority(CaName::FrontProxy);

fn noon() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

/// Two CAs, a certificate of each, and the cross-signed certificate of the new CA.
struct Pki {
    old: CertificateAuthority,
    new: CertificateAuthority,
    leaf_of_old: CertificateFacts,
    leaf_of_new: CertificateFacts,
    cross: CertificateFacts,
}

impl Pki {
    fn new() -> Self {
        let end = noon() + SignedDuration::from_hours(24);
        let mint = || generate_ca("kubernetes", KeyAlgorithm::EcdsaP256, noon(), end).unwrap();
        let leaf = |ca: &CertificateAuthority| {
            let order = CertificateTemplate {
                subject: Name::user("kube-apiserver"),
                alternative_names: vec![],
                extended_usages: vec![ExtendedUsage::ServerAuth],
                not_before: noon(),
                not_after: end,
            };
            let key = generate(KeyAlgorithm::EcdsaP256).unwrap();
            first_certificate("leaf", &issue(&order, &key, ca).unwrap()).unwrap()
        };
        let (old, new) = (mint(), mint());
        let cross = first_certificate("cross", &cross_sign(&new, &old, noon()).unwrap().unwrap()).unwrap();
        Self { leaf_of_old: leaf(&old), leaf_of_new: leaf(&new), old, new, cross }
    }

    fn at(&self) -> StageInputs<'_> {
        StageInputs {
            nodes: vec!["cp1", "cp2"],
            cas: Some((self.old.facts(), self.new.facts())),
            keys: Some(("old", "new")),
            is_cross_signed: true,
            trust: BUNDLE,
            rollout: None,
            outdated_nodes: vec![],
            kubelet_clients: vec![],
            nodes_updated_since: None,
            may_complete: false,
            unobservable_users: vec!["the user to check".to_owned()],
            now: noon(),
        }
    }

    /// Returns a server that accepts the old CA, the new CA, or both.
    fn server(&self, old: bool, new: bool, presents: Vec<CertificateFacts>) -> Server {
        let takes: BTreeMap<_, _> =
            [(self.old.facts().fingerprint(), old), (self.new.facts().fingerprint(), new)].into();
        let keys = [("old", old), ("new", new)].into_iter().filter(|(_, takes)| *takes);
        Server {
            presents,
            accepts: takes.clone(),
            accepts_front_proxy: takes,
            token_keys: keys.map(|(key, _)| key.to_owned()).collect(),
        }
    }

    /// Returns facts in which every server accepts these CAs, presents the certificate, and publishes the CAs.
    fn facts(&self, old: bool, new: bool, presents: &[&CertificateFacts]) -> RotationFacts {
        let presents: Vec<_> = presents.iter().copied().cloned().collect();
        let server = || self.server(old, new, presents.clone());
        let servers: BTreeMap<_, _> = ["cp1", "cp2"].map(|node| (node.to_owned(), server())).into();
        let kubelets = ["cp1", "cp2", "worker1"].map(|node| (node.to_owned(), Some(server())));
        let cas = [(self.old.facts(), old), (self.new.facts(), new)].into_iter();
        let published: BTreeSet<_> = cas.filter(|(_, there)| *there).map(|(one, _)| one.fingerprint()).collect();
        let namespaces = ["default", "kube-system"].map(|name| (name.to_owned(), published.clone()));
        RotationFacts {
            api_servers: servers.clone(),
            etcd: servers,
            kubelets: Some(kubelets.into()),
            root_cas: Some(namespaces.into()),
            client_cas: Some(published.clone()),
            front_proxy_cas: Some(published),
            prepared: Some(BUNDLE.to_owned()),
        }
    }
}

#[test]
fn trust_waits_for_each_server_that_does_not_accept_the_new_ca() {
    let pki = Pki::new();
    let (good, lagging) = (pki.facts(true, true, &[]), pki.server(true, false, vec![]));
    for subject in Subject::ALL {
        assert!(waits(subject, Stage::Trust, &pki.at(), &good).is_empty(), "{subject:?}");
    }
    let of = |subject, change: &dyn Fn(&mut RotationFacts)| {
        let mut facts = good.clone();
        change(&mut facts);
        waits(subject, Stage::Trust, &pki.at(), &facts).join("; ")
    };
    let old: BTreeSet<_> = [pki.old.facts().fingerprint()].into();
    let api_server = |facts: &mut RotationFacts| _ = facts.api_servers.insert("cp2".to_owned(), lagging.clone());
    let takes = "on cp2 to accept clients of the new CA";
    assert_eq!(of(CLUSTER, &api_server), format!("kube-apiserver {takes}"));
    assert_eq!(of(FRONT_PROXY, &api_server), format!("kube-apiserver {takes}"));
    assert_eq!(of(ETCD, &api_server), "");
    let key = "kube-apiserver on cp2 to verify tokens with the new key";
    assert_eq!(of(Subject::ServiceAccountKey, &api_server), key);
    assert_eq!(of(ETCD, &|facts| _ = facts.etcd.insert("cp2".to_owned(), lagging.clone())), format!("etcd {takes}"));
    assert_eq!(of(ETCD, &|facts| _ = facts.etcd.remove("cp1")), "etcd on cp1 to answer");
    let kubelet = |server: Option<Server>| {
        let change = move |facts: &mut RotationFacts| {
            _ = facts.kubelets.as_mut().unwrap().insert("worker1".to_owned(), server.clone());
        };
        of(CLUSTER, &change)
    };
    assert_eq!(kubelet(Some(lagging.clone())), "the kubelet of worker1 to accept clients of the new CA");
    assert_eq!(kubelet(None), "the kubelet of worker1 to answer");
    let namespace =
        |facts: &mut RotationFacts| _ = facts.root_cas.as_mut().unwrap().insert("web".to_owned(), old.clone());
    let written = "kube-controller-manager to write the new CA to ConfigMap web/kube-root-ca.crt";
    assert_eq!(of(CLUSTER, &namespace), written);
    let config_map = "ConfigMap kube-system/extension-apiserver-authentication";
    let clients = of(CLUSTER, &|facts| facts.client_cas = Some(old.clone()));
    assert_eq!(clients, format!("the new CA to be in client-ca-file of {config_map}"));
    let proxies = of(FRONT_PROXY, &|facts| facts.front_proxy_cas = None);
    assert_eq!(proxies, format!("requestheader-client-ca-file of {config_map} to be read"));
    let prepared = of(CLUSTER, &|facts| facts.prepared = Some("old".to_owned()));
    assert_eq!(prepared, "cluster-info in the target cluster to contain the trust bundle");
    // A server that was not probed has not accepted.
    assert_eq!(waits(CLUSTER, Stage::Trust, &pki.at(), &RotationFacts::default()).len(), 6);
}

#[test]
fn drop_waits_until_every_server_rejects_the_old_ca() {
    let pki = Pki::new();
    let good = pki.facts(false, true, &[&pki.leaf_of_new]);
    let at = StageInputs { nodes_updated_since: Some(noon() - SignedDuration::from_mins(2)), ..pki.at() };
    for subject in Subject::ALL {
        assert!(waits(subject, Stage::Drop, &at, &good).is_empty(), "{subject:?}");
    }
    let mut silent = good.clone();
    silent.etcd.insert("cp2".to_owned(), Server::default());
    silent.api_servers.remove("cp1");
    silent.kubelets.as_mut().unwrap().insert("worker1".to_owned(), None);
    let of = |subject, facts: &RotationFacts| waits(subject, Stage::Drop, &at, facts);
    assert_eq!(of(ETCD, &silent), ["etcd on cp2 to answer"]);
    assert_eq!(of(CLUSTER, &silent), ["kube-apiserver on cp1 to answer", "the kubelet of worker1 to answer"]);
    assert_eq!(of(FRONT_PROXY, &silent), ["kube-apiserver on cp1 to answer"]);
    assert_eq!(of(Subject::ServiceAccountKey, &silent), ["kube-apiserver on cp1 to answer"]);
    let mut late = good;
    late.etcd.insert("cp2".to_owned(), pki.server(true, true, vec![]));
    late.api_servers.insert("cp2".to_owned(), pki.server(true, true, vec![]));
    assert_eq!(of(ETCD, &late), ["etcd on cp2 to reject clients of the old CA"]);
    let tokens = of(Subject::ServiceAccountKey, &late);
    assert_eq!(tokens, ["kube-apiserver on cp2 to verify tokens without the old key"]);
}

#[test]
fn revoke_also_waits_for_certificates_of_the_new_ca() {
    let pki = Pki::new();
    let at = StageInputs {
        nodes_updated_since: Some(noon() - SignedDuration::from_mins(2)),
        is_cross_signed: false,
        ..pki.at()
    };
    let of = |subject, facts: &RotationFacts| waits(subject, Stage::Revoke, &at, facts);
    let good = pki.facts(false, true, &[&pki.leaf_of_new]);
    for subject in Subject::ALL {
        assert!(of(subject, &good).is_empty(), "{subject:?}: {:?}", of(subject, &good));
    }
    let mut silent = good.clone();
    silent.api_servers.remove("cp1");
    silent.kubelets.as_mut().unwrap().insert("worker1".to_owned(), None);
    assert_eq!(of(CLUSTER, &silent), ["kube-apiserver on cp1 to answer", "the kubelet of worker1 to answer"]);
    let late = pki.facts(false, true, &[&pki.leaf_of_old]);
    assert!(of(CLUSTER, &late).iter().any(|wait| wait.starts_with("the kubelet of") && wait.contains("to present")));
    assert!(of(CLUSTER, &late).iter().any(|wait| wait.starts_with("kube-apiserver on") && wait.contains("to present")));
    assert!(of(ETCD, &late).iter().all(|wait| wait.starts_with("etcd on") && wait.contains("to present")));
    let expected = "the kubelet of worker1 to get a client certificate of the new CA".to_owned();
    let at = StageInputs { kubelet_clients: vec![expected.clone()], ..at };
    assert_eq!(waits(CLUSTER, Stage::Revoke, &at, &good), [expected]);
}

#[test]
fn clients_stage_waits_one_poll_after_all_nodes_are_updated() {
    let (pki, facts) = (Pki::new(), RotationFacts::default());
    let of = |subject, nodes_updated_since| {
        let at = StageInputs { nodes_updated_since, ..pki.at() };
        waits(subject, Stage::Clients, &at, &facts)
    };
    for subject in [CLUSTER, FRONT_PROXY] {
        assert_eq!(of(subject, None).len(), 1);
        let early = of(subject, Some(noon() - SignedDuration::from_secs(329)));
        assert!(early[0].ends_with("until 2026-11-23T12:00:01Z"), "{early:?}");
        assert!(of(subject, Some(noon() - SignedDuration::from_secs(330))).is_empty());
    }
    // etcd clients read their certificates for the next connection.
    assert!(of(ETCD, None).is_empty());
}

#[test]
fn drop_waits_until_api_servers_cannot_republish_the_old_ca() {
    let pki = Pki::new();
    let facts = pki.facts(false, true, &[&pki.leaf_of_new]);
    let of = |subject, seconds| {
        let at = StageInputs { nodes_updated_since: Some(noon() - SignedDuration::from_secs(seconds)), ..pki.at() };
        waits(subject, Stage::Drop, &at, &facts)
    };
    for subject in [CLUSTER, FRONT_PROXY] {
        let early = of(subject, 119);
        assert!(early[0].ends_with("until 2026-11-23T12:00:01Z"), "{early:?}");
        assert!(of(subject, 120).is_empty());
    }
    assert!(of(ETCD, 0).is_empty() && of(Subject::ServiceAccountKey, 0).is_empty());
}

#[test]
fn kubelets_stage_waits_for_each_certificate_of_the_new_ca() {
    let pki = Pki::new();
    let mut facts = pki.facts(true, true, &[&pki.leaf_of_new]);
    let of = |at: &StageInputs<'_>, facts: &RotationFacts| waits(CLUSTER, Stage::Kubelets, at, facts);
    assert!(of(&pki.at(), &facts).is_empty());
    let client = "the kubelet of cp1 to get a client certificate".to_owned();
    let at = StageInputs { kubelet_clients: vec![client.clone()], ..pki.at() };
    assert_eq!(of(&at, &facts), [client]);
    let old = pki.server(true, true, vec![pki.leaf_of_old.clone()]);
    facts.kubelets.as_mut().unwrap().insert("worker1".to_owned(), Some(old));
    let presents = "the kubelet of worker1 to present a certificate of the new CA";
    assert_eq!(of(&pki.at(), &facts), [presents]);
    facts.kubelets = None;
    assert_eq!(of(&pki.at(), &facts), ["the list of Nodes"]);
    assert!(waits(ETCD, Stage::Kubelets, &pki.at(), &facts).is_empty());
}

#[test]
fn servers_stage_waits_for_certificates_and_cross_signed_chains() {
    let pki = Pki::new();
    let of = |subject, at: &StageInputs<'_>, facts: &RotationFacts| waits(subject, Stage::Servers, at, facts);
    let chained = pki.facts(true, true, &[&pki.leaf_of_new, &pki.cross]);
    let alone = pki.server(true, true, vec![pki.leaf_of_new.clone()]);
    let old = pki.server(true, true, vec![pki.leaf_of_old.clone()]);
    for (subject, component) in [(CLUSTER, "kube-apiserver"), (ETCD, "etcd")] {
        assert!(of(subject, &pki.at(), &chained).is_empty());
        let with = |server: &Server| {
            let mut facts = chained.clone();
            let servers = if subject == ETCD { &mut facts.etcd } else { &mut facts.api_servers };
            servers.insert("cp2".to_owned(), server.clone());
            facts
        };
        let presents = format!("{component} on cp2 to present a certificate of the new CA");
        assert_eq!(of(subject, &pki.at(), &with(&old)), [presents]);
        let chain = format!("{component} on cp2 to present the cross-signed certificate of the new CA");
        assert_eq!(of(subject, &pki.at(), &with(&alone)), [chain]);
        let at = StageInputs { is_cross_signed: false, ..pki.at() };
        assert!(of(subject, &at, &with(&alone)).is_empty());
    }
    assert!(of(FRONT_PROXY, &pki.at(), &RotationFacts::default()).is_empty());
}

#[test]
fn gate_waits_only_for_approval() {
    let (pki, facts) = (Pki::new(), RotationFacts::default());
    for subject in Subject::ALL {
        let at = StageInputs { outdated_nodes: vec!["cp1: not updated".to_owned()], ..pki.at() };
        assert_eq!(waits(subject, Stage::Gate, &at, &facts), ["the user to check"]);
        let at = StageInputs { may_complete: true, ..at };
        assert!(waits(subject, Stage::Gate, &at, &facts).is_empty());
    }
}

#[test]
fn every_stage_except_the_gate_waits_for_nodes_and_restarts() {
    let pki = Pki::new();
    let held = Some(noon() - CLIENT_RELOAD_WAIT);
    for stage in [Stage::Trust, Stage::Clients, Stage::Signing, Stage::Kubelets, Stage::Servers, Stage::Drop] {
        let facts = match stage {
            Stage::Drop => pki.facts(false, true, &[&pki.leaf_of_new]),
            _ => pki.facts(true, true, &[&pki.leaf_of_new, &pki.cross]),
        };
        let at = StageInputs {
            outdated_nodes: vec!["cp1: not updated".to_owned()],
            rollout: Some("etcd on cp2"),
            nodes_updated_since: held,
            ..pki.at()
        };
        for subject in Subject::ALL {
            assert_eq!(
                waits(subject, stage, &at, &facts),
                ["cp1: not updated", "etcd on cp2"],
                "{subject:?} {stage:?}"
            );
        }
    }
}
