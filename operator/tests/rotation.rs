//! Rotations with nodes that get their files late and in any order, and with components that read some files only when
//! they start. At no time may a valid client or server be refused.

// Clippy's exemption for tests does not cover helpers outside of `#[test]` functions.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;
#[path = "rotation/emergency.rs"]
mod emergency;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use common::{THREE, add_secret, cluster_with_policy, execute, intermediate, new_ca, settle_at, text};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_agent::trusted_cas::needs_client_replacement;
use keyplane_core::agent_report::NodeReport;
use keyplane_core::blocker::Blocker;
use keyplane_core::certificate_authorities::CaSet;
use keyplane_core::etcd::Member;
use keyplane_core::kubeconfig::embedded_credential;
use keyplane_core::model::Cluster;
use keyplane_core::observed::{AgentFacts, EtcdFacts, Observed, StaticPod};
use keyplane_core::pki::{
    CertificateFacts, CertificateTemplate, ExtendedUsage, PrivateKey, Subject, certificates_in, first_certificate,
};
use keyplane_core::plan::{Plan, plan};
use keyplane_core::rotation::{RotationFacts, Server};
use keyplane_core::status;
use keyplane_crds::{KeyAlgorithm, RotationPhase, RotationStatus, condition_of, keys};
use keyplane_issuance::x509::{generate, issue};
use kube::ResourceExt;
use serde_json::{Value, json};

const NODES: [&str; 3] = ["cp1", "cp2", "cp3"];
const COMPONENTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
const POLICY: &str = "{authority: {keyAlgorithm: ECDSA-P256}, leaf: {keyAlgorithm: ECDSA-P256}}";

type Files = BTreeMap<String, String>;

/// One node: its files, and the files that each component has read.
#[derive(Default)]
struct SimulatedNode {
    disk: Files,
    /// The restart checksum with which the agent last restarted etcd.
    etcd_restart: Option<String>,
    /// The files at the start of each component.
    started: BTreeMap<&'static str, Files>,
    /// The files that client-go in the API server has read, and the time of its next poll.
    polled: Files,
    next_poll: Option<Timestamp>,
    /// The trust bundle that the kubelet last read from kubelet.conf.
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
    nodes: BTreeMap<&'static str, SimulatedNode>,
    now: Timestamp,
    random: u64,
    /// The first trust bundle, credential and key, which an outside client keeps.
    outside: (String, String, String),
    stages: Vec<String>,
    restarts: BTreeMap<String, usize>,
    /// Whether the nodes have agents. Without agents, a person applies the files and confirms them.
    has_agents: bool,
    /// Whether somebody has confirmed an interruption of the cluster: then connections may fail.
    interrupted: bool,
}

thread_local! {
    /// Results of signature verification, because the same pairs recur.
    static VERIFIED: RefCell<HashMap<(String, String), bool>> = RefCell::default();
    /// Parsed kubeconfigs: the CAs and the client certificate.
    static READ: RefCell<HashMap<String, (String, Option<String>)>> = RefCell::default();
}

