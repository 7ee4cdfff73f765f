//! Tests of the approver with a small cluster.

mod addresses;
mod chain;
mod client;
mod csr;
mod declaration;
mod encoding;
mod fuzz;
mod identity;
mod matrix;
mod names;
mod own_cluster;
mod policy;
mod property;
mod queue;
mod sans;
mod scope;
mod seats;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{CertificatePolicySpec, ClusterSpecSpec, NodePoolSpec};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    ApprovalFacts, Approver, Declaration, Declarations, Evaluation, NodeFacts, Nodes, Reserved, Resolved,
    SigningRequest, Terms, Verdict, evaluate,
};
use csr::{Csr, address, dns};

/// The creation time of all CSRs in the tests.
const CREATED: &str = "2026-11-23T12:00:00Z";

/// A cluster of one control-plane node (`cp1`, 10.0.0.11), one listed worker (`worker1`, 10.0.0.21 and `fd00::15`) and
/// a selector for `spot-*` in 10.0.1.0/24; by default `worker1` requests its own name and addresses.
struct World {
    cluster: ClusterSpecSpec,
    pools: Vec<NodePoolSpec>,
    nodes: Vec<NodeFacts>,
    policy: CertificatePolicySpec,
    resolved: Resolved,
    request: SigningRequest,
    now: Timestamp,
}

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn node(name: &str, addresses: &[(&str, &str)]) -> NodeFacts {
    let addresses: Vec<Value> =
        addresses.iter().map(|(kind, address)| json!({"type": kind, "address": address})).collect();
    let node: Node = read(json!({"metadata": {"name": name}, "status": {"addresses": addresses}}));
    NodeFacts::from(&node)
}

fn pool(value: &Value) -> NodePoolSpec {
    let mut pool = json!({"clusterRef": {"name": "demo"}});
    pool.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
    read(pool)
}

/// Names the pools `pool0`, `pool1` and so on.
fn named(pools: &[NodePoolSpec]) -> BTreeMap<String, NodePoolSpec> {
    pools.iter().enumerate().map(|(index, pool)| (format!("pool{index}"), pool.clone())).collect()
}

fn declaration(node: &str, cluster: &ClusterSpecSpec, pools: &[NodePoolSpec]) -> Declaration {
    Declarations::of_cluster(cluster, &named(pools)).of(node, |_, _| true)
}

fn reserved(cluster: &ClusterSpecSpec, pools: &[NodePoolSpec]) -> Reserved {
    Reserved::of_cluster(cluster, &Declarations::of_cluster(cluster, &named(pools)))
}

/// Returns the CSR object of a kubelet for a request.
fn object(node: &str, pem: &[u8]) -> SigningRequest {
    let mut object: CertificateSigningRequest = read(json!({
        "metadata": {"name": "csr-1", "uid": "u1", "resourceVersion": "7", "creationTimestamp": CREATED},
        "spec": {
            "signerName": "kubernetes.io/kubelet-serving",
            "username": format!("system:node:{node}"),
            "groups": ["system:nodes", "system:authenticated"],
            "usages": ["digital signature", "server auth"],
            "request": "",
        },
    }));
    object.spec.request.0 = pem.to_vec();
    SigningRequest::from(&object)
}

impl World {
    fn new() -> Self {
        Self {
            cluster: read(json!({
                "kubernetesVersion": "v1.37.2",
                "controlPlaneEndpoint": {"host": "api.demo.example"},
                "controlPlane": {"nodes": [{"name": "cp1", "addresses": ["10.0.0.11"]}]},
                "network": {"serviceCIDRs": ["10.96.0.0/12", "fd00:96::/108"], "podCIDRs": ["10.244.0.0/16"]},
            })),
            pools: vec![
                pool(&json!({"machines": [{"name": "worker1", "addresses": ["10.0.0.21", "fd00::15"]}]})),
                pool(&json!({"selector": {"namePattern": "spot-*", "addressCIDRs": ["10.0.1.0/24"]}})),
            ],
            nodes: vec![
                node("cp1", &[("InternalIP", "10.0.0.11"), ("Hostname", "cp1")]),
                node("worker1", &[("InternalIP", "10.0.0.21"), ("InternalIP", "fd00::15"), ("Hostname", "worker1")]),
            ],
            policy: CertificatePolicySpec::default(),
            resolved: Resolved::default(),
            request: object("worker1", &Csr::of("worker1").named(&["worker1"], &["10.0.0.21", "fd00::15"]).pem()),
            now: "2026-11-23T12:00:05Z".parse().unwrap(),
        }
    }

    /// Returns the default world with a request from `worker1`.
    fn with_csr(csr: &Csr) -> Self {
        let mut world = Self::new();
        world.request.request = csr.pem();
        world
    }

    /// Returns the default world, in which `worker1` requests these names and addresses.
    fn requesting(names: &[&str], addresses: &[&str]) -> Self {
        Self::with_csr(&Csr::of("worker1").named(names, addresses))
    }

    /// Returns the default world, in which a node requests its name and an address that its Node reports.
    fn with_node(name: &str, address: &str) -> Self {
        let mut world = Self::new();
        world.nodes.retain(|node| node.name != name);
        world.nodes.push(node(name, &[("InternalIP", address), ("Hostname", name)]));
        world.request = object(name, &Csr::of(name).named(&[name], &[address]).pem());
        world
    }

    fn approver(&self) -> Approver {
        let terms = Terms::parse(&self.policy).unwrap();
        let mut approver = Approver::of_cluster(&self.cluster, &named(&self.pools), terms);
        approver.set_nodes(self.nodes.clone());
        approver
    }

    fn evaluate(&self) -> Evaluation {
        self.approver().evaluate(&self.request, &self.resolved, self.now)
    }

    #[track_caller]
    fn is_approved(&self) {
        let evaluation = self.evaluate();
        assert_eq!(evaluation.verdict, Verdict::Approve, "{}: {}", evaluation.reason, evaluation.message);
    }

    #[track_caller]
    fn is(&self, verdict: Verdict, rule: &str, reason: &str) {
        let evaluation = self.evaluate();
        let found = (evaluation.verdict, evaluation.rule, evaluation.reason);
        assert_eq!(found, (verdict, rule, reason), "{}", evaluation.message);
    }

    #[track_caller]
    fn is_denied(&self, rule: &str, reason: &str) {
        self.is(Verdict::Deny, rule, reason);
    }

    #[track_caller]
    fn waits(&self, rule: &str, reason: &str) {
        self.is(Verdict::Wait, rule, reason);
    }
}
