//! Rotations against machines that get their files late and in any order, and components that read some of them only when
//! they start: at no moment may anybody be refused who was not to be refused.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;
#[path = "rotation/emergency.rs"]
mod emergency;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use common::{THREE, carry_out, cluster_with_policy, give, intermediate, mint, settle_at, text};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_agent::authorities::is_cut_off;
use keyplane_core::agent_report::NodeReport;
use keyplane_core::authorities::AuthoritySet;
use keyplane_core::blocker::Blocker;
use keyplane_core::etcd::Member;
use keyplane_core::kubeconfig::embedded_credential;
use keyplane_core::model::Cluster;
use keyplane_core::observed::AgentFacts;
use keyplane_core::observed::StaticPod;
use keyplane_core::observed::{EtcdFacts, Observed};
use keyplane_core::pki::{
    CertificateFacts, CertificateOrder, ExtendedUsage, PrivateKey, Subject, certificates_in, first_certificate,
};
use keyplane_core::plan::{Plan, plan, status};
use keyplane_core::rotation::{RotationFacts, Server};
use keyplane_crds::{KeyAlgorithm, RotationPhase, RotationStatus, condition_of, keys};
use keyplane_issuance::x509::generate;
use keyplane_issuance::x509::issue;
use kube::ResourceExt;
use serde_json::{Value, json};

const NODES: [&str; 3] = ["cp1", "cp2", "cp3"];
const COMPONENTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
const POLICY: &str = "{authority: {keyAlgorithm: ECDSA-P256}, leaf: {keyAlgorithm: ECDSA-P256}}";

type Files = BTreeMap<String, String>;

/// One machine: what lies there, and what each component has read of it.
#[derive(Default)]
struct Machine {
    disk: Files,
    /// For what its agent has started etcd anew.
    etcd_restart: Option<String>,
    /// What was there when the component started.
    started: BTreeMap<&'static str, Files>,
    /// What client-go in the API server has seen, and when it looks again.
    polled: Files,
    next_poll: Option<Timestamp>,
    /// When the kubelet last read kubelet.conf.
    kubelet_trust: String,
    kubelet_client: String,
    kubelet_server: String,
}

struct World {
    cluster: Cluster,
    spec: String,
    observed: Observed,
    annotations: BTreeMap<String, String>,
    policy: String,
    machines: BTreeMap<&'static str, Machine>,
    now: Timestamp,
    random: u64,
    /// What somebody outside keeps: the first bundle, credential and key.
    outside: (String, String, String),
    stages: Vec<String>,
    restarts: BTreeMap<String, usize>,
    /// Whether the machines have agents. Without them a person acknowledges what was carried there.
    has_agents: bool,
    /// Whether somebody has confirmed that the cluster is interrupted: then not everybody reaches everybody.
    interrupted: bool,
}

thread_local! {
    /// Signatures are verified once: the same pairs are looked at again and again.
    static VERIFIED: RefCell<HashMap<(String, String), bool>> = RefCell::default();
    /// So are kubeconfigs read: the authorities in it, and the client certificate.
    static READ: RefCell<HashMap<String, (String, Option<String>)>> = RefCell::default();
}

fn chain_is_good(presented: &str, trust: &str) -> bool {
    let pair = (presented.to_owned(), trust.to_owned());
    if let Some(known) = VERIFIED.with_borrow(|known| known.get(&pair).copied()) {
        return known;
    }
    let good = verifies(presented, trust);
    VERIFIED.with_borrow_mut(|known| known.insert(pair, good));
    good
}

fn verifies(presented: &str, trust: &str) -> bool {
    let (Ok(chain), Ok(trust)) = (certificates_in("chain", presented), certificates_in("trust", trust)) else {
        return false;
    };
    is_below(&chain[0], &chain[1..], &trust)
}

fn is_below(certificate: &CertificateFacts, between: &[CertificateFacts], trust: &[CertificateFacts]) -> bool {
    let trusted = trust.iter().any(|authority| certificate.is_signed_by(authority));
    trusted
        || between.iter().enumerate().any(|(at, next)| {
            let others = [&between[..at], &between[at + 1..]].concat();
            certificate.is_signed_by(next) && is_below(next, &others, trust)
        })
}

fn trust_in(kubeconfig: &str) -> String {
    read(kubeconfig).0
}

fn client_in(kubeconfig: &str) -> String {
    read(kubeconfig).1.unwrap()
}

