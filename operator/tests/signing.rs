//! A cluster with external CAs only: openssl answers every request, rightly and wrongly.

// Clippy's exemption for tests does not cover helpers outside of `#[test]` functions.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::Command;

use common::{cluster_with_policy, execute, settle_at, text};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_core::approval::{KUBELET_SERVING_SIGNER, SigningRequest};
use keyplane_core::kubeconfig::embedded_credential;
use keyplane_core::model::Cluster;
use keyplane_core::observed::Observed;
use keyplane_core::pki::{
    AlternativeName, CaName, CertificateAuthority, PrivateKey, RequestFacts, Subject, first_certificate,
};
use keyplane_core::plan::kubelet_requests::plan_forwarding;
use keyplane_core::plan::{Plan, as_observed, own_credential, plan};
use keyplane_core::status;
use keyplane_crds::{ClusterSpecStatus, KeyAlgorithm, condition_of};
use keyplane_issuance::x509::{generate, generate_ca, request};
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
const USER_PROVIDED: [(CaName, &str); 3] =
    [(CaName::Cluster, "corp"), (CaName::Etcd, "corp-etcd"), (CaName::FrontProxy, "corp-proxy")];

/// The time of openssl's clock.
fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap()
}

fn file(content: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

/// An external signer with openssl, which has the keys.
struct Signer {
    authorities: BTreeMap<String, CertificateAuthority>,
    /// The issued certificates, by request.
    signed: BTreeMap<String, String>,
}

impl Signer {
    fn new() -> Self {
        let new_ca = |(name, provided): (CaName, &str)| {
            let (from, to) = (now() - SignedDuration::from_hours(1), now() + SignedDuration::from_hours(90_000));
            (name.name().to_owned(), generate_ca(provided, KeyAlgorithm::EcdsaP256, from, to).unwrap())
        };
        Self { authorities: USER_PROVIDED.map(new_ca).into(), signed: BTreeMap::new() }
    }

    /// Signs as docs/external-ca.md describes.
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
        for (name, provided) in USER_PROVIDED {
            let certificate = signer.authorities[name.name()].certificate_pem();
            let data = BTreeMap::from([("tls.crt".to_owned(), ByteString(certificate.as_bytes().to_vec()))]);
            let metadata = ObjectMeta { name: Some(provided.to_owned()), ..ObjectMeta::default() };
            observed.secrets.insert(provided.to_owned(), Secret { metadata, data: Some(data), ..Secret::default() });
        }
        Self { cluster: cluster_with_policy(SPEC, POLICY), observed, signer, now: now() }
    }

    /// The validity of openssl's certificates starts now.
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

    /// All certificates are issued.
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

    /// The reason and message of the condition `CertificatesSigned`.
    fn signed(&self) -> (String, String) {
        let status = self.status();
        let condition = condition_of(&status.conditions, "CertificatesSigned").unwrap();
        (condition.reason.clone(), condition.message.clone())
    }

    /// Checks that the key of each published request is in one of the two Secrets.
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

    /// Executes one write at a time, as if the process were killed after each.
    fn settle_by_single_steps(&mut self) -> usize {
        self.now = self.now.max(now());
        for done in 0..200 {
            let cluster = as_observed(&self.cluster, &self.observed);
            let Some(step) = plan(&cluster, &self.observed, self.now).steps.into_iter().next() else { return done };
            execute(step, &cluster, &mut self.observed);
            self.check_that_no_key_is_lost();
        }
        panic!("the plan never settles");
    }

    fn text(&self, secret: &str, key: &str) -> String {
        text(&self.observed, secret, key)
    }
}

