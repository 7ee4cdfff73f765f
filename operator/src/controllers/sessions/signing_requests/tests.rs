//! Requests of the approver to the API server, and the handling of its responses.

use axum::http::Method;
use serde_json::{Value, json};

use super::super::projections::WatchedNode;
use super::*;
use crate::controllers::scripted::{Answer, Server};
use keyplane_core::approval::Terms;

const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests/csr-1";

/// A kubelet's request for `worker1`, 10.0.0.21 and `fd00::15`.
const REQUEST: &[u8] = include_bytes!("../../../../core/src/approval/tests/kubelet-ecdsa.pem");

/// The requests that the server has received.
struct Requests {
    approvals: Vec<Value>,
    gets: usize,
}

fn stored(version: &str, conditions: &Value) -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "csr-1", "uid": "u1", "resourceVersion": version, "creationTimestamp": Timestamp::now().to_string()},
        "spec": {
            "signerName": KUBELET_SERVING_SIGNER,
            "username": "system:node:worker1",
            "groups": ["system:nodes", "system:authenticated"],
            "usages": ["digital signature", "server auth"],
            "request": k8s_openapi::ByteString(REQUEST.to_vec()),
        },
        "status": {"conditions": conditions},
    })
}

/// Evaluates the CSR twice. Before that, the server stores `meanwhile`, and the first approval fails with `failure`.
async fn evaluate_twice(policy: &str, failure: Option<u16>, meanwhile: Value) -> Requests {
    let server = Server::default();
    server.insert(PATH, meanwhile);
    if let Some(code) = failure {
        server.script(Method::PATCH, "/approval", Answer::Failure(code));
    }
    let client = server.client();
    let approver = json!({
        "machines": [{"name": "worker1", "addresses": ["10.0.0.21", "fd00::15"]}],
        "reserved": {"serviceCIDRs": ["10.96.0.0/12"], "endpoints": ["api.example"]},
    });
    let terms = Terms::parse(&serde_saphyr::from_str(policy).unwrap()).unwrap();
    let approver = Approver::of_policy(&serde_json::from_value(approver).unwrap(), terms);
    let place =
        Place { labels: ["n".to_owned(), "p".to_owned()], policy: "CertificatePolicy p".to_owned(), about: None };
    let (events, metrics) = (Events::new(client.clone(), "test"), Metrics::new().unwrap());
    let mut csrs = SigningRequests::new(client, approver, place, events, metrics);
    let node = json!({"metadata": {"name": "worker1"}, "status": {"addresses": [
        {"type": "InternalIP", "address": "10.0.0.21"},
        {"type": "InternalIP", "address": "fd00::15"},
        {"type": "Hostname", "address": "worker1"},
    ]}});
    csrs.node_event(&Event::Apply(serde_json::from_value::<WatchedNode>(node).unwrap()));
    csrs.request_event(Event::Apply(serde_json::from_value(stored("7", &json!([]))).unwrap()));
    for _ in 0..2 {
        csrs.work(Timestamp::now()).await;
    }
    let requests = server.requests();
    let approvals =
        requests.iter().filter(|request| request.method == Method::PATCH && request.path.ends_with("/approval"));
    Requests {
        approvals: approvals.map(|request| request.body.clone()).collect(),
        gets: requests.iter().filter(|request| request.method == Method::GET).count(),
    }
}

#[tokio::test]
async fn approval_has_evaluated_version_and_names_policy() {
    let server = evaluate_twice("{}", None, stored("7", &json!([]))).await;
    let [approval] = server.approvals.as_slice() else { panic!("{:?}", server.approvals) };
    assert_eq!(approval["metadata"], json!({"resourceVersion": "7", "uid": "u1"}));
    let condition = &approval["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["reason"]), (&json!("Approved"), &json!("AllRulesPassed")));
    assert!(condition["message"].as_str().unwrap().contains("CertificatePolicy p"), "{condition}");
}

#[tokio::test]
async fn evaluates_changed_csr_again() {
    let server = evaluate_twice("{}", None, stored("8", &json!([]))).await;
    let versions: Vec<_> = server.approvals.iter().map(|approval| &approval["metadata"]["resourceVersion"]).collect();
    assert_eq!((versions, server.gets), (vec![&json!("7"), &json!("8")], 1));
}

#[tokio::test]
async fn leaves_csr_with_foreign_verdict_unchanged() {
    let denied = json!([{"type": "Denied", "status": "True", "reason": "ByHand"}]);
    let server = evaluate_twice("{}", None, stored("8", &denied)).await;
    assert_eq!((server.approvals.len(), server.gets), (1, 1));
}

#[tokio::test]
async fn retries_failed_write_later() {
    let server = evaluate_twice("{}", Some(500), stored("7", &json!([]))).await;
    assert_eq!(server.approvals.len(), 1);
}

#[tokio::test]
async fn dry_run_writes_no_verdict() {
    let server = evaluate_twice("{kubeletServing: {dryRun: true}}", None, stored("7", &json!([]))).await;
    assert_eq!((server.approvals.len(), server.gets), (0, 0));
}

#[tokio::test]
async fn evaluates_nothing_before_both_lists_are_complete() {
    let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
    let approver = Approver::of_unknown_cluster(Terms::default());
    let place = Place { labels: ["n".to_owned(), "p".to_owned()], policy: "p".to_owned(), about: None };
    let mut csrs =
        SigningRequests::new(client.clone(), approver, place, Events::new(client, "test"), Metrics::new().unwrap());
    let is_soon = |csrs: &SigningRequests| csrs.wake() < Instant::now() + Duration::from_mins(1);
    csrs.request_event(Event::Init);
    csrs.request_event(Event::InitApply(serde_json::from_value(stored("7", &json!([]))).unwrap()));
    csrs.request_event(Event::InitDone);
    assert!(!is_soon(&csrs));
    csrs.node_event(&Event::<WatchedNode>::Init);
    assert!(!is_soon(&csrs));
    csrs.node_event(&Event::<WatchedNode>::InitDone);
    assert!(is_soon(&csrs));
}