fn read(kubeconfig: &str) -> (String, Option<String>) {
    if let Some(known) = READ.with_borrow(|known| known.get(kubeconfig).cloned()) {
        return known;
    }
    let value: Value = serde_saphyr::from_str(kubeconfig).unwrap();
    let data: k8s_openapi::ByteString =
        serde_json::from_value(value["clusters"][0]["cluster"]["certificate-authority-data"].clone()).unwrap();
    let client = embedded_credential(kubeconfig).map(|(certificate, _)| certificate);
    let found = (String::from_utf8(data.0).unwrap(), client);
    READ.with_borrow_mut(|known| known.insert(kubeconfig.to_owned(), found.clone()));
    found
}

impl World {
    fn up(policy: &str, seed: u64, has_agents: bool) -> Self {
        Self::up_with(THREE, Observed::default(), policy, seed, has_agents)
    }

    fn up_with(spec: &str, observed: Observed, policy: &str, seed: u64, has_agents: bool) -> Self {
        let cluster = cluster_with_policy(spec, policy);
        let mut world = Self {
            cluster,
            spec: spec.to_owned(),
            observed,
            annotations: BTreeMap::new(),
            policy: policy.to_owned(),
            machines: NODES.map(|node| (node, Machine::default())).into(),
            now: common::noon(),
            random: seed,
            outside: Default::default(),
            stages: vec![],
            restarts: BTreeMap::new(),
            has_agents,
            interrupted: false,
        };
        settle_at(world.now, &world.cluster, &mut world.observed);
        for node in NODES {
            world.carry(node);
        }
        world.look();
        // Kubelets that are there have certificates of their own.
        settle_at(world.now, &world.cluster, &mut world.observed);
        for node in NODES {
            world.carry(node);
            world.kubelet(node, true);
        }
        world.look();
        world.report();
        let owners = text(&world.observed, "demo-kubeconfig", "value");
        world.outside = (trust_in(&owners), client_in(&owners), text(&world.observed, "demo-sa", "tls.crt"));
        world.restarts.clear();
        world.check();
        world
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn ask(&mut self, annotation: &str, value: &str) {
        self.annotations.insert(format!("keyplane.io/{annotation}"), value.to_owned());
        self.parse();
    }

    fn parse(&mut self) {
        self.cluster = cluster_with_policy(&self.spec, &self.policy).with_annotations(&self.annotations);
    }

    fn set(&self, name: &str) -> AuthoritySet {
        AuthoritySet::from_secret(name, &self.observed.secrets[name]).unwrap()
    }

    /// The machine gets its files; static pods whose manifest is another one are made anew.
    fn carry(&mut self, node: &'static str) {
        let (secret, config) = (format!("demo-{node}-pki"), format!("demo-{node}-config"));
        let mut disk: Files = BTreeMap::new();
        for (key, value) in self.observed.secrets[&secret].data.iter().flatten() {
            disk.insert(key.clone(), String::from_utf8(value.0.clone()).unwrap());
        }
        disk.extend(self.observed.config_maps[&config].data.clone().unwrap());
        let machine = self.machines.get_mut(node).unwrap();
        let before = std::mem::replace(&mut machine.disk, disk);
        for component in COMPONENTS {
            let manifest = format!("{component}.yaml");
            if before.get(&manifest) != machine.disk.get(&manifest) {
                machine.started.insert(component, machine.disk.clone());
                *self.restarts.entry(component.to_owned()).or_default() += 1;
            }
        }
        if machine.polled.is_empty() {
            machine.polled = machine.disk.clone();
        }
        // A kubelet that is refused takes the certificate that came with the files.
        if let Some((given, _)) = embedded_credential(&machine.disk["kubelet.conf"])
            && !machine.kubelet_client.is_empty()
            && is_cut_off(&machine.kubelet_client, &given, &machine.disk["ca.crt"])
        {
            machine.kubelet_client = given;
        }
        // The agent starts the kubelet anew when the authority in its kubeconfig is another one.
        machine.kubelet_trust = trust_in(&machine.disk["kubelet.conf"]);
        if self.has_agents {
            return self.act_as_agent(node);
        }
        let secret = self.observed.secrets.get_mut(&secret).unwrap();
        let checksum = secret.annotations()[keys::CONTENT_CHECKSUM_ANNOTATION].clone();
        secret.annotations_mut().insert(keys::APPLIED_CHECKSUM_ANNOTATION.to_owned(), checksum);
        let config = self.observed.config_maps.get_mut(&config).unwrap();
        let checksum = config.annotations()[keys::CONTENT_CHECKSUM_ANNOTATION].clone();
        config.annotations_mut().insert(keys::APPLIED_CHECKSUM_ANNOTATION.to_owned(), checksum);
    }

    /// The agent starts etcd anew if it is told to, and reports.
    fn act_as_agent(&mut self, node: &'static str) {
        let machine = self.machines.get_mut(node).unwrap();
        let config = &self.observed.config_maps[&format!("demo-{node}-config")];
        if let Some(mark) = config.annotations().get(keys::ETCD_RESTART_ANNOTATION)
            && machine.etcd_restart.as_ref() != Some(mark)
        {
            machine.etcd_restart = Some(mark.clone());
            for component in ["etcd", "kube-apiserver"] {
                machine.started.insert(component, machine.disk.clone());
            }
            *self.restarts.entry("etcd in its place".to_owned()).or_default() += 1;
        }
        let held =
            |metadata: &ObjectMeta| metadata.annotations.as_ref()?.get(keys::CONTENT_CHECKSUM_ANNOTATION).cloned();
        let report = NodeReport {
            secret: held(&self.observed.secrets[&format!("demo-{node}-pki")].metadata),
            config: held(&config.metadata),
            etcd_restart: machine.etcd_restart.clone(),
            ..NodeReport::default()
        };
        let heard = Some(self.now);
        self.observed.agents.insert(node.to_owned(), AgentFacts { report: Some(report), reported: heard, heard });
    }

    /// The agent gets certificates for the kubelet, if it is told to and the controller-manager signs with that authority.
    fn kubelet(&mut self, node: &'static str, first: bool) {
        let set = self.set("demo-ca");
        let config = &self.observed.config_maps[&format!("demo-{node}-config")];
        let wanted = config.annotations().get(keys::KUBELET_CA_ANNOTATION).cloned();
        let signing = first_certificate("signing", &self.machines["cp1"].disk["cluster-signing-ca.crt"]).unwrap();
        let client = &self.machines[node].kubelet_client;
        let is_known = first || self.is_up() && chain_is_good(client, &self.machines["cp1"].disk["ca.crt"]);
        if !first && wanted != Some(signing.fingerprint()) || !is_known {
            return;
        }
        let authority = [Some(set.signing()), set.other()].into_iter().flatten();
        let authority = authority.into_iter().find(|authority| authority.facts().der == signing.der).unwrap();
        let issued = |usage| {
            let order = CertificateOrder {
                subject: Subject::user(format!("system:node:{node}")),
                alternative_names: vec![],
                extended_usages: vec![usage],
                not_before: self.now,
                not_after: self.now + SignedDuration::from_hours(24),
            };
            issue(&order, &generate(KeyAlgorithm::EcdsaP256).unwrap(), authority).unwrap()
        };
        let (client, server) = (issued(ExtendedUsage::ClientAuth), issued(ExtendedUsage::ServerAuth));
        let machine = self.machines.get_mut(node).unwrap();
        (machine.kubelet_client, machine.kubelet_server) = (client, server);
    }

    /// What a probe finds.
    fn probe(&self, presents: &str, trust: &str, secret: &str) -> Server {
        let set = self.set(secret);
        let authorities = [Some(set.signing()), set.other()].into_iter().flatten();
        let trusted = certificates_in("trust", trust).unwrap();
        let takes = |facts: &CertificateFacts| trusted.iter().any(|trusted| trusted.der == facts.der);
        Server {
            presents: certificates_in("presented", presents).unwrap(),
            accepts: authorities.map(|one| (one.facts().fingerprint(), takes(one.facts()))).collect(),
            ..Server::default()
        }
    }

    /// Whether Keyplane reaches an API server, which reaches an etcd that has a majority.
    fn is_up(&self) -> bool {
        let trust = self.set("demo-ca").bundle();
        let reaches = |from: &Machine, to: &Machine| {
            chain_is_good(&from.disk["etcd-peer.crt"], &to.started["etcd"]["etcd-ca.crt"])
                && chain_is_good(&to.disk["etcd-server.crt"], &from.started["etcd"]["etcd-ca.crt"])
        };
        let all: Vec<_> = self.machines.values().collect();
        all.iter().any(|at| {
            let members = all.iter().filter(|other| reaches(at, other) && reaches(other, at)).count();
            let of_etcd = &at.started["kube-apiserver"]["etcd-ca.crt"];
            members >= 2
                && chain_is_good(&at.disk["etcd-server.crt"], of_etcd)
                && chain_is_good(&at.disk["apiserver-etcd-client.crt"], &at.started["etcd"]["etcd-ca.crt"])
                && chain_is_good(&at.disk["apiserver.crt"], &trust)
        })
    }

    /// Keyplane looks at the target.
    fn look(&mut self) {
        if self.interrupted && !self.is_up() {
            let target = &mut self.observed.target;
            target.available = Some(Err(("Unreachable".to_owned(), "no answer".to_owned())));
            (target.nodes, target.static_pods, target.etcd) = (None, None, None);
            target.rotation = RotationFacts::default();
            return;
        }
        let mut facts = RotationFacts::default();
        let key_ids = |pem: &str| -> BTreeSet<String> {
            let secret = &self.observed.secrets["demo-sa"];
            let all =
                ["tls.key", "next.key", "previous.key"].into_iter().filter_map(|key| secret.data.as_ref()?.get(key));
            let keys = all.map(|key| PrivateKey::from_pem("sa", std::str::from_utf8(&key.0).unwrap()).unwrap());
            keys.filter(|key| pem.contains(key.public_key_pem().trim())).map(|key| key.token_key_id()).collect()
        };
        let mut kubelets = BTreeMap::new();
        let mut pods = BTreeMap::new();
        let mut members = vec![];
        for (number, (node, machine)) in (1..).zip(&self.machines) {
            let Machine { disk, started, .. } = machine;
            let mut api_server = self.probe(&disk["apiserver.crt"], &disk["ca.crt"], "demo-ca");
            let proxied = self.probe(&disk["apiserver.crt"], &disk["front-proxy-ca.crt"], "demo-proxy");
            api_server.accepts_front_proxy = proxied.accepts;
            api_server.token_keys = key_ids(&started["kube-apiserver"]["sa.pub"]);
            facts.api_servers.insert((*node).to_owned(), api_server);
            let etcd = self.probe(&disk["etcd-server.crt"], &started["etcd"]["etcd-ca.crt"], "demo-etcd");
            facts.etcd.insert((*node).to_owned(), etcd);
            let kubelet = (!machine.kubelet_server.is_empty())
                .then(|| self.probe(&machine.kubelet_server, &disk["ca.crt"], "demo-ca"));
            kubelets.insert((*node).to_owned(), kubelet);
            for component in COMPONENTS {
                let mut pod: Value = serde_saphyr::from_str(&started[component][&format!("{component}.yaml")]).unwrap();
                pod["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
                let pod = StaticPod::from(&serde_json::from_value::<Pod>(pod).unwrap());
                pods.insert(((*node).to_owned(), component.to_owned()), pod);
            }
            members.push(Member {
                id: number,
                name: (*node).to_owned(),
                peer_urls: vec![format!("https://10.0.0.1{number}:2380")],
                learner: false,
                up: true,
                trouble: None,
            });
        }
        facts.kubelets = Some(kubelets);
        // One of the controller-managers leads: whichever, it writes what it read when it started.
        let leader = &self.machines["cp2"].started["kube-controller-manager"]["ca.crt"];
        let prints = |pem: &str| certificates_in("", pem).unwrap().iter().map(CertificateFacts::fingerprint).collect();
        facts.root_authorities = Some([("default".to_owned(), prints(leader))].into());
        let of_all = |file: &str| -> BTreeSet<String> {
            self.machines.values().flat_map(|machine| prints(&machine.disk[file]) as BTreeSet<String>).collect()
        };
        facts.client_authorities = Some(of_all("ca.crt"));
        facts.front_proxy_authorities = Some(of_all("front-proxy-ca.crt"));
        facts.prepared = Some(self.set("demo-ca").bundle());
        let target = &mut self.observed.target;
        target.available = Some(Ok(()));
        target.nodes = Some(NODES.map(|node| (node.to_owned(), true)).into());
        target.static_pods = Some(pods);
        target.etcd = Some(Ok(EtcdFacts { members, confirmed: true, waits: None }));
        target.rotation = facts;
    }

    fn report(&mut self) {
        let next = plan(&self.cluster, &self.observed, self.now);
        self.report_blocked_by(&next.blockers);
    }

    fn report_blocked_by(&mut self, blockers: &[Blocker]) {
        self.observed.status = status::report(&self.cluster, &self.observed, blockers, None, self.now);
        for rotation in &self.observed.status.rotations {
            let word = format!("{} {}", rotation.name, rotation.stage.as_deref().unwrap_or("Completed"));
            if !self.stages.contains(&word) {
                self.stages.push(word);
            }
        }
    }

    /// A minute: Keyplane plans, and perhaps is killed within; some machines get their files, some kubelets their
    /// certificates.
    fn tick(&mut self) {
        self.now += SignedDuration::from_mins(1);
        self.look();
        let Plan { steps, blockers, .. } = plan(&self.cluster, &self.observed, self.now);
        let is_quiet = steps.is_empty();
        let killed_after = if self.random(4) == 0 { self.random(3) } else { u64::MAX };
        for (_, step) in (0..killed_after).zip(steps) {
            carry_out(step, &self.cluster, &mut self.observed);
            self.check();
        }
        match killed_after {
            u64::MAX if is_quiet => self.report_blocked_by(&blockers),
            u64::MAX => self.report(),
            _ => {}
        }
        let first = self.random(3);
        for node in (first..first + 3).map(|number| NODES[usize::try_from(number % 3).unwrap()]) {
            if self.random(2) == 0 {
                self.kubelet(node, false);
            }
            if self.random(3) > 0 {
                self.carry(node);
            }
        }
        let now = self.now;
        for agent in self.observed.agents.values_mut() {
            (agent.reported, agent.heard) = (Some(now), Some(now));
        }
        for machine in self.machines.values_mut() {
            if machine.next_poll.is_none_or(|next| next <= now) {
                machine.polled = machine.disk.clone();
                machine.next_poll = Some(now + SignedDuration::from_mins(5));
            }
        }
        self.check();
    }

    fn rotation(&self, name: &str) -> Option<&RotationStatus> {
        self.observed.status.rotations.iter().find(|rotation| rotation.name == name)
    }

    /// Runs until the rotation is in that phase.
    fn run_until(&mut self, name: &str, phase: RotationPhase) {
        for _ in 0..300 {
            self.tick();
            if self.rotation(name).is_some_and(|rotation| rotation.phase == phase) {
                return;
            }
        }
        panic!("{name} never {phase:?}: {:#?}", self.observed.status.rotations);
    }

    fn manifests_of_etcd(&self) -> Vec<String> {
        self.machines.values().map(|machine| machine.disk["etcd.yaml"].clone()).collect()
    }

    fn is_dropping(&self, name: &str) -> bool {
        let set = self.set(name);
        set.stage().is_none() && set.state().is_some() || set.stage() == Some(keyplane_core::rotation::Stage::Drop)
    }

    /// Everybody who has to reach somebody does.
    fn check(&self) {
        if self.interrupted {
            return;
        }
        let (outside_trust, outside_client, outside_key) = &self.outside;
        let owners = text(&self.observed, "demo-kubeconfig", "value");
        let fail = |what: &str, from: &str, to: &str| panic!("{what}: {from} -> {to}, after {:?}", self.stages);
        for (server, at) in &self.machines {
            let presented = &at.disk["apiserver.crt"];
            let api = &at.started["kube-apiserver"];
            for (client, from) in &self.machines {
                for (component, file) in
                    [("kube-controller-manager", "controller-manager.conf"), ("kube-scheduler", "scheduler.conf")]
                {
                    let kubeconfig = &from.started[component][file];
                    if !chain_is_good(presented, &trust_in(kubeconfig)) {
                        fail(&format!("{component} does not trust the API server"), client, server);
                    }
                    if !chain_is_good(&client_in(kubeconfig), &at.disk["ca.crt"]) {
                        fail(&format!("the API server does not know {component}"), client, server);
                    }
                }
                if !chain_is_good(presented, &from.kubelet_trust) {
                    fail("the kubelet does not trust the API server", client, server);
                }
                if !from.kubelet_client.is_empty() && !chain_is_good(&from.kubelet_client, &at.disk["ca.crt"]) {
                    fail("the API server does not know the kubelet", client, server);
                }
                if !from.kubelet_server.is_empty() && !chain_is_good(&from.kubelet_server, &at.polled["ca.crt"]) {
                    fail("the API server does not trust the kubelet", server, client);
                }
                if !chain_is_good(&at.polled["apiserver-kubelet-client.crt"], &from.disk["ca.crt"]) {
                    fail("the kubelet does not know the API server", server, client);
                }
                let members = [("etcd-peer.crt", "peer"), ("etcd-server.crt", "server")];
                for (file, what) in members {
                    if !chain_is_good(&from.disk[file], &at.started["etcd"]["etcd-ca.crt"]) {
                        fail(&format!("etcd does not know its {what}"), client, server);
                    }
                }
                if !chain_is_good(&from.disk["etcd-server.crt"], &api["etcd-ca.crt"]) {
                    fail("the API server does not trust etcd", server, client);
                }
                if !chain_is_good(&at.disk["apiserver-etcd-client.crt"], &from.started["etcd"]["etcd-ca.crt"]) {
                    fail("etcd does not know the API server", server, client);
                }
                if !chain_is_good(&at.polled["front-proxy-client.crt"], &from.disk["front-proxy-ca.crt"]) {
                    fail("an API server does not know another one as front proxy", server, client);
                }
                let signing = PrivateKey::from_pem("sa", &from.started["kube-apiserver"]["sa.key"]).unwrap();
                if !api["sa.pub"].contains(signing.public_key_pem().trim()) {
                    fail("a token is not verified", client, server);
                }
            }
            if !chain_is_good(presented, &trust_in(&owners)) || !chain_is_good(&client_in(&owners), &at.disk["ca.crt"])
            {
                fail("the owner's kubeconfig is no good", "outside", server);
            }
            if (!self.is_dropping("demo-ca") || self.set("demo-ca").state().is_some_and(|state| state.rolling_back))
                && !(chain_is_good(presented, outside_trust) && chain_is_good(outside_client, &at.disk["ca.crt"]))
            {
                fail("a kubeconfig from before is no good", "outside", server);
            }
            let tokens = self.rotation("service-account-key").map(|rotation| rotation.phase);
            if tokens.is_none_or(|phase| phase < RotationPhase::Prepared) && !api["sa.pub"].contains(outside_key.trim())
            {
                fail("a token from before is not verified", "outside", server);
            }
        }
    }
}

#[test]
fn everything_is_rotated_at_once_and_nobody_is_refused_on_the_way() {
    let mut world = World::up(POLICY, 2026, true);
    let before = text(&world.observed, "demo-ca", "tls.crt");
    let pods_of_etcd = world.manifests_of_etcd();
    world.ask("rotate-certificate-authorities", "2026");
    world.ask("rotate-service-account-key", "2026");
    for name in ["ca", "etcd-ca", "front-proxy-ca", "service-account-key"] {
        if world.rotation(name).is_none_or(|rotation| rotation.phase < RotationPhase::Prepared) {
            world.run_until(name, RotationPhase::Prepared);
        }
    }
    // What can't be seen waits for a person, for as long as that takes.
    for _ in 0..5 {
        world.tick();
    }
    assert_eq!(world.rotation("ca").unwrap().phase, RotationPhase::Prepared);
    let condition = condition_of(&world.observed.status.conditions, "RotationsCompleted").unwrap().clone();
    assert_eq!(condition.reason, "WaitingForApproval", "{condition:?}");
    assert!(condition.message.contains("spec.rotate.complete"), "{condition:?}");
    world.ask("complete-rotation", "2026");
    for name in ["ca", "etcd-ca", "front-proxy-ca", "service-account-key"] {
        if world.rotation(name).unwrap().phase < RotationPhase::Completed {
            world.run_until(name, RotationPhase::Completed);
        }
    }
    for node in NODES {
        let disk = &world.machines[node].disk;
        assert_eq!(disk["ca.crt"], text(&world.observed, "demo-ca", "tls.crt"), "{node}");
        assert_eq!(certificates_in("chain", &disk["apiserver.crt"]).unwrap().len(), 1, "{node}");
        assert!(!disk["ca.crt"].contains(&before) && !disk["sa.pub"].contains(&world.outside.2));
    }
    // Once for the new authority, once without the old one, on each machine, and its pod stays what it is.
    assert_eq!(world.restarts["etcd in its place"], 6, "{:?}", world.restarts);
    assert_eq!(world.manifests_of_etcd(), pods_of_etcd);
    for secret in ["demo-ca", "demo-etcd", "demo-proxy", "demo-sa"] {
        let keys: Vec<_> = world.observed.secrets[secret].data.as_ref().unwrap().keys().collect();
        assert_eq!(keys, ["tls.crt", "tls.key"], "{secret}");
    }
    // Done is done: the same request asks for nothing more.
    let stages = world.stages.len();
    for _ in 0..5 {
        world.tick();
    }
    assert_eq!(world.stages.len(), stages);
    assert!(plan(&world.cluster, &world.observed, world.now).steps.is_empty());
}

#[test]
fn a_rotation_is_taken_back_before_it_is_completed_and_nobody_is_refused_on_the_way_back() {
    let mut world = World::up(POLICY, 7, false);
    let secrets = ["demo-ca", "demo-sa"];
    let before = secrets.map(|secret| text(&world.observed, secret, "tls.key"));
    world.ask("rotate-certificate-authorities", "2026");
    world.ask("rotate-service-account-key", "2026");
    world.run_until("ca", RotationPhase::Prepared);
    assert_ne!(secrets.map(|secret| text(&world.observed, secret, "tls.key")), before);
    world.ask("roll-back-rotation", "2026");
    world.run_until("ca", RotationPhase::Completed);
    assert!(world.rotation("ca").unwrap().rolling_back);
    if world.rotation("service-account-key").unwrap().phase < RotationPhase::Completed {
        world.run_until("service-account-key", RotationPhase::Completed);
    }
    assert_eq!(secrets.map(|secret| text(&world.observed, secret, "tls.key")), before);
    for node in NODES {
        assert_eq!(world.machines[node].disk["ca.crt"], world.outside.0, "{node}");
        assert_eq!(world.machines[node].disk["sa.pub"], world.outside.2, "{node}");
    }
    // The value that was taken back asks for nothing any more; another one does.
    world.tick();
    assert_eq!(world.rotation("ca").unwrap().phase, RotationPhase::Completed);
}

const GIVEN: &str = "
certificateAuthorities:
  cluster: {secretRef: {name: corp-ca}}
  etcd: {secretRef: {name: corp-etcd-ca}}
  frontProxy: {secretRef: {name: corp-front-proxy-ca}}
";
const NAMES: [&str; 3] = ["corp-ca", "corp-etcd-ca", "corp-front-proxy-ca"];

/// Three authorities below one root, as the user's Secrets; gives back the root.
fn give_all(observed: &mut Observed, now: Timestamp) -> String {
    let root = mint("Corp Root", now);
    for name in NAMES {
        let (certificate, key, root) = intermediate(name, &root, now);
        give(observed, name, &[("tls.crt", &certificate), ("tls.key", &key), ("ca.crt", &root)]);
    }
    root.certificate_pem().to_owned()
}

/// Nothing but the user's three authorities is trusted, and a server brings along what leads to the root.
fn check_given(world: &World, root: &str) {
    let given = NAMES.map(|name| text(&world.observed, name, "tls.crt"));
    for node in NODES {
        let disk = &world.machines[node].disk;
        for (file, given) in ["ca.crt", "etcd-ca.crt", "front-proxy-ca.crt"].into_iter().zip(&given) {
            assert_eq!(&disk[file], given, "{node}: {file}");
        }
        assert_eq!(trust_in(&disk["admin.conf"]), given[0]);
        assert!(disk.values().all(|content| !content.contains(root.trim())), "the root is on {node}");
        for server in ["apiserver.crt", "etcd-server.crt", "etcd-peer.crt"] {
            assert!(chain_is_good(&disk[server], root), "{server} of {node} leads to the root");
            assert_eq!(certificates_in(server, &disk[server]).unwrap().len(), 2);
        }
        assert_eq!(certificates_in("client", &disk["apiserver-kubelet-client.crt"]).unwrap().len(), 1);
    }
    let bundle = world.observed.config_maps["demo-ca-bundle"].data.as_ref().unwrap();
    assert_eq!((bundle["ca.crt"].as_str(), bundle["root.crt"].as_str()), (given[0].as_str(), root));
}

impl World {
    fn condition(&self, name: &str) -> (String, String) {
        let condition = condition_of(&self.observed.status.conditions, name).unwrap();
        (condition.reason.clone(), condition.message.clone())
    }

    /// Completes what is at the gate, one after the other, as each has a value of its own.
    fn complete_all(&mut self) {
        for name in ["ca", "etcd-ca", "front-proxy-ca"] {
            if self.rotation(name).is_none_or(|rotation| rotation.phase != RotationPhase::Prepared) {
                self.run_until(name, RotationPhase::Prepared);
            }
            let requested = self.rotation(name).unwrap().requested.clone().unwrap();
            assert!(requested.starts_with("given-"), "{requested}");
            self.ask("complete-rotation", &requested);
            self.run_until(name, RotationPhase::Completed);
        }
    }
}

#[test]
fn authorities_of_the_users_own_come_by_a_rotation_and_go_by_one_and_nobody_is_refused() {
    let mut world = World::up(POLICY, 11, true);
    let first = give_all(&mut world.observed, world.now);
    world.spec = format!("{THREE}{GIVEN}");
    world.parse();
    world.report();
    assert_eq!(world.condition("CertificateAuthoritiesInSync").0, "WaitingToStart");
    world.tick();
    world.run_until("ca", RotationPhase::Preparing);
    assert_eq!(world.condition("CertificateAuthoritiesInSync").0, "RotationInProgress");
    world.complete_all();
    check_given(&world, &first);
    assert_eq!(world.condition("CertificateAuthoritiesInSync").0, "InSync");
    // From now on somebody outside trusts the root alone, as long as what is below it stays.
    world.outside.0 = first;
    world.outside.1 = client_in(&text(&world.observed, "demo-kubeconfig", "value"));
    let second = give_all(&mut world.observed, world.now);
    world.stages.clear();
    world.complete_all();
    for stage in ["Trust", "Clients", "Signing", "Kubelets", "Servers", "Gate", "Drop"] {
        assert!(world.stages.contains(&format!("ca {stage}")), "{stage}: {:?}", world.stages);
    }
    check_given(&world, &second);
    // Without the Secrets, and without the reference, all goes on.
    world.observed.secrets.remove("corp-ca");
    world.report();
    let (reason, message) = world.condition("CertificateAuthoritiesInSync");
    assert_eq!(reason, "SecretNotFound");
    assert!(message.contains("goes on with what Secret demo-ca has"), "{message}");
    assert!(plan(&world.cluster, &world.observed, world.now).blockers.is_empty());
    world.spec = THREE.to_owned();
    world.parse();
    assert!(plan(&world.cluster, &world.observed, world.now).steps.is_empty());
    world.report();
    assert!(condition_of(&world.observed.status.conditions, "CertificateAuthoritiesInSync").is_none());
    // The way back to one that Keyplane makes.
    world.outside.0 = second;
    world.outside.1 = client_in(&text(&world.observed, "demo-kubeconfig", "value"));
    world.ask("rotate-certificate-authorities", "own");
    world.ask("complete-rotation", "own");
    world.run_until("ca", RotationPhase::Completed);
    let own = text(&world.observed, "demo-ca", "tls.crt");
    assert!(first_certificate("ca", &own).unwrap().is_self_signed());
    assert_eq!(world.machines["cp1"].disk["ca.crt"], own);
    assert!(!world.observed.config_maps["demo-ca-bundle"].data.as_ref().unwrap().contains_key("root.crt"));
}

#[test]
fn a_given_authority_that_is_taken_back_is_not_taken_up_again() {
    let mut observed = Observed::default();
    let root = give_all(&mut observed, common::noon());
    let mut world = World::up_with(&format!("{THREE}{GIVEN}"), observed, POLICY, 5, false);
    check_given(&world, &root);
    let (certificate, key, above) = intermediate("corp-ca", &mint("Other Root", world.now), world.now);
    give(&mut world.observed, "corp-ca", &[("tls.crt", &certificate), ("tls.key", &key), ("ca.crt", &above)]);
    world.run_until("ca", RotationPhase::Prepared);
    let requested = world.rotation("ca").unwrap().requested.clone().unwrap();
    world.ask("roll-back-rotation", &requested);
    world.run_until("ca", RotationPhase::Completed);
    for _ in 0..5 {
        world.tick();
    }
    assert_eq!(world.rotation("ca").unwrap().phase, RotationPhase::Completed);
    let (reason, message) = world.condition("CertificateAuthoritiesInSync");
    assert_eq!(reason, "RolledBack");
    assert!(message.contains(&requested) && message.contains("corp-ca"), "{message}");
    let roots = world.observed.config_maps["demo-ca-bundle"].data.as_ref().unwrap()["root.crt"].clone();
    assert_eq!(roots, root);
}

#[test]
fn an_authority_is_renewed_with_its_key_and_everything_that_it_has_signed_stays() {
    let mut world = World::up(POLICY, 3, false);
    let files = ["ca.crt", "etcd-ca.crt", "front-proxy-ca.crt"];
    let before: Vec<_> = NODES.map(|node| world.machines[node].disk.clone()).into();
    world.restarts.clear();
    world.ask("renew-certificate-authorities", "2036");
    // A machine that has not got its files yet is waited for.
    world.observed.target.nodes.as_mut().unwrap().insert("cp2".to_owned(), false);
    assert!(plan(&world.cluster, &world.observed, world.now).steps.is_empty());
    world.report();
    let (reason, message) = world.condition("RotationsCompleted");
    assert_eq!(reason, "WaitingToStart");
    assert!(message.starts_with("the renewal of ca, etcd-ca, front-proxy-ca waits for cp2 to be Ready"), "{message}");
    for _ in 0..60 {
        world.tick();
    }
    assert!(plan(&world.cluster, &world.observed, world.now).steps.is_empty(), "it asks once");
    assert!(condition_of(&world.observed.status.conditions, "RotationsCompleted").is_none());
    for (node, before) in NODES.into_iter().zip(&before) {
        let machine = &world.machines[node];
        for file in files {
            assert_ne!(machine.disk[file], before[file], "{file} of {node}");
            let [old, new] = [&before[file], &machine.disk[file]].map(|pem| first_certificate(file, pem).unwrap());
            assert!(new.is_renewal_of(&old) && new.not_after > old.not_after, "{file} of {node}");
        }
        let is_of_pki = |file: &str| [".crt", ".key"].iter().any(|ending| file.ends_with(ending));
        for (file, content) in before.iter().filter(|(file, _)| is_of_pki(file)) {
            let is_authority = files.contains(&file.as_str()) || file == "cluster-signing-ca.crt";
            assert_eq!(&machine.disk[file] != content, is_authority, "{file} of {node}");
        }
        // Who reads it only when it starts has it.
        for (component, file) in [("etcd", "etcd-ca.crt"), ("kube-apiserver", "etcd-ca.crt")] {
            assert_eq!(machine.started[component][file], machine.disk[file], "{component} on {node}");
        }
        assert_eq!(machine.started["kube-controller-manager"]["ca.crt"], machine.disk["ca.crt"]);
        assert_eq!(machine.kubelet_trust, machine.disk["ca.crt"]);
    }
    assert!(COMPONENTS.iter().all(|component| world.restarts[*component] == 3), "{:?}", world.restarts);
}