#[test]
fn external_cas_issue_a_whole_cluster_without_ca_keys() {
    let mut world = World::new();
    let waits = world.settle();
    assert!(waits.blockers.iter().all(|blocker| blocker.reason == "WaitingForSigner"), "{:?}", waits.blockers);
    assert_eq!(waits.waiting.len(), world.requests().len());
    assert!(
        !world.observed.secrets.contains_key("demo-cp1-pki"),
        "an incomplete set of files would start an incomplete node"
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
    // Nothing published is secret, and nothing is written again.
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
    for (authority, request) in [(CaName::Cluster, "demo-keyplane-csr"), (CaName::Etcd, "demo-keyplane-etcd-csr")] {
        let own = own_credential(&world.observed.secrets["demo-keyplane"], authority).unwrap();
        assert_eq!(own.0, world.signer.signed[request]);
    }
    // No file of a node is the key of a CA, and the controller-manager has no flag for one.
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
fn renewal_requests_a_new_key_and_keeps_the_old_certificate() {
    let mut world = World::up();
    assert_eq!(world.signed().0, "Signed");
    let before = world.observed.secrets["demo-cp1-pki"].clone();
    world.now += SignedDuration::from_hours(36);
    let waits = world.settle();
    assert_eq!((waits.blockers, world.requests().len()), (vec![], 16), "nothing is blocked meanwhile");
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

    // The signer does not answer.
    world.now += SignedDuration::from_hours(9);
    world.settle();
    assert_eq!(world.signed().0, "SignerOverdue");
    let valid = condition_of(&world.status().conditions, "CertificatesValid").cloned().unwrap();
    assert_eq!((valid.reason.as_str(), valid.status.as_str()), ("RenewalDue", "False"));

    // openssl's clock has not moved, so its certificates would be due again. A published request is completed although
    // nothing is due at this time.
    world.answer_all();
    world.now = now();
    assert_eq!(world.settle().waiting, []);
    let after = first_certificate("apiserver", &world.text("demo-cp1-pki", "apiserver.crt")).unwrap();
    assert_ne!(after.serial, former.serial);
    assert_eq!((world.requests(), world.signed().0), (vec![], "Signed".to_owned()));
}

#[test]
fn wrong_answer_is_rejected_with_the_differing_field() {
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
        (for_clients.as_str(), "extended key usage: found server auth, client auth"),
        (of_another.as_str(), "public key: differs from the key of the request"),
        ("nonsense", "tls.crt does not begin with a readable PEM certificate"),
    ] {
        world.answer(name, answer);
        let refused = world.settle();
        let refusals: Vec<_> = refused.waiting.iter().filter_map(|waiting| waiting.refusal.clone()).collect();
        assert!(refusals.len() == 1 && refusals[0].starts_with(field), "{refusals:?}");
        let (reason, message) = world.signed();
        assert!(reason == "CertificateRefused" && message.contains(field) && message.contains(name), "{message}");
        assert_eq!(world.observed.secrets["demo-cp1-pki"], before);
        // The signer's answer stays in the ConfigMap for the signer to see.
        assert_eq!(world.observed.config_maps[name].data.as_ref().unwrap()["tls.crt"], answer);
    }
    // A signer may add other keys.
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
fn crash_after_any_write_loses_and_duplicates_no_key() {
    let mut world = World::new();
    world.settle_by_single_steps();
    let requested: BTreeMap<_, _> =
        world.requests().into_iter().map(|name| (name.clone(), world.observed.config_maps[&name].clone())).collect();
    assert_eq!(requested.len(), 16);
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
fn changed_names_replace_the_request_and_void_its_answer() {
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
fn external_ca_rejects_another_ca_and_ignores_a_later_key() {
    let mut world = World::up();
    let own = world.observed.secrets["demo-ca"].clone();
    let other = Signer::new();
    let set_certificate = |world: &mut World, certificate: &str| {
        let data = world.observed.secrets.get_mut("corp").unwrap().data.as_mut().unwrap();
        data.insert("tls.crt".to_owned(), ByteString(certificate.as_bytes().to_vec()));
    };
    set_certificate(&mut world, other.authorities["ca"].certificate_pem());
    world.settle();
    assert_eq!(world.observed.secrets["demo-ca"], own);
    let status = world.status();
    let settled = condition_of(&status.conditions, "RotationsCompleted").unwrap();
    assert!(settled.message.contains("can't be rotated"), "{}", settled.message);
    // A key that is added to an external CA changes nothing either.
    let first = world.signer.authorities["ca"].certificate_pem().to_owned();
    set_certificate(&mut world, &first);
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
fn missing_key_does_not_make_a_ca_external() {
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
    assert!(as_observed(&world.cluster, &world.observed).external_cas.is_empty());
    assert_eq!(world.requests(), Vec::<String>::new());
    let status = world.status();
    let provided = condition_of(&status.conditions, "CertificateAuthoritiesInSync").unwrap();
    assert!(provided.message.contains("lacks tls.key"), "{}", provided.message);
    // A copy that has lost its key does not become an external CA either.
    world.observed.secrets.get_mut("demo-ca").unwrap().data.as_mut().unwrap().remove("tls.key");
    assert_eq!(world.settle().blockers[0].reason, "CAUnreadable");
}

#[test]
fn forwards_an_approved_csr_and_accepts_only_a_match() {
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
    let step =
        |found: &BTreeMap<String, ConfigMap>| plan_forwarding(&cluster, &approved, found.clone(), authority, now());
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
    assert!(done.published.is_empty(), "the signer's answer is not overwritten");
    let gone = plan_forwarding(&cluster, &BTreeMap::new(), found, authority, now());
    assert_eq!(gone.withdrawn[0].name, "demo-kubelet-csr-abcde");
}

#[test]
fn render_writes_requests_and_reads_signed_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, object: &serde_json::Value| std::fs::write(path(name), object.to_string()).unwrap();
    let spec: serde_json::Value = serde_saphyr::from_str(SPEC).unwrap();
    let cluster = serde_json::json!({"apiVersion": "keyplane.io/v1alpha1", "kind": "ClusterSpec", "spec": spec,
                                     "metadata": {"name": "demo", "namespace": "default"}});
    write("cluster.yaml", &cluster);
    let mut inputs = vec!["cluster.yaml".to_owned()];
    for (_, provided) in USER_PROVIDED {
        let mut secret = serde_json::to_value(&world.observed.secrets[provided]).unwrap();
        secret["metadata"]["namespace"] = "default".into();
        write(provided, &secret);
        inputs.push(provided.to_owned());
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
    let printed = render(&inputs, "first");
    assert!(printed.contains("16 certificates wait for their signer"), "{printed}");
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
        // The user's own Secrets are among the objects, too.
        if !inputs.iter().any(|input| file == format!("secret-{input}.yaml")) {
            inputs.push(name);
        }
    }
    let printed = render(&inputs, "second");
    assert!(!printed.contains("wait for their signer"), "{printed}");
    assert!(path("second/cp1/etc/kubernetes/pki/apiserver.crt").exists());
    assert!(!path("second/cp1/etc/kubernetes/pki/ca.key").exists());
}
