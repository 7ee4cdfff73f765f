use std::fs;
use std::path::PathBuf;

use clap::Parser;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use serde_json::{Value, json};

use super::*;
use crate::args::{Arguments, Command, CsrCommand};

const CLUSTER: &str = "
apiVersion: keyplane.io/v1alpha1
kind: ClusterSpec
metadata: {name: demo}
spec:
  kubernetesVersion: v1.37.2
  controlPlaneEndpoint: {host: api.demo.example}
  controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.11]}]}
  network: {podCIDRs: [10.244.0.0/16]}
---
apiVersion: keyplane.io/v1alpha1
kind: NodePool
metadata: {name: workers}
spec:
  clusterRef: {name: demo}
  machines: [{name: worker1, addresses: [10.0.0.21]}]
";

const NODE: &str = "
apiVersion: v1
kind: Node
metadata: {name: worker1}
status: {addresses: [{type: InternalIP, address: 10.0.0.21}, {type: Hostname, address: worker1}]}
";

const APPROVER: &str = "
apiVersion: keyplane.io/v1alpha1
kind: CertificatePolicy
metadata: {name: own, namespace: keyplane-system}
spec:
  approver:
    nodes: [{namePattern: worker*, addressCIDRs: [10.0.0.0/24]}]
    reserved: {serviceCIDRs: [10.96.0.0/12], endpoints: [10.0.0.99, api.example]}
";

fn pem(node: &str, address: Option<&str>) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
    if let Some(address) = address {
        params.subject_alt_names =
            vec![SanType::DnsName(node.try_into().unwrap()), SanType::IpAddress(address.parse().unwrap())];
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn request(node: &str, address: &str) -> Value {
    let pem = k8s_openapi::ByteString(pem(node, Some(address)).into_bytes());
    json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "csr-1"},
        "spec": {
            "signerName": "kubernetes.io/kubelet-serving",
            "username": format!("system:node:{node}"),
            "groups": ["system:nodes", "system:authenticated"],
            "usages": ["digital signature", "server auth"],
            "request": pem,
        },
    })
}

fn bootstrap(node: &str, pool: &str) -> Value {
    let mut request = request(node, "10.0.0.1");
    let spec = &mut request["spec"];
    spec["signerName"] = json!("kubernetes.io/kube-apiserver-client-kubelet");
    spec["username"] = json!("system:bootstrap:abcdef");
    spec["groups"] =
        json!(["system:bootstrappers", format!("system:bootstrappers:keyplane:{pool}"), "system:authenticated"]);
    spec["usages"] = json!(["digital signature", "client auth"]);
    spec["request"] = json!(k8s_openapi::ByteString(pem(node, None).into_bytes()));
    request
}