fn chain_is_valid(presented: &str, trust: &str) -> bool {
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
    let trusted = trust.iter().any(|ca| certificate.is_signed_by(ca));
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
            nodes: NODES.map(|node| (node, SimulatedNode::default())).into(),
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
            world.apply_files(node);
        }
        world.observe();
        // Registered kubelets have their own certificates.
        settle_at(world.now, &world.cluster, &mut world.observed);
        for node in NODES {
            world.apply_files(node);
            world.kubelet(node, true);
        }
        world.observe();
        world.report();
        let admin = text(&world.observed, "demo-kubeconfig", "value");
        world.outside = (trust_in(&admin), client_in(&admin), text(&world.observed, "demo-sa", "tls.crt"));
        world.restarts.clear();
        world.check();
        world
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn annotate(&mut self, annotation: &str, value: &str) {
        self.annotations.insert(format!("keyplane.io/{annotation}"), value.to_owned());
        self.parse();
    }

    fn parse(&mut self) {
        self.cluster = cluster_with_policy(&self.spec, &self.policy).with_annotations(&self.annotations);
    }

    fn set(&self, name: &str) -> CaSet {
        CaSet::from_secret(name, &self.observed.secrets[name]).unwrap()
    }

    /// Applies the files to the node. Static pods with a changed manifest are recreated.
    fn apply_files(&mut self, node: &'static str) {
        let (secret, config) = (format!("demo-{node}-pki"), format!("demo-{node}-config"));
        let mut disk: Files = BTreeMap::new();
        for (key, value) in self.observed.secrets[&secret].data.iter().flatten() {
            disk.insert(key.clone(), String::from_utf8(value.0.clone()).unwrap());
        }
        disk.extend(self.observed.config_maps[&config].data.clone().unwrap());
        let simulated = self.nodes.get_mut(node).unwrap();
        let before = std::mem::replace(&mut simulated.disk, disk);
        for component in COMPONENTS {
            let manifest = format!("{component}.yaml");
            if before.get(&manifest) != simulated.disk.get(&manifest) {
                simulated.started.insert(component, simulated.disk.clone());
                *self.restarts.entry(component.to_owned()).or_default() += 1;
            }
        }
        if simulated.polled.is_empty() {
            simulated.polled = simulated.disk.clone();
        }
        // A kubelet that is refused uses the certificate in the applied files.
        if let Some((provided, _)) = embedded_credential(&simulated.disk["kubelet.conf"])
            && !simulated.kubelet_client.is_empty()
            && needs_client_replacement(&simulated.kubelet_client, &provided, &simulated.disk["ca.crt"])
        {
            simulated.kubelet_client = provided;
        }
        // The agent restarts the kubelet when the CA in its kubeconfig changes.
        simulated.kubelet_trust = trust_in(&simulated.disk["kubelet.conf"]);
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

    /// Restarts etcd if the restart checksum has changed, and reports.
    fn act_as_agent(&mut self, node: &'static str) {
        let simulated = self.nodes.get_mut(node).unwrap();
        let config = &self.observed.config_maps[&format!("demo-{node}-config")];
        if let Some(checksum) = config.annotations().get(keys::ETCD_RESTART_ANNOTATION)
            && simulated.etcd_restart.as_ref() != Some(checksum)
        {
            simulated.etcd_restart = Some(checksum.clone());
            for component in ["etcd", "kube-apiserver"] {
                simulated.started.insert(component, simulated.disk.clone());
            }
            *self.restarts.entry("etcd in place".to_owned()).or_default() += 1;
        }
        let held =
            |metadata: &ObjectMeta| metadata.annotations.as_ref()?.get(keys::CONTENT_CHECKSUM_ANNOTATION).cloned();
        let report = NodeReport {
            secret: held(&self.observed.secrets[&format!("demo-{node}-pki")].metadata),
            config: held(&config.metadata),
            etcd_restart: simulated.etcd_restart.clone(),
            ..NodeReport::default()
        };
        let received = Some(self.now);
        self.observed.agents.insert(node.to_owned(), AgentFacts { report: Some(report), reported: received, received });
    }

    /// Renews the kubelet's certificates, if the agent must do so and the controller-manager signs with that CA.
    fn kubelet(&mut self, node: &'static str, first: bool) {
        let set = self.set("demo-ca");
        let config = &self.observed.config_maps[&format!("demo-{node}-config")];
        let wanted = config.annotations().get(keys::KUBELET_CA_ANNOTATION).cloned();
        let signing = first_certificate("signing", &self.nodes["cp1"].disk["cluster-signing-ca.crt"]).unwrap();
        let client = &self.nodes[node].kubelet_client;
        let is_known = first || self.is_up() && chain_is_valid(client, &self.nodes["cp1"].disk["ca.crt"]);
        if !first && wanted != Some(signing.fingerprint()) || !is_known {
            return;
        }
        let ca = [Some(set.signing()), set.other()].into_iter().flatten();
        let ca = ca.into_iter().find(|ca| ca.facts().der == signing.der).unwrap();
        let issued = |usage| {
            let order = CertificateTemplate {
                subject: Subject::user(format!("system:node:{node}")),
                alternative_names: vec![],
                extended_usages: vec![usage],
                not_before: self.now,
                not_after: self.now + SignedDuration::from_hours(24),
            };
            issue(&order, &generate(KeyAlgorithm::EcdsaP256).unwrap(), ca).unwrap()
        };
        let (client, server) = (issued(ExtendedUsage::ClientAuth), issued(ExtendedUsage::ServerAuth));
        let simulated = self.nodes.get_mut(node).unwrap();
        (simulated.kubelet_client, simulated.kubelet_server) = (client, server);
    }

    /// The result of a probe.
    fn probe(&self, presents: &str, trust: &str, secret: &str) -> Server {
        let set = self.set(secret);
        let cas = [Some(set.signing()), set.other()].into_iter().flatten();
        let trusted = certificates_in("trust", trust).unwrap();
        let takes = |facts: &CertificateFacts| trusted.iter().any(|trusted| trusted.der == facts.der);
        Server {
            presents: certificates_in("presented", presents).unwrap(),
            accepts: cas.map(|one| (one.facts().fingerprint(), takes(one.facts()))).collect(),
            ..Server::default()
        }
    }

    /// Whether Keyplane reaches an API server, and that API server reaches an etcd with a majority.
    fn is_up(&self) -> bool {
        let trust = self.set("demo-ca").bundle();
        let reaches = |from: &SimulatedNode, to: &SimulatedNode| {
            chain_is_valid(&from.disk["etcd-peer.crt"], &to.started["etcd"]["etcd-ca.crt"])
                && chain_is_valid(&to.disk["etcd-server.crt"], &from.started["etcd"]["etcd-ca.crt"])
        };
        let all: Vec<_> = self.nodes.values().collect();
        all.iter().any(|at| {
            let members = all.iter().filter(|other| reaches(at, other) && reaches(other, at)).count();
            let of_etcd = &at.started["kube-apiserver"]["etcd-ca.crt"];
            members >= 2
                && chain_is_valid(&at.disk["etcd-server.crt"], of_etcd)
                && chain_is_valid(&at.disk["apiserver-etcd-client.crt"], &at.started["etcd"]["etcd-ca.crt"])
                && chain_is_valid(&at.disk["apiserver.crt"], &trust)
        })
    }

    /// Observes the target cluster.
    fn observe(&mut self) {
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
        for (number, (node, simulated)) in (1..).zip(&self.nodes) {
            let SimulatedNode { disk, started, .. } = simulated;
            let mut api_server = self.probe(&disk["apiserver.crt"], &disk["ca.crt"], "demo-ca");
            let proxied = self.probe(&disk["apiserver.crt"], &disk["front-proxy-ca.crt"], "demo-proxy");
            api_server.accepts_front_proxy = proxied.accepts;
            api_server.token_keys = key_ids(&started["kube-apiserver"]["sa.pub"]);
            facts.api_servers.insert((*node).to_owned(), api_server);
            let etcd = self.probe(&disk["etcd-server.crt"], &started["etcd"]["etcd-ca.crt"], "demo-etcd");
            facts.etcd.insert((*node).to_owned(), etcd);
            let kubelet = (!simulated.kubelet_server.is_empty())
                .then(|| self.probe(&simulated.kubelet_server, &disk["ca.crt"], "demo-ca"));
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
        // Any controller-manager may be the leader. The leader publishes the file that it read at its start.
        let leader = &self.nodes["cp2"].started["kube-controller-manager"]["ca.crt"];
        let prints = |pem: &str| certificates_in("", pem).unwrap().iter().map(CertificateFacts::fingerprint).collect();
        facts.root_cas = Some([("default".to_owned(), prints(leader))].into());
        let of_all = |file: &str| -> BTreeSet<String> {
            self.nodes.values().flat_map(|simulated| prints(&simulated.disk[file]) as BTreeSet<String>).collect()
        };
        facts.client_cas = Some(of_all("ca.crt"));
        facts.front_proxy_cas = Some(of_all("front-proxy-ca.crt"));
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

    /// Runs one minute: Keyplane plans, and may be killed meanwhile. Some nodes get their files, some kubelets their
    /// certificates.
    fn tick(&mut self) {
        self.now += SignedDuration::from_mins(1);
        self.observe();
        let Plan { steps, blockers, .. } = plan(&self.cluster, &self.observed, self.now);
        let is_quiet = steps.is_empty();
        let killed_after = if self.random(4) == 0 { self.random(3) } else { u64::MAX };
        for (_, step) in (0..killed_after).zip(steps) {
            execute(step, &self.cluster, &mut self.observed);
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
                self.apply_files(node);
            }
        }
        let now = self.now;
        for agent in self.observed.agents.values_mut() {
            (agent.reported, agent.received) = (Some(now), Some(now));
        }
        for simulated in self.nodes.values_mut() {
            if simulated.next_poll.is_none_or(|next| next <= now) {
                simulated.polled = simulated.disk.clone();
                simulated.next_poll = Some(now + SignedDuration::from_mins(5));
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
        self.nodes.values().map(|simulated| simulated.disk["etcd.yaml"].clone()).collect()
    }

    fn is_dropping(&self, name: &str) -> bool {
        let set = self.set(name);
        set.stage().is_none() && set.state().is_some() || set.stage() == Some(keyplane_core::rotation::Stage::Drop)
    }

    /// Checks every required connection.
    fn check(&self) {
        if self.interrupted {
            return;
        }
        let (outside_trust, outside_client, outside_key) = &self.outside;
        let admin = text(&self.observed, "demo-kubeconfig", "value");
        let fail = |what: &str, from: &str, to: &str| panic!("{what}: {from} -> {to}, after {:?}", self.stages);
        for (server, at) in &self.nodes {
            let presented = &at.disk["apiserver.crt"];
            let api = &at.started["kube-apiserver"];
            for (client, from) in &self.nodes {
                for (component, file) in
                    [("kube-controller-manager", "controller-manager.conf"), ("kube-scheduler", "scheduler.conf")]
                {
                    let kubeconfig = &from.started[component][file];
                    if !chain_is_valid(presented, &trust_in(kubeconfig)) {
                        fail(&format!("{component} does not trust the API server"), client, server);
                    }
                    if !chain_is_valid(&client_in(kubeconfig), &at.disk["ca.crt"]) {
                        fail(&format!("the API server rejects {component}"), client, server);
                    }
                }
                if !chain_is_valid(presented, &from.kubelet_trust) {
                    fail("the kubelet does not trust the API server", client, server);
                }
                if !from.kubelet_client.is_empty() && !chain_is_valid(&from.kubelet_client, &at.disk["ca.crt"]) {
                    fail("the API server rejects the kubelet", client, server);
                }
                if !from.kubelet_server.is_empty() && !chain_is_valid(&from.kubelet_server, &at.polled["ca.crt"]) {
                    fail("the API server does not trust the kubelet", server, client);
                }
                if !chain_is_valid(&at.polled["apiserver-kubelet-client.crt"], &from.disk["ca.crt"]) {
                    fail("the kubelet rejects the API server", server, client);
                }
                let members = [("etcd-peer.crt", "peer"), ("etcd-server.crt", "server")];
                for (file, what) in members {
                    if !chain_is_valid(&from.disk[file], &at.started["etcd"]["etcd-ca.crt"]) {
                        fail(&format!("etcd does not trust its {what}"), client, server);
                    }
                }
                if !chain_is_valid(&from.disk["etcd-server.crt"], &api["etcd-ca.crt"]) {
                    fail("the API server does not trust etcd", server, client);
                }
                if !chain_is_valid(&at.disk["apiserver-etcd-client.crt"], &from.started["etcd"]["etcd-ca.crt"]) {
                    fail("etcd does not trust the API server", server, client);
                }
                if !chain_is_valid(&at.polled["front-proxy-client.crt"], &from.disk["front-proxy-ca.crt"]) {
                    fail("an API server does not trust another one as front proxy", server, client);
                }
                let signing = PrivateKey::from_pem("sa", &from.started["kube-apiserver"]["sa.key"]).unwrap();
                if !api["sa.pub"].contains(signing.public_key_pem().trim()) {
                    fail("a token is not verified", client, server);
                }
            }
            if !chain_is_valid(presented, &trust_in(&admin)) || !chain_is_valid(&client_in(&admin), &at.disk["ca.crt"])
            {
                fail("the admin kubeconfig is not valid", "outside", server);
            }
            if (!self.is_dropping("demo-ca") || self.set("demo-ca").state().is_some_and(|state| state.rolling_back))
                && !(chain_is_valid(presented, outside_trust) && chain_is_valid(outside_client, &at.disk["ca.crt"]))
            {
                fail("an old kubeconfig is not valid", "outside", server);
            }
            let tokens = self.rotation("service-account-key").map(|rotation| rotation.phase);
            if tokens.is_none_or(|phase| phase < RotationPhase::Prepared) && !api["sa.pub"].contains(outside_key.trim())
            {
                fail("an old token is not verified", "outside", server);
            }
        }
    }
}

#[test]
fn simultaneous_rotations_refuse_no_valid_client() {
    let mut world = World::up(POLICY, 2026, true);
    let before = text(&world.observed, "demo-ca", "tls.crt");
    let pods_of_etcd = world.manifests_of_etcd();
    world.annotate("rotate-certificate-authorities", "2026");
    world.annotate("rotate-service-account-key", "2026");
    for name in ["ca", "etcd-ca", "front-proxy-ca", "service-account-key"] {
        if world.rotation(name).is_none_or(|rotation| rotation.phase < RotationPhase::Prepared) {
            world.run_until(name, RotationPhase::Prepared);
        }
    }
    // The rotation waits for approval, because clients that Keyplane can't see may depend on the old CA.
    for _ in 0..5 {
        world.tick();
    }
    assert_eq!(world.rotation("ca").unwrap().phase, RotationPhase::Prepared);
    let condition = condition_of(&world.observed.status.conditions, "RotationsCompleted").unwrap().clone();
    assert_eq!(condition.reason, "WaitingForApproval", "{condition:?}");
    assert!(condition.message.contains("spec.rotate.complete"), "{condition:?}");
    world.annotate("complete-rotation", "2026");
    for name in ["ca", "etcd-ca", "front-proxy-ca", "service-account-key"] {
        if world.rotation(name).unwrap().phase < RotationPhase::Completed {
            world.run_until(name, RotationPhase::Completed);
        }
    }
    for node in NODES {
        let disk = &world.nodes[node].disk;
        assert_eq!(disk["ca.crt"], text(&world.observed, "demo-ca", "tls.crt"), "{node}");
        assert_eq!(certificates_in("chain", &disk["apiserver.crt"]).unwrap().len(), 1, "{node}");
        assert!(!disk["ca.crt"].contains(&before) && !disk["sa.pub"].contains(&world.outside.2));
    }
    // On each node, one restart for the new CA and one for the removal of the old CA. The manifest does not change.
    assert_eq!(world.restarts["etcd in place"], 6, "{:?}", world.restarts);
    assert_eq!(world.manifests_of_etcd(), pods_of_etcd);
    for secret in ["demo-ca", "demo-etcd", "demo-proxy", "demo-sa"] {
        let keys: Vec<_> = world.observed.secrets[secret].data.as_ref().unwrap().keys().collect();
        assert_eq!(keys, ["tls.crt", "tls.key"], "{secret}");
    }
    // The same request requests nothing more.
    let stages = world.stages.len();
    for _ in 0..5 {
        world.tick();
    }
    assert_eq!(world.stages.len(), stages);
    assert!(plan(&world.cluster, &world.observed, world.now).steps.is_empty());
}

#[test]
fn rollback_before_completion_refuses_no_valid_client() {
    let mut world = World::up(POLICY, 7, false);
    let secrets = ["demo-ca", "demo-sa"];
    let before = secrets.map(|secret| text(&world.observed, secret, "tls.key"));
    world.annotate("rotate-certificate-authorities", "2026");
    world.annotate("rotate-service-account-key", "2026");
    world.run_until("ca", RotationPhase::Prepared);
    assert_ne!(secrets.map(|secret| text(&world.observed, secret, "tls.key")), before);
    world.annotate("roll-back-rotation", "2026");
    world.run_until("ca", RotationPhase::Completed);
    assert!(world.rotation("ca").unwrap().rolling_back);
    if world.rotation("service-account-key").unwrap().phase < RotationPhase::Completed {
        world.run_until("service-account-key", RotationPhase::Completed);
    }
    assert_eq!(secrets.map(|secret| text(&world.observed, secret, "tls.key")), before);
    for node in NODES {
        assert_eq!(world.nodes[node].disk["ca.crt"], world.outside.0, "{node}");
        assert_eq!(world.nodes[node].disk["sa.pub"], world.outside.2, "{node}");
    }
    // The value of a rolled-back rotation requests nothing more; a new value does.
    world.tick();
    assert_eq!(world.rotation("ca").unwrap().phase, RotationPhase::Completed);
}

const USER_PROVIDED: &str = "
certificateAuthorities:
  cluster: {secretRef: {name: corp-ca}}
  etcd: {secretRef: {name: corp-etcd-ca}}
  frontProxy: {secretRef: {name: corp-front-proxy-ca}}
";
const NAMES: [&str; 3] = ["corp-ca", "corp-etcd-ca", "corp-front-proxy-ca"];

/// Adds three CAs below one root, as the user's Secrets. Returns the root certificate.
fn add_ca_secrets(observed: &mut Observed, now: Timestamp) -> String {
    let root = new_ca("Corp Root", now);
    for name in NAMES {
        let (certificate, key, root) = intermediate(name, &root, now);
        add_secret(observed, name, &[("tls.crt", &certificate), ("tls.key", &key), ("ca.crt", &root)]);
    }
    root.certificate_pem().to_owned()
}

/// Checks that only the user's three CAs are trusted, and that servers present a chain to the root.
fn check_user_provided_cas(world: &World, root: &str) {
    let provided = NAMES.map(|name| text(&world.observed, name, "tls.crt"));
    for node in NODES {
        let disk = &world.nodes[node].disk;
        for (file, provided) in ["ca.crt", "etcd-ca.crt", "front-proxy-ca.crt"].into_iter().zip(&provided) {
            assert_eq!(&disk[file], provided, "{node}: {file}");
        }
        assert_eq!(trust_in(&disk["admin.conf"]), provided[0]);
        assert!(disk.values().all(|content| !content.contains(root.trim())), "the root is on {node}");
        for server in ["apiserver.crt", "etcd-server.crt", "etcd-peer.crt"] {
            assert!(chain_is_valid(&disk[server], root), "{server} of {node} leads to the root");
            assert_eq!(certificates_in(server, &disk[server]).unwrap().len(), 2);
        }
        assert_eq!(certificates_in("client", &disk["apiserver-kubelet-client.crt"]).unwrap().len(), 1);
    }
    let bundle = world.observed.config_maps["demo-ca-bundle"].data.as_ref().unwrap();
    assert_eq!((bundle["ca.crt"].as_str(), bundle["root.crt"].as_str()), (provided[0].as_str(), root));
}

impl World {
    fn condition(&self, name: &str) -> (String, String) {
        let condition = condition_of(&self.observed.status.conditions, name).unwrap();
        (condition.reason.clone(), condition.message.clone())
    }

    /// Approves each rotation at its gate, one after the other, because each has its own value.
    fn complete_all(&mut self) {
        for name in ["ca", "etcd-ca", "front-proxy-ca"] {
            if self.rotation(name).is_none_or(|rotation| rotation.phase != RotationPhase::Prepared) {
                self.run_until(name, RotationPhase::Prepared);
            }
            let requested = self.rotation(name).unwrap().requested.clone().unwrap();
            assert!(requested.starts_with("given-"), "{requested}");
            self.annotate("complete-rotation", &requested);
            self.run_until(name, RotationPhase::Completed);
        }
    }
}

#[test]
fn user_provided_cas_are_adopted_and_replaced_by_rotation() {
    let mut world = World::up(POLICY, 11, true);
    let first = add_ca_secrets(&mut world.observed, world.now);
    world.spec = format!("{THREE}{USER_PROVIDED}");
    world.parse();
    world.report();
    assert_eq!(world.condition("CertificateAuthoritiesInSync").0, "WaitingToStart");
    world.tick();
    world.run_until("ca", RotationPhase::Preparing);
    assert_eq!(world.condition("CertificateAuthoritiesInSync").0, "RotationInProgress");
    world.complete_all();
    check_user_provided_cas(&world, &first);
    assert_eq!(world.condition("CertificateAuthoritiesInSync").0, "InSync");
    // From now on, an outside client trusts only the root, as long as the CAs below it stay.
    world.outside.0 = first;
    world.outside.1 = client_in(&text(&world.observed, "demo-kubeconfig", "value"));
    let second = add_ca_secrets(&mut world.observed, world.now);
    world.stages.clear();
    world.complete_all();
    for stage in ["Trust", "Clients", "Signing", "Kubelets", "Servers", "Gate", "Drop"] {
        assert!(world.stages.contains(&format!("ca {stage}")), "{stage}: {:?}", world.stages);
    }
    check_user_provided_cas(&world, &second);
    // Everything continues without the Secrets, and without the reference.
    world.observed.secrets.remove("corp-ca");
    world.report();
    let (reason, message) = world.condition("CertificateAuthoritiesInSync");
    assert_eq!(reason, "SecretNotFound");
    assert!(message.contains("keeps the CA in Secret demo-ca"), "{message}");
    assert!(plan(&world.cluster, &world.observed, world.now).blockers.is_empty());
    world.spec = THREE.to_owned();
    world.parse();
    assert!(plan(&world.cluster, &world.observed, world.now).steps.is_empty());
    world.report();
    assert!(condition_of(&world.observed.status.conditions, "CertificateAuthoritiesInSync").is_none());
    // Back to a CA that Keyplane generates.
    world.outside.0 = second;
    world.outside.1 = client_in(&text(&world.observed, "demo-kubeconfig", "value"));
    world.annotate("rotate-certificate-authorities", "own");
    world.annotate("complete-rotation", "own");
    world.run_until("ca", RotationPhase::Completed);
    let own = text(&world.observed, "demo-ca", "tls.crt");
    assert!(first_certificate("ca", &own).unwrap().is_self_signed());
    assert_eq!(world.nodes["cp1"].disk["ca.crt"], own);
    assert!(!world.observed.config_maps["demo-ca-bundle"].data.as_ref().unwrap().contains_key("root.crt"));
}

#[test]
fn rolled_back_user_provided_ca_is_not_adopted_again() {
    let mut observed = Observed::default();
    let root = add_ca_secrets(&mut observed, common::noon());
    let mut world = World::up_with(&format!("{THREE}{USER_PROVIDED}"), observed, POLICY, 5, false);
    check_user_provided_cas(&world, &root);
    let (certificate, key, above) = intermediate("corp-ca", &new_ca("Other Root", world.now), world.now);
    add_secret(&mut world.observed, "corp-ca", &[("tls.crt", &certificate), ("tls.key", &key), ("ca.crt", &above)]);
    world.run_until("ca", RotationPhase::Prepared);
    let requested = world.rotation("ca").unwrap().requested.clone().unwrap();
    world.annotate("roll-back-rotation", &requested);
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
fn ca_renewal_keeps_the_key_and_all_issued_certificates() {
    let mut world = World::up(POLICY, 3, false);
    let files = ["ca.crt", "etcd-ca.crt", "front-proxy-ca.crt"];
    let before: Vec<_> = NODES.map(|node| world.nodes[node].disk.clone()).into();
    world.restarts.clear();
    world.annotate("renew-certificate-authorities", "2036");
    // The renewal waits for a node that has not received its files yet.
    world.observed.target.nodes.as_mut().unwrap().insert("cp2".to_owned(), false);
    assert!(plan(&world.cluster, &world.observed, world.now).steps.is_empty());
    world.report();
    let (reason, message) = world.condition("RotationsCompleted");
    assert_eq!(reason, "WaitingToStart");
    assert!(message.starts_with("the renewal of ca, etcd-ca, front-proxy-ca waits for cp2 to be Ready"), "{message}");
    for _ in 0..60 {
        world.tick();
    }
    assert!(plan(&world.cluster, &world.observed, world.now).steps.is_empty(), "the renewal is requested once");
    assert!(condition_of(&world.observed.status.conditions, "RotationsCompleted").is_none());
    for (node, before) in NODES.into_iter().zip(&before) {
        let simulated = &world.nodes[node];
        for file in files {
            assert_ne!(simulated.disk[file], before[file], "{file} of {node}");
            let [old, new] = [&before[file], &simulated.disk[file]].map(|pem| first_certificate(file, pem).unwrap());
            assert!(new.is_renewal_of(&old) && new.not_after > old.not_after, "{file} of {node}");
        }
        let is_of_pki = |file: &str| [".crt", ".key"].iter().any(|ending| file.ends_with(ending));
        for (file, content) in before.iter().filter(|(file, _)| is_of_pki(file)) {
            let is_authority = files.contains(&file.as_str()) || file == "cluster-signing-ca.crt";
            assert_eq!(&simulated.disk[file] != content, is_authority, "{file} of {node}");
        }
        // Components that read the file only at their start have the new one.
        for (component, file) in [("etcd", "etcd-ca.crt"), ("kube-apiserver", "etcd-ca.crt")] {
            assert_eq!(simulated.started[component][file], simulated.disk[file], "{component} on {node}");
        }
        assert_eq!(simulated.started["kube-controller-manager"]["ca.crt"], simulated.disk["ca.crt"]);
        assert_eq!(simulated.kubelet_trust, simulated.disk["ca.crt"]);
    }
    assert!(COMPONENTS.iter().all(|component| world.restarts[*component] == 3), "{:?}", world.restarts);
}
