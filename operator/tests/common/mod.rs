//! A cluster in memory: the steps of a plan are executed without an API server.

// Each test file uses a part of this module.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_core::manifests::systemd::PodRanges;
use keyplane_core::model::{Cluster, Policy};
use keyplane_core::observed::Observed;
use keyplane_core::pki::CertificateAuthority;
use keyplane_core::plan::{Kind, Plan, Step, as_observed, plan};
use keyplane_crds::{CertificatePolicySpec, ClusterSpecSpec, KeyAlgorithm, NodePoolSpec};
use keyplane_issuance::build_secret;
use keyplane_issuance::x509::{cross_sign, generate_ca};
use kube::ResourceExt;

/// A small cluster, with keys that are generated quickly.
pub const SMALL: &str = "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: {host: api.demo.example}
controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.11]}]}
network: {podCIDRs: [10.244.0.0/16]}
";

/// A cluster with three nodes.
pub const THREE: &str = "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: {host: api.demo.example}
controlPlane:
  nodes:
    - {name: cp1, addresses: [10.0.0.11]}
    - {name: cp2, addresses: [10.0.0.12]}
    - {name: cp3, addresses: [10.0.0.13]}
";

/// Noon of some day.
pub fn noon() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

/// Returns the cluster `demo` of this spec.
pub fn cluster(spec: &str) -> Cluster {
    cluster_with_policy(spec, "{authority: {keyAlgorithm: ECDSA-P256}, leaf: {keyAlgorithm: ECDSA-P256}}")
}

/// Returns the cluster `demo` of this spec and policy.
pub fn cluster_with_policy(spec: &str, policy: &str) -> Cluster {
    let policy: CertificatePolicySpec = serde_saphyr::from_str(policy).unwrap();
    let spec: ClusterSpecSpec = serde_saphyr::from_str(spec).unwrap();
    Cluster::parse("demo", "default", &spec, Policy::parse(&policy).unwrap()).unwrap()
}

/// Returns the cluster `demo` of this spec with one pool.
pub fn cluster_with_pool(spec: &str, pool: &str) -> Cluster {
    let pool: NodePoolSpec = serde_saphyr::from_str(pool).unwrap();
    cluster(spec).with_pools([("workers".to_owned(), &pool)])
}

/// Executes one step, like the API server: an existing Secret can't be created.
pub fn execute(step: Step, cluster: &Cluster, observed: &mut Observed) {
    match step {
        Step::Secret(draft) => {
            let mut secret = build_secret(*draft, cluster, observed).unwrap();
            let name = secret.name_any();
            let existing = observed.secrets.get(&name).map(|secret| secret.resource_version().unwrap_or_default());
            assert_eq!(existing, secret.resource_version(), "{name} would be overwritten");
            let version = existing.map_or(1, |version| version.parse::<u64>().unwrap() + 1);
            secret.metadata.resource_version = Some(version.to_string());
            observed.secrets.insert(name, secret);
        }
        Step::ConfigMap(config_map) => _ = observed.config_maps.insert(config_map.name_any(), *config_map),
        Step::Removal(removal) => {
            let seen = match removal.kind {
                Kind::Secret => observed.secrets.remove(&removal.name).unwrap().metadata,
                Kind::ConfigMap => observed.config_maps.remove(&removal.name).unwrap().metadata,
            };
            assert_eq!(seen.resource_version, removal.resource_version, "{} was changed meanwhile", removal.name);
        }
    }
}

/// Plans and executes until no step is left. Returns the last plan, which may have blockers.
pub fn settle(cluster: &Cluster, observed: &mut Observed) -> Plan {
    settle_at(noon(), cluster, observed)
}

/// [`settle`] at another time.
pub fn settle_at(now: Timestamp, cluster: &Cluster, observed: &mut Observed) -> Plan {
    for _ in 0..10 {
        let cluster = &as_observed(cluster, observed);
        let next = plan(cluster, observed, now);
        if next.steps.is_empty() {
            return next;
        }
        for step in next.steps {
            execute(step, cluster, observed);
        }
    }
    panic!("the plan never settles");
}

/// Returns a cluster whose objects are all written.
pub fn settled(spec: &str) -> (Cluster, Observed) {
    let cluster = cluster(spec);
    let mut observed = Observed::default();
    assert!(settle(&cluster, &mut observed).blockers.is_empty());
    (cluster, observed)
}

/// The layout `Systemd`, on a server that is no Node, with workers.
pub const HARD_WAY: &str = "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: {host: api.demo.example}
controlPlane:
  nodes: [{name: server, addresses: [10.0.0.11]}]
  layout: Systemd
  registerNodes: false
network: {podCIDRs: [10.200.0.0/16], serviceCIDRs: [10.32.0.0/24]}
";

/// Two worker nodes that are declared by name.
pub const WORKERS: &str = "
clusterRef: {name: demo}
machines: [{name: node-0, addresses: [10.0.0.20]}, {name: node-1, addresses: [10.0.0.21]}]
";

/// The ranges of Pod addresses of some Nodes.
pub fn pod_ranges(ranges: &[(&str, &[&str])]) -> PodRanges {
    let parse = |ranges: &[&str]| ranges.iter().map(|range| range.parse().unwrap()).collect();
    ranges.iter().map(|(name, ranges)| ((*name).to_owned(), parse(ranges))).collect()
}

/// An intermediate CA and its root: certificate, key and root certificate as PEM.
pub fn intermediate(common_name: &str, root: &CertificateAuthority, now: Timestamp) -> (String, String, String) {
    let intermediate_ca = new_ca(common_name, now);
    let certificate = cross_sign(&intermediate_ca, root, now).unwrap().unwrap();
    (certificate, intermediate_ca.key().unwrap().pem().to_owned(), root.certificate_pem().to_owned())
}

/// A CA that is valid for a hundred days.
pub fn new_ca(common_name: &str, now: Timestamp) -> CertificateAuthority {
    generate_ca(common_name, KeyAlgorithm::EcdsaP256, now, now + SignedDuration::from_hours(2400)).unwrap()
}

/// Adds a user's Secret.
pub fn add_secret(observed: &mut Observed, name: &str, data: &[(&str, &str)]) {
    let data = data.iter().map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec()))).collect();
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    observed.secrets.insert(name.to_owned(), Secret { metadata, data: Some(data), ..Secret::default() });
}

/// Returns the text of a key in a Secret.
pub fn text(observed: &Observed, secret: &str, key: &str) -> String {
    let data = observed.secrets[secret].data.as_ref().unwrap();
    String::from_utf8(data[key].0.clone()).unwrap()
}
