//! A cluster of which no authority's key is here: openssl answers every request, rightly and wrongly.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::Command;

use common::{carry_out, cluster_with_policy, settle_at, text};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_core::approval::{KUBELET_SERVING_SIGNER, SigningRequest};
use keyplane_core::kubeconfig::embedded_credential;
use keyplane_core::model::Cluster;
use keyplane_core::observed::Observed;
use keyplane_core::pki::AuthorityName;
use keyplane_core::pki::{AlternativeName, Authority, PrivateKey, RequestFacts, Subject, first_certificate};
use keyplane_core::plan::kubelet_requests::hand_on;
use keyplane_core::plan::{Plan, as_observed, own_credential, plan, status};
use keyplane_crds::{ClusterSpecStatus, KeyAlgorithm, condition_of};
use keyplane_issuance::x509::generate;
use keyplane_issuance::x509::{mint_authority, request};
use kube::ResourceExt;
use tempfile::NamedTempFile;

const SPEC: &str = "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: {host: api.demo.example}
controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.11]}]}
network: {podCIDRs: [10.244.0.0/16]}
users: [{name: jane, groups: [auditors, ops]}]
certificateAuthorities:
  cluster: {secretRef: {name: corp}}
  etcd: {secretRef: {name: corp-etcd}}
  frontProxy: {secretRef: {name: corp-proxy}}
";
/// Two days, of which the last 14 hours are for the renewal.
const POLICY: &str = "{authority: {keyAlgorithm: ECDSA-P256}, leaf: {keyAlgorithm: ECDSA-P256, validity: 48h}}";
const GIVEN: [(AuthorityName, &str); 3] =
    [(AuthorityName::Cluster, "corp"), (AuthorityName::Etcd, "corp-etcd"), (AuthorityName::FrontProxy, "corp-proxy")];

/// The time by openssl's clock.
fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap()
}