/// Runs the command with a file of these documents.
fn run(documents: &[String], more: &[&str]) -> Result<Explained, String> {
    let directory = tempfile::tempdir().unwrap();
    let file: PathBuf = directory.path().join("file.yaml");
    fs::write(&file, documents.join("\n---\n")).unwrap();
    let line = ["keyplane", "csr", "explain", "-f", file.to_str().unwrap()];
    let arguments = Arguments::try_parse_from(line.iter().copied().chain(more.iter().copied())).unwrap();
    let Command::Csr { command: CsrCommand::Explain(arguments) } = arguments.command else { unreachable!() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let now = "2026-11-23T12:00:00Z".parse().unwrap();
    runtime.block_on(explain(&arguments, now)).map_err(|error| error.to_string())
}

fn explained(documents: &[&str], request: &Value) -> (String, String, u8) {
    let documents: Vec<String> = documents.iter().map(|text| (*text).to_owned()).chain([request.to_string()]).collect();
    let explained = run(&documents, &["-o", "json"]).unwrap();
    let answer: Value = serde_json::from_str(&explained.text).unwrap();
    let text = |field: &str| answer[field].as_str().unwrap().to_owned();
    for rule in answer["rules"].as_array().unwrap() {
        assert!(rule["name"].is_string() && rule["verdict"].is_string() && rule["reason"].is_string(), "{rule}");
    }
    (text("verdict"), text("reason"), explained.status)
}

#[track_caller]
fn is(documents: &[&str], request: &Value, verdict: &str, reason: &str, status: u8) {
    assert_eq!(explained(documents, request), (verdict.to_owned(), reason.to_owned(), status));
}

#[test]
fn verdict_is_in_output_and_exit_status() {
    let mut other = request("worker1", "10.0.0.21");
    is(&[CLUSTER, NODE], &other, "Approve", "AllRulesPassed", 0);
    is(&[CLUSTER, NODE], &request("worker1", "10.0.0.22"), "Deny", "AddressNotDeclared", 2);
    is(&[CLUSTER], &other, "Wait", "NodeNotFound", 3);
    other["spec"]["signerName"] = json!("example.com/other");
    is(&[CLUSTER, NODE], &other, "Ignore", "OtherSigner", 4);
}

#[test]
fn uses_policy_of_management_cluster() {
    is(&[APPROVER, NODE], &request("worker1", "10.0.0.21"), "Approve", "AllRulesPassed", 0);
    is(&[APPROVER, NODE], &request("worker1", "10.0.0.99"), "Deny", "ReservedAddress", 2);
    is(&[APPROVER, NODE], &request("worker1", "10.0.1.21"), "Deny", "AddressNotDeclared", 2);
    is(&[APPROVER, NODE], &request("stray", "10.0.0.21"), "Wait", "AddressInUse", 3);
}

#[test]
fn evaluates_example_of_the_documentation() {
    let example = include_str!("../../../examples/approver.yaml");
    let node = NODE.replace("worker1", "worker-1").replace("10.0.0.21", "10.10.0.21");
    is(&[example, &node], &request("worker-1", "10.10.0.21"), "Approve", "AllRulesPassed", 0);
    is(&[example, &node], &request("worker-1", "10.10.1.100"), "Deny", "ReservedAddress", 2);
}

#[test]
fn without_cluster_denies_invalid_and_approves_nothing() {
    is(&[NODE], &request("worker1", "10.0.0.21"), "Wait", "ReservedUnknown", 3);
    let mut wrong = request("worker1", "10.0.0.21");
    wrong["spec"]["usages"] = json!([]);
    is(&[], &wrong, "Deny", "UsagesNotAllowed", 2);
}

#[test]
fn evaluates_csr_of_joining_node() {
    let policy = "{apiVersion: keyplane.io/v1alpha1, kind: CertificatePolicy, metadata: {name: p}, \
                  spec: {kubeletClient: {enabled: true}}}";
    is(&[CLUSTER, policy], &bootstrap("worker1", "workers"), "Approve", "AllRulesPassed", 0);
    is(&[CLUSTER, policy], &bootstrap("cp1", "workers"), "Deny", "AnotherPoolsNode", 2);
    is(&[CLUSTER, policy, NODE], &bootstrap("worker1", "workers"), "Wait", "NodeExists", 3);
    is(&[CLUSTER], &bootstrap("worker1", "workers"), "Ignore", "ApprovalDisabled", 4);
}

#[test]
fn uses_cluster_that_declares_the_node() {
    let other = CLUSTER.replace("demo", "other").replace("worker1", "worker9").replace("10.0.0", "10.9.0");
    is(&[CLUSTER, &other, NODE], &request("worker1", "10.0.0.21"), "Approve", "AllRulesPassed", 0);
    let documents = |other: &str, request: Value| [CLUSTER.to_owned(), other.to_owned(), request.to_string()];
    let error = run(&documents(&other, request("stray", "10.0.0.1")), &[]).unwrap_err();
    assert!(
        error.contains("none of these objects declares the node stray") && error.contains("default/other"),
        "{error}"
    );
    let both = other.replace("worker9", "worker1");
    let error = run(&documents(&both, request("worker1", "10.0.0.21")), &[]).unwrap_err();
    assert!(error.contains("more than one"), "{error}");
}

#[test]
fn evaluates_at_creation_time_unless_now_is_set() {
    let mut old = request("worker1", "10.0.0.21");
    old["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
    is(&[CLUSTER, NODE], &old, "Approve", "AllRulesPassed", 0);
    let documents = [CLUSTER.to_owned(), NODE.to_owned(), old.to_string()];
    let explained = run(&documents, &["--now", "2020-01-01T02:00:00Z"]).unwrap();
    assert_eq!(explained.status, 4, "{}", explained.text);
}

#[test]
fn table_has_a_row_for_each_rule() {
    let documents = [CLUSTER.to_owned(), NODE.to_owned(), request("worker1", "10.0.0.22").to_string()];
    let text = run(&documents, &[]).unwrap().text;
    assert!(text.contains("Judged by: ClusterSpec default/demo, the default policy\nVerdict:   Deny\n"), "{text}");
    let line = text.lines().find(|line| line.starts_with("declared-addresses ")).unwrap();
    assert!(line.contains(" Deny ") && line.contains("10.0.0.22"), "{line}");
    assert_eq!(text.lines().count(), 8 + keyplane_core::approval::SERVING_RULES.len());
}

#[test]
fn error_names_document_and_field() {
    let good = request("worker1", "10.0.0.21").to_string();
    let cases = [
        (CLUSTER.replace("machines: [", "machines: [5, "), "document 2: NodePool workers: spec.machines[0]"),
        (CLUSTER.replace("ClusterSpec", "Cluster"), "document 1: kind \"Cluster\" is not supported"),
        (CLUSTER.replace("apiVersion: keyplane.io/v1alpha1\nkind: NodePool\n", ""), "document 2: kind is missing"),
        (format!("{CLUSTER}\n---\n{good}"), "2 CertificateSigningRequests"),
        (format!("{CLUSTER}\n  x: [\n"), "is not YAML"),
        (
            CLUSTER.replace("  network:", "  certificatePolicyRef: {name: strict}\n  network:"),
            "CertificatePolicy strict",
        ),
    ];
    for (documents, words) in cases {
        let error = run(&[documents, good.clone()], &[]).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    let mut empty = request("worker1", "10.0.0.21");
    empty["spec"]["request"] = json!("");
    let error = run(&[empty.to_string()], &[]).unwrap_err();
    assert!(error.contains("document 1: spec.request"), "{error}");
    assert!(run(&[CLUSTER.to_owned()], &[]).unwrap_err().contains("0 CertificateSigningRequests"));
}
