//! A cluster of which no authority's key is here: openssl answers every request, rightly and wrongly.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::Command;

use common::{carry_out, cluster_with_policy, settle_at, text};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane::cluster::Cluster;
use keyplane::kubeconfig::embedded_credential;
use keyplane::pki::inventory::AuthorityName;
use keyplane::pki::{Authority, first_certificate, mint_authority};
use keyplane::plan::{Observed, Plan, Step, as_observed, own_credential, plan};
use keyplane_crds::KeyAlgorithm;
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
const POLICY: &str = "{authority: {keyAlgorithm: ECDSA-P256}, leaf: {keyAlgorithm: ECDSA-P256}}";
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

    fn settle(&mut self) -> Plan {
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

    fn text(&self, secret: &str, key: &str) -> String {
        text(&self.observed, secret, key)
    }
}

#[test]
fn a_cluster_goes_from_nothing_to_all_its_secrets_by_answers_and_no_authoritys_key_is_anywhere() {
    let mut world = World::new();
    let waits = world.settle();
    assert!(waits.blockers.iter().all(|blocker| blocker.reason == "WaitsForSigner"), "{:?}", waits.blockers);
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
    let published =
        world.requests().iter().map(|name| format!("{:?}", world.observed.config_maps[name])).collect::<String>();
    assert!(!published.contains("PRIVATE"));
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
