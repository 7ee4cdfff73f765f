use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::SignedDuration;
use keyplane_crds::KeyAlgorithm;

use super::*;
use crate::pki::{Authority, CertificateOrder, ExtendedUsage, PrivateKey, Subject as Name, first_certificate};
use crate::rotation::Server;
use crate::x509::generate;
use crate::x509::{cross_sign, issue, mint_authority};

const BUNDLE: &str = "old and new";
const CLUSTER: Subject = Subject::Authority(AuthorityName::Cluster);
const ETCD: Subject = Subject::Authority(AuthorityName::Etcd);
const FRONT_PROXY: Subject = Subject::Authority(AuthorityName::FrontProxy);

fn noon() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

/// Two authorities, a certificate of each, and the new authority as the old one has signed it.
struct Pki {
    old: Authority,
    new: Authority,
    leaf_of_old: CertificateFacts,
    leaf_of_new: CertificateFacts,
    cross: CertificateFacts,
}

impl Pki {
    fn new() -> Self {
        let end = noon() + SignedDuration::from_hours(24);
        let mint = || mint_authority("kubernetes", KeyAlgorithm::EcdsaP256, noon(), end).unwrap();
        let leaf = |authority: &Authority| {
            let order = CertificateOrder {
                subject: Name::user("kube-apiserver"),
                alternative_names: vec![],
                extended_usages: vec![ExtendedUsage::ServerAuth],
                not_before: noon(),
                not_after: end,
            };
            let key = generate(KeyAlgorithm::EcdsaP256).unwrap();
            first_certificate("leaf", &issue(&order, &key, authority).unwrap()).unwrap()
        };
        let (old, new) = (mint(), mint());
        let cross = first_certificate("cross", &cross_sign(&new, &old, noon()).unwrap().unwrap()).unwrap();
        Self { leaf_of_old: leaf(&old), leaf_of_new: leaf(&new), old, new, cross }
    }

    fn at(&self) -> Circumstances<'_> {
        Circumstances {
            nodes: vec!["cp1", "cp2"],
            authorities: Some((self.old.facts(), self.new.facts())),
            keys: Some(("old", "new")),
            is_cross_signed: true,
            trust: BUNDLE,
            rollout: None,
            machines: vec![],
            kubelet_clients: vec![],
            held_since: None,
            may_complete: false,
            unseen: vec!["somebody to look".to_owned()],
            now: noon(),
        }
    }

    /// Who takes the old one, and who the new one.
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

    /// Everything takes these, presents the certificate, and publishes what it takes.
    fn facts(&self, old: bool, new: bool, presents: &[&CertificateFacts]) -> RotationFacts {
        let presents: Vec<_> = presents.iter().copied().cloned().collect();
        let server = || self.server(old, new, presents.clone());
        let servers: BTreeMap<_, _> = ["cp1", "cp2"].map(|node| (node.to_owned(), server())).into();
        let kubelets = ["cp1", "cp2", "worker1"].map(|node| (node.to_owned(), Some(server())));
        let authorities = [(self.old.facts(), old), (self.new.facts(), new)].into_iter();
        let published: BTreeSet<_> =
            authorities.filter(|(_, there)| *there).map(|(one, _)| one.fingerprint()).collect();
        let namespaces = ["default", "kube-system"].map(|name| (name.to_owned(), published.clone()));
        RotationFacts {
            api_servers: servers.clone(),
            etcd: servers,
            kubelets: Some(kubelets.into()),
            root_authorities: Some(namespaces.into()),
            client_authorities: Some(published.clone()),
            front_proxy_authorities: Some(published),
            prepared: Some(BUNDLE.to_owned()),
        }
    }
}

#[test]
fn trust_waits_for_each_one_that_does_not_take_the_new_authority_yet_by_its_name() {
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
    let takes = "on cp2 to take clients of the new authority";
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
    assert_eq!(kubelet(Some(lagging.clone())), "the kubelet of worker1 to take clients of the new authority");
    assert_eq!(kubelet(None), "the kubelet of worker1 to answer");
    let namespace =
        |facts: &mut RotationFacts| _ = facts.root_authorities.as_mut().unwrap().insert("web".to_owned(), old.clone());
    let written = "kube-controller-manager to write the new authority into ConfigMap web/kube-root-ca.crt";
    assert_eq!(of(CLUSTER, &namespace), written);
    let told = "ConfigMap kube-system/extension-apiserver-authentication";
    let clients = of(CLUSTER, &|facts| facts.client_authorities = Some(old.clone()));
    assert_eq!(clients, format!("the new authority to be in client-ca-file of {told}"));
    let proxies = of(FRONT_PROXY, &|facts| facts.front_proxy_authorities = None);
    assert_eq!(proxies, format!("requestheader-client-ca-file of {told} to be read"));
    let prepared = of(CLUSTER, &|facts| facts.prepared = Some("old".to_owned()));
    assert_eq!(prepared, "cluster-info in the target to hold the bundle");
    // Who was asked nothing has not said yes.
    assert_eq!(waits(CLUSTER, Stage::Trust, &pki.at(), &RotationFacts::default()).len(), 6);
}

#[test]
fn the_old_one_is_gone_only_once_everybody_refuses_it_and_silence_is_no_refusal() {
    let pki = Pki::new();
    let good = pki.facts(false, true, &[&pki.leaf_of_new]);
    let at = Circumstances { held_since: Some(noon() - SignedDuration::from_mins(2)), ..pki.at() };
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
    assert_eq!(of(ETCD, &late), ["etcd on cp2 to refuse clients of the old authority"]);
    let tokens = of(Subject::ServiceAccountKey, &late);
    assert_eq!(tokens, ["kube-apiserver on cp2 to verify tokens without the old key"]);
}