fn file(content: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

/// Somebody with openssl, who has the keys.
struct Signer {
    authorities: BTreeMap<String, Authority>,
    /// The certificates that it has made, by request.
    signed: BTreeMap<String, String>,
}

impl Signer {
    fn new() -> Self {
        let mint = |(name, given): (AuthorityName, &str)| {
            let (from, to) = (now() - SignedDuration::from_hours(1), now() + SignedDuration::from_hours(90_000));
            (name.name().to_owned(), mint_authority(given, KeyAlgorithm::EcdsaP256, from, to).unwrap())
        };
        Self { authorities: GIVEN.map(mint).into(), signed: BTreeMap::new() }
    }

    /// What docs/external-signing.md says.
    fn sign(&self, request: &ConfigMap) -> String {
        let data = request.data.as_ref().unwrap();
        self.sign_with(request, &data["extensions.cnf"], &[])
    }

    fn sign_with(&self, request: &ConfigMap, extensions: &str, more: &[&str]) -> String {
        let data = request.data.as_ref().unwrap();
        let authority = &self.authorities[&data["authority"]];
        let (csr, extensions) = (file(&data["request.csr"]), file(extensions));
        let (certificate, key) = (file(authority.certificate_pem()), file(authority.key().unwrap().pem()));
        let hours: u32 = data["duration"].split('h').next().unwrap().parse().unwrap();
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-req", "-days", &(hours / 24).to_string()]).arg("-in").arg(csr.path());
        openssl.arg("-CA").arg(certificate.path()).arg("-CAkey").arg(key.path()).arg("-extfile").arg(extensions.path());
        let output = openssl.args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

struct World {
    cluster: Cluster,
    observed: Observed,
    signer: Signer,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let signer = Signer::new();
        let mut observed = Observed::default();
        for (name, given) in GIVEN {
            let certificate = signer.authorities[name.name()].certificate_pem();
            let data = BTreeMap::from([("tls.crt".to_owned(), ByteString(certificate.as_bytes().to_vec()))]);
            let metadata = ObjectMeta { name: Some(given.to_owned()), ..ObjectMeta::default() };
            observed.secrets.insert(given.to_owned(), Secret { metadata, data: Some(data), ..Secret::default() });
        }
        Self { cluster: cluster_with_policy(SPEC, POLICY), observed, signer, now: now() }
    }

    /// What openssl makes begins now.
    fn settle(&mut self) -> Plan {
        self.now = self.now.max(now());
        settle_at(self.now, &self.cluster, &mut self.observed)
    }

    fn requests(&self) -> Vec<String> {
        let is_request = |config_map: &&ConfigMap| config_map.labels().contains_key("keyplane.io/signing-request");
        self.observed.config_maps.values().filter(is_request).map(ConfigMap::name_any).collect()
    }

    fn answer(&mut self, name: &str, certificate: &str) {
        let request = self.observed.config_maps.get_mut(name).unwrap();
        request.data.as_mut().unwrap().insert("tls.crt".to_owned(), certificate.to_owned());
    }

    fn answer_all(&mut self) {
        for name in self.requests() {
            let request = &self.observed.config_maps[&name];
            if !request.data.as_ref().unwrap().contains_key("tls.crt") {
                let certificate = self.signer.sign(request);
                self.signer.signed.insert(name.clone(), certificate.clone());
                self.answer(&name, &certificate);
            }
        }
    }

    /// All certificates are there.
    fn up() -> Self {
        let mut world = Self::new();
        world.settle();
        world.answer_all();
        let last = world.settle();
        assert_eq!(last.blockers, [], "{:?}", world.requests());
        world
    }

    fn status(&self) -> ClusterSpecStatus {
        let cluster = as_observed(&self.cluster, &self.observed);
        let blockers = plan(&cluster, &self.observed, self.now).blockers;
        status::report(&cluster, &self.observed, &blockers, Some(1), self.now)
    }

    /// The reason and message of the condition that tells of signers.
    fn signed(&self) -> (String, String) {
        let status = self.status();
        let condition = condition_of(&status.conditions, "CertificatesSigned").unwrap();
        (condition.reason.clone(), condition.message.clone())
    }

    /// Of what is published there is always the key, in the one Secret or in the other.
    fn check_that_no_key_is_lost(&self) {
        let texts = self.observed.secrets.values().flat_map(|secret| secret.data.iter().flatten());
        let texts = texts.map(|(_, value)| String::from_utf8(value.0.clone()).unwrap());
        let mut keys = BTreeSet::new();
        for text in texts {
            let key = embedded_credential(&text).map_or(text, |(_, key)| key);
            keys.extend(PrivateKey::from_pem("a key", &key).ok().map(|key| key.subject_public_key_info()));
        }
        for name in self.requests() {
            let request = &self.observed.config_maps[&name].data.as_ref().unwrap()["request.csr"];
            let facts = RequestFacts::from_pem(request).unwrap();
            assert!(keys.contains(&facts.subject_public_key_info), "the key of {name} is lost");
        }
    }

    /// One write at a time, as if the process were killed after each.
    fn settle_by_single_steps(&mut self) -> usize {
        self.now = self.now.max(now());
        for done in 0..200 {
            let cluster = as_observed(&self.cluster, &self.observed);
            let Some(step) = plan(&cluster, &self.observed, self.now).steps.into_iter().next() else { return done };
            carry_out(step, &cluster, &mut self.observed);
            self.check_that_no_key_is_lost();
        }
        panic!("the plan never comes to an end");
    }

    fn text(&self, secret: &str, key: &str) -> String {
        text(&self.observed, secret, key)
    }
}

#[test]
fn a_cluster_goes_from_nothing_to_all_its_secrets_by_answers_and_no_authoritys_key_is_anywhere() {
    let mut world = World::new();
    let waits = world.settle();
    assert!(waits.blockers.iter().all(|blocker| blocker.reason == "WaitingForSigner"), "{:?}", waits.blockers);
    assert_eq!(waits.waiting.len(), world.requests().len());
    assert!(
        !world.observed.secrets.contains_key("demo-cp1-pki"),
        "half of a machine's files would start half a machine"
    );
    let expected = [
        "demo-cp1-admin.conf-csr",
        "demo-cp1-apiserver-csr",
        "demo-cp1-apiserver-etcd-client-csr",
        "demo-cp1-apiserver-kubelet-client-csr",
        "demo-cp1-controller-manager.conf-csr",
        "demo-cp1-etcd-healthcheck-client-csr",
        "demo-cp1-etcd-peer-csr",
        "demo-cp1-etcd-server-csr",
        "demo-cp1-front-proxy-client-csr",
        "demo-cp1-kubelet.conf-csr",
        "demo-cp1-scheduler.conf-csr",
        "demo-cp1-super-admin.conf-csr",
        "demo-keyplane-csr",
        "demo-keyplane-etcd-csr",
        "demo-kubeconfig-csr",
        "demo-user-jane-kubeconfig-csr",
    ];
    assert_eq!(world.requests(), expected);
    // Nothing that is published is secret, and nothing is written again.
    let is_secret = |name: &String| format!("{:?}", world.observed.config_maps[name]).contains("PRIVATE");
    assert!(!world.requests().iter().any(is_secret));
    assert!(plan(&as_observed(&world.cluster, &world.observed), &world.observed, world.now).steps.is_empty());

    world.answer_all();
    let done = world.settle();
    assert_eq!((done.blockers, done.waiting), (vec![], vec![]));
    assert_eq!(world.requests(), Vec::<String>::new());
    assert!(
        !world.observed.secrets.keys().any(|name| name.ends_with("-requests")),
        "{:?}",
        world.observed.secrets.keys()
    );
    assert_eq!(world.text("demo-cp1-pki", "apiserver.crt"), world.signer.signed["demo-cp1-apiserver-csr"]);
    let (admin, _) = embedded_credential(&world.text("demo-cp1-pki", "admin.conf")).unwrap();
    assert_eq!(admin, world.signer.signed["demo-cp1-admin.conf-csr"]);
    let jane = embedded_credential(&world.text("demo-user-jane-kubeconfig", "value")).unwrap().0;
    let groups = first_certificate("jane", &jane).unwrap().subject.unwrap().organizations;
    assert_eq!(groups, ["auditors", "ops"]);
    for (authority, request) in
        [(AuthorityName::Cluster, "demo-keyplane-csr"), (AuthorityName::Etcd, "demo-keyplane-etcd-csr")]
    {
        let own = own_credential(&world.observed.secrets["demo-keyplane"], authority).unwrap();
        assert_eq!(own.0, world.signer.signed[request]);
    }
    // No file of a machine is an authority's key, and the controller-manager is not told of one.
    let keys: BTreeSet<_> = world.observed.secrets["demo-cp1-pki"].data.as_ref().unwrap().keys().cloned().collect();
    for absent in ["ca.key", "etcd-ca.key", "front-proxy-ca.key", "cluster-signing-ca.crt"] {
        assert!(!keys.contains(absent), "{absent}");
        assert!(!world.text("demo-cp1-pki", "index.json").contains(&format!("\"{absent}\"")));
    }
    let manifest =
        &world.observed.config_maps["demo-cp1-config"].data.as_ref().unwrap()["kube-controller-manager.yaml"];
    assert!(manifest.contains("--cluster-signing-key-file=\n") && !manifest.contains("ca.key"), "{manifest}");
}

#[test]
fn a_renewal_asks_with_a_new_key_and_the_former_certificate_stays_in_use_until_it_is_answered() {
    let mut world = World::up();
    assert_eq!(world.signed().0, "Signed");
    let before = world.observed.secrets["demo-cp1-pki"].clone();
    world.now += SignedDuration::from_hours(36);
    let waits = world.settle();
    assert_eq!((waits.blockers, world.requests().len()), (vec![], 16), "nothing is in the way meanwhile");
    assert_eq!(world.observed.secrets["demo-cp1-pki"], before);
    let (reason, message) = world.signed();
    assert_eq!(reason, "WaitingForSigner");
    assert!(message.contains("demo-cp1-apiserver-csr since ") && message.contains("more (status."), "{message}");
    let status = world.status();
    assert_eq!(status.signing_requests.len(), 16);
    let valid = condition_of(&status.conditions, "CertificatesValid").unwrap();
    assert_eq!((valid.reason.as_str(), valid.status.as_str()), ("WaitingForSigner", "True"));
    let request = &world.observed.config_maps["demo-cp1-apiserver-csr"].data.as_ref().unwrap()["request.csr"];
    let former = first_certificate("apiserver", &world.text("demo-cp1-pki", "apiserver.crt")).unwrap();
    assert_ne!(RequestFacts::from_pem(request).unwrap().subject_public_key_info, former.subject_public_key_info);

    // Nobody answers.
    world.now += SignedDuration::from_hours(9);
    world.settle();
    assert_eq!(world.signed().0, "SignerOverdue");
    let valid = condition_of(&world.status().conditions, "CertificatesValid").cloned().unwrap();
    assert_eq!((valid.reason.as_str(), valid.status.as_str()), ("RenewalDue", "False"));

    // openssl's clock has not gone on: what it signs would be due again. A request that was published is brought to its end
    // although nothing is due at this time.
    world.answer_all();
    world.now = now();
    assert_eq!(world.settle().waiting, []);
    let after = first_certificate("apiserver", &world.text("demo-cp1-pki", "apiserver.crt")).unwrap();
    assert_ne!(after.serial, former.serial);
    assert_eq!((world.requests(), world.signed().0), (vec![], "Signed".to_owned()));
}

#[test]
fn a_wrong_answer_is_told_with_the_field_that_differs_and_is_not_used() {
    let mut world = World::up();
    let before = world.observed.secrets["demo-cp1-pki"].clone();
    world.now += SignedDuration::from_hours(36);
    world.settle();
    let name = "demo-cp1-apiserver-csr";
    let request = world.observed.config_maps[name].clone();
    let good = request.data.as_ref().unwrap()["extensions.cnf"].clone();
    let for_clients = world.signer.sign_with(&request, &good.replace("serverAuth", "serverAuth, clientAuth"), &[]);
    let of_another = world.signer.signed[name].clone();
    for (answer, field) in [
        (for_clients.as_str(), "extended key usage: it is server auth, client auth"),
        (of_another.as_str(), "public key: it is not the request's"),
        ("nonsense", "it does not begin with a certificate"),
    ] {
        world.answer(name, answer);
        let refused = world.settle();
        let refusals: Vec<_> = refused.waiting.iter().filter_map(|waiting| waiting.refusal.clone()).collect();
        assert!(refusals.len() == 1 && refusals[0].starts_with(field), "{refusals:?}");
        let (reason, message) = world.signed();
        assert!(reason == "CertificateRefused" && message.contains(field) && message.contains(name), "{message}");
        assert_eq!(world.observed.secrets["demo-cp1-pki"], before);
        // What the signer has written stays for the signer to see.
        assert_eq!(world.observed.config_maps[name].data.as_ref().unwrap()["tls.crt"], answer);
    }
    // With what else a signer likes to put there.
    let right = world.signer.sign(&request);
    let data = world.observed.config_maps.get_mut(name).unwrap().data.as_mut().unwrap();
    data.insert("ca.crt".to_owned(), "chain".to_owned());
    data.remove("tls.crt");
    world.settle();
    assert_eq!(world.observed.config_maps[name].data.as_ref().unwrap()["ca.crt"], "chain");
    world.answer(name, &right);
    world.settle();
    assert_eq!(world.text("demo-cp1-pki", "apiserver.crt"), right);
}

#[test]
fn a_process_that_is_killed_after_any_write_loses_no_key_and_makes_none_twice() {
    let mut world = World::new();
    world.settle_by_single_steps();
    let asked: BTreeMap<_, _> =
        world.requests().into_iter().map(|name| (name.clone(), world.observed.config_maps[&name].clone())).collect();
    assert_eq!(asked.len(), 16);
    assert_eq!(world.settle_by_single_steps(), 0);
    world.answer_all();
    assert!(world.settle_by_single_steps() > 16);
    // Every certificate is the answer to the first and only request for it.
    assert_eq!(world.settle().waiting, []);
    assert_eq!(world.text("demo-cp1-pki", "etcd-peer.crt"), world.signer.signed["demo-cp1-etcd-peer-csr"]);
    let (kubeconfig, _) = embedded_credential(&world.text("demo-kubeconfig", "value")).unwrap();
    assert_eq!(kubeconfig, world.signer.signed["demo-kubeconfig-csr"]);
    assert_eq!(world.requests(), Vec::<String>::new());
}

#[test]
fn a_request_whose_names_have_changed_meanwhile_is_made_anew_and_its_answer_is_not_taken() {
    let mut world = World::new();
    world.settle();
    let name = "demo-cp1-apiserver-csr";
    let first = world.observed.config_maps[name].clone();
    let spec = SPEC.replace("{nodes:", "{apiServer: {certSANs: [api.other.example]}, nodes:");
    world.cluster = cluster_with_policy(&spec, POLICY);
    let answer = world.signer.sign(&first);
    world.answer(name, &answer);
    world.settle();
    let second = world.observed.config_maps[name].data.clone().unwrap();
    assert!(
        second["extensions.cnf"].contains("DNS:api.other.example") && !second.contains_key("tls.crt"),
        "{second:?}"
    );
    world.answer_all();
    assert_eq!(world.settle().waiting, []);
    assert!(!world.text("demo-cp1-pki", "apiserver.crt").contains(&answer));
}

#[test]
fn another_authority_is_refused_and_a_key_that_comes_later_is_left_to_its_owner() {
    let mut world = World::up();
    let own = world.observed.secrets["demo-ca"].clone();
    let other = Signer::new();
    let give = |world: &mut World, certificate: &str| {
        let data = world.observed.secrets.get_mut("corp").unwrap().data.as_mut().unwrap();
        data.insert("tls.crt".to_owned(), ByteString(certificate.as_bytes().to_vec()));
    };
    give(&mut world, other.authorities["ca"].certificate_pem());
    world.settle();
    assert_eq!(world.observed.secrets["demo-ca"], own);
    let status = world.status();
    let settled = condition_of(&status.conditions, "RotationsCompleted").unwrap();
    assert!(settled.message.contains("can't be replaced"), "{}", settled.message);
    // A key in the place of one that signs outside changes nothing either.
    let first = world.signer.authorities["ca"].certificate_pem().to_owned();
    give(&mut world, &first);
    let key = world.signer.authorities["ca"].key().unwrap().pem().as_bytes().to_vec();
    world
        .observed
        .secrets
        .get_mut("corp")
        .unwrap()
        .data
        .as_mut()
        .unwrap()
        .insert("tls.key".to_owned(), ByteString(key));
    world.settle();
    assert_eq!(world.observed.secrets["demo-ca"], own);
}

#[test]
fn an_authority_of_ones_own_does_not_become_one_outside_by_a_key_that_is_missing() {
    let mut world = World::new();
    world.cluster = cluster_with_policy(
        &SPEC
            .replace("certificateAuthorities:", "rotate: {}\nunused:")
            .split("unused")
            .next()
            .unwrap()
            .replace("rotate: {}", ""),
        POLICY,
    );
    assert_eq!(world.settle().blockers, []);
    world.cluster = cluster_with_policy(SPEC, POLICY);
    world.settle();
    assert!(as_observed(&world.cluster, &world.observed).signed_outside.is_empty());
    assert_eq!(world.requests(), Vec::<String>::new());
    let status = world.status();
    let given = condition_of(&status.conditions, "CertificateAuthoritiesInSync").unwrap();
    assert!(given.message.contains("lacks tls.key"), "{}", given.message);
    // Nor does a copy that has lost its key.
    world.observed.secrets.get_mut("demo-ca").unwrap().data.as_mut().unwrap().remove("tls.key");
    assert_eq!(world.settle().blockers[0].reason, "CAUnreadable");
}

#[test]
fn an_approved_request_of_a_kubelet_is_handed_on_and_answered_by_what_was_asked_for_alone() {
    let world = World::up();
    let cluster = as_observed(&world.cluster, &world.observed);
    let authority = world.signer.authorities["ca"].facts();
    let key = generate(KeyAlgorithm::EcdsaP256).unwrap();
    let subject = Subject { common_name: "system:node:cp1".to_owned(), organizations: vec!["system:nodes".to_owned()] };
    let names = [AlternativeName::parse("cp1"), AlternativeName::parse("10.0.0.11")];
    let pem = k8s_openapi::ByteString(request(&subject, &names, &key).unwrap().into_bytes());
    let object: CertificateSigningRequest = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "csr-abcde", "uid": "u", "resourceVersion": "7", "creationTimestamp": now().to_string()},
        "spec": {"signerName": KUBELET_SERVING_SIGNER, "username": "system:node:cp1", "request": pem,
                 "usages": ["digital signature", "server auth"]},
        "status": {"conditions": [{"type": "Approved", "status": "True"}]},
    }))
    .unwrap();
    let approved = BTreeMap::from([("csr-abcde".to_owned(), SigningRequest::from(&object))]);
    let step = |found: &BTreeMap<String, ConfigMap>| hand_on(&cluster, &approved, found.clone(), authority, now());
    let first = step(&BTreeMap::new());
    let published = first.published[0].clone();
    assert_eq!(published.name_any(), "demo-kubelet-csr-abcde");
    assert_eq!(published.data.as_ref().unwrap()["duration"], "8760h");
    let mut found = BTreeMap::from([(published.name_any(), published.clone())]);
    let idle = step(&found);
    assert!(idle.published.is_empty() && idle.answered.is_empty() && idle.withdrawn.is_empty());
    let mut answer = |certificate: String| {
        let data = found.get_mut("demo-kubelet-csr-abcde").unwrap().data.as_mut().unwrap();
        data.insert("tls.crt".to_owned(), certificate);
        found.clone()
    };
    let extensions = published.data.as_ref().unwrap()["extensions.cnf"].clone();
    let wrong = world.signer.sign_with(&published, &extensions.replace("DNS:cp1", "DNS:cp2"), &[]);
    let refused = step(&answer(wrong));
    assert!(refused.answered.is_empty() && refused.refused[0].1.to_string().contains("cp2"));
    let right = world.signer.sign(&published);
    let done = step(&answer(right.clone()));
    assert_eq!(done.answered[0].1, right);
    assert!(done.published.is_empty(), "what the signer wrote is not fought");
    let gone = hand_on(&cluster, &BTreeMap::new(), found, authority, now());
    assert_eq!(gone.withdrawn[0].name, "demo-kubelet-csr-abcde");
}

#[test]
fn render_writes_requests_and_takes_what_was_signed() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, object: &serde_json::Value| std::fs::write(path(name), object.to_string()).unwrap();
    let spec: serde_json::Value = serde_saphyr::from_str(SPEC).unwrap();
    let cluster = serde_json::json!({"apiVersion": "keyplane.io/v1alpha1", "kind": "ClusterSpec", "spec": spec,
                                     "metadata": {"name": "demo", "namespace": "default"}});
    write("cluster.yaml", &cluster);
    let mut inputs = vec!["cluster.yaml".to_owned()];
    for (_, given) in GIVEN {
        let mut secret = serde_json::to_value(&world.observed.secrets[given]).unwrap();
        secret["metadata"]["namespace"] = "default".into();
        write(given, &secret);
        inputs.push(given.to_owned());
    }
    let render = |inputs: &[String], output: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyplane"));
        command.arg("render").arg("-o").arg(path(output));
        for input in inputs {
            command.arg("-f").arg(path(input));
        }
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let said = render(&inputs, "first");
    assert!(said.contains("16 certificates wait for their signer"), "{said}");
    assert!(!path("first/cp1/etc/kubernetes/pki").exists());
    for entry in std::fs::read_dir(path("first/objects/management")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let name = format!("first/objects/management/{file}");
        if file.ends_with("-csr.yaml") {
            let mut request: ConfigMap =
                serde_saphyr::from_str(&std::fs::read_to_string(path(&name)).unwrap()).unwrap();
            let certificate = world.signer.sign(&request);
            request.data.as_mut().unwrap().insert("tls.crt".to_owned(), certificate);
            write(&name, &serde_json::to_value(&request).unwrap());
        }
        // The user's own Secrets are among the objects too.
        if !inputs.iter().any(|input| file == format!("secret-{input}.yaml")) {
            inputs.push(name);
        }
    }
    let said = render(&inputs, "second");
    assert!(!said.contains("wait for their signer"), "{said}");
    assert!(path("second/cp1/etc/kubernetes/pki/apiserver.crt").exists());
    assert!(!path("second/cp1/etc/kubernetes/pki/ca.key").exists());
}