#[test]
fn a_revocation_ends_only_once_everybody_has_moved_too_as_nothing_has_led_up_to_it() {
    let pki = Pki::new();
    let at =
        Circumstances { held_since: Some(noon() - SignedDuration::from_mins(2)), is_cross_signed: false, ..pki.at() };
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
    let told = "the kubelet of worker1 to get a client certificate of the new authority".to_owned();
    let at = Circumstances { kubelet_clients: vec![told.clone()], ..at };
    assert_eq!(waits(CLUSTER, Stage::Revoke, &at, &good), [told]);
}

#[test]
fn new_client_certificates_wait_for_a_poll_since_all_machines_hold_them() {
    let (pki, facts) = (Pki::new(), RotationFacts::default());
    let of = |subject, held_since| {
        let at = Circumstances { held_since, ..pki.at() };
        waits(subject, Stage::Clients, &at, &facts)
    };
    for subject in [CLUSTER, FRONT_PROXY] {
        assert_eq!(of(subject, None).len(), 1);
        let early = of(subject, Some(noon() - SignedDuration::from_secs(329)));
        assert!(early[0].ends_with("until 2026-11-23T12:00:01Z"), "{early:?}");
        assert!(of(subject, Some(noon() - SignedDuration::from_secs(330))).is_empty());
    }
    // etcd's clients read theirs for the next connection.
    assert!(of(ETCD, None).is_empty());
}

#[test]
fn the_old_one_has_to_stay_away_where_an_api_server_may_publish_it_again() {
    let pki = Pki::new();
    let facts = pki.facts(false, true, &[&pki.leaf_of_new]);
    let of = |subject, seconds| {
        let at = Circumstances { held_since: Some(noon() - SignedDuration::from_secs(seconds)), ..pki.at() };
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
fn kubelets_wait_for_each_certificate_of_the_new_authority() {
    let pki = Pki::new();
    let mut facts = pki.facts(true, true, &[&pki.leaf_of_new]);
    let of = |at: &Circumstances<'_>, facts: &RotationFacts| waits(CLUSTER, Stage::Kubelets, at, facts);
    assert!(of(&pki.at(), &facts).is_empty());
    let client = "the kubelet of cp1 to get a client certificate".to_owned();
    let at = Circumstances { kubelet_clients: vec![client.clone()], ..pki.at() };
    assert_eq!(of(&at, &facts), [client]);
    let old = pki.server(true, true, vec![pki.leaf_of_old.clone()]);
    facts.kubelets.as_mut().unwrap().insert("worker1".to_owned(), Some(old));
    let presents = "the kubelet of worker1 to present a certificate of the new authority";
    assert_eq!(of(&pki.at(), &facts), [presents]);
    facts.kubelets = None;
    assert_eq!(of(&pki.at(), &facts), ["the list of Nodes"]);
    assert!(waits(ETCD, Stage::Kubelets, &pki.at(), &facts).is_empty());
}

#[test]
fn servers_wait_for_each_certificate_and_for_the_cross_certificate_where_there_is_one() {
    let pki = Pki::new();
    let of = |subject, at: &Circumstances<'_>, facts: &RotationFacts| waits(subject, Stage::Servers, at, facts);
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
        let presents = format!("{component} on cp2 to present a certificate of the new authority");
        assert_eq!(of(subject, &pki.at(), &with(&old)), [presents]);
        let chain = format!("{component} on cp2 to bring along the new authority as the old one has signed it");
        assert_eq!(of(subject, &pki.at(), &with(&alone)), [chain]);
        let at = Circumstances { is_cross_signed: false, ..pki.at() };
        assert!(of(subject, &at, &with(&alone)).is_empty());
    }
    assert!(of(FRONT_PROXY, &pki.at(), &RotationFacts::default()).is_empty());
}

#[test]
fn the_gate_opens_by_acceptance_alone() {
    let (pki, facts) = (Pki::new(), RotationFacts::default());
    for subject in Subject::ALL {
        let at = Circumstances { machines: vec!["cp1: carry it".to_owned()], ..pki.at() };
        assert_eq!(waits(subject, Stage::Gate, &at, &facts), ["somebody to look"]);
        let at = Circumstances { may_complete: true, ..at };
        assert!(waits(subject, Stage::Gate, &at, &facts).is_empty());
    }
}

#[test]
fn every_stage_but_the_gate_waits_for_machines_and_restarts() {
    let pki = Pki::new();
    let held = Some(noon() - HOLD);
    for stage in [Stage::Trust, Stage::Clients, Stage::Signing, Stage::Kubelets, Stage::Servers, Stage::Drop] {
        let facts = match stage {
            Stage::Drop => pki.facts(false, true, &[&pki.leaf_of_new]),
            _ => pki.facts(true, true, &[&pki.leaf_of_new, &pki.cross]),
        };
        let at = Circumstances {
            machines: vec!["cp1: carry it".to_owned()],
            rollout: Some("etcd on cp2"),
            held_since: held,
            ..pki.at()
        };
        for subject in Subject::ALL {
            assert_eq!(waits(subject, stage, &at, &facts), ["cp1: carry it", "etcd on cp2"], "{subject:?} {stage:?}");
        }
    }
}
