//! Requests of the approver to the API server, and the handling of its responses.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::super::projections::WatchedNode;
use super::*;
use keyplane_core::approval::Terms;

/// A kubelet's request for `worker1`, 10.0.0.21 and `fd00::15`.
const REQUEST: &[u8] = include_bytes!("../../../../core/src/approval/tests/kubelet-ecdsa.pem");

/// A mock API server that answers approvals with these status codes in order, and stores one CSR.
#[derive(Clone)]
struct Server {
    approvals: Vec<Value>,
    gets: usize,
    statuses: Vec<u16>,
    stored: Value,
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

async fn answer(server: Arc<Mutex<Server>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let mut server = server.lock().unwrap();
    let (status, answer) = match (parts.method, parts.uri.path().ends_with("/approval")) {
        (Method::PATCH, true) => {
            server.approvals.push(serde_json::from_slice(&body).unwrap());
            (server.statuses.remove(0), server.stored.clone())
        }
        (Method::GET, _) => {
            server.gets += 1;
            (200, server.stored.clone())
        }
        // Events.
        _ => (201, serde_json::from_slice(&body).unwrap_or_default()),
    };
    let answer = match status {
        200 | 201 => answer,
        code => json!({"kind": "Status", "status": "Failure", "code": code, "reason": "Conflict", "message": "no"}),
    };
    let mut response = Response::new(Body::from(answer.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// Evaluates the CSR twice; before the second time, the server stores `meanwhile`.
async fn evaluate_twice(policy: &str, statuses: &[u16], meanwhile: Value) -> Server {
    let server = Server { approvals: vec![], gets: 0, statuses: statuses.to_vec(), stored: meanwhile };
    let server = Arc::new(Mutex::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server_state = Arc::clone(&server);
    let router = Router::new().fallback(move |request| answer(Arc::clone(&server_state), request));
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let mut config = kube::Config::new(format!("http://{address}").parse().unwrap());
    config.default_retry = false;
    let client = Client::try_from(config).unwrap();

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
    serving.abort();
    server.lock().unwrap().clone()
}

#[tokio::test]
async fn approval_has_evaluated_version_and_names_policy() {
    let server = evaluate_twice("{}", &[200], stored("7", &json!([]))).await;
    let [approval] = server.approvals.as_slice() else { panic!("{:?}", server.approvals) };
    assert_eq!(approval["metadata"], json!({"resourceVersion": "7", "uid": "u1"}));
    let condition = &approval["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["reason"]), (&json!("Approved"), &json!("AllRulesPassed")));
    assert!(condition["message"].as_str().unwrap().contains("CertificatePolicy p"), "{condition}");
}

#[tokio::test]
async fn evaluates_changed_csr_again() {
    let server = evaluate_twice("{}", &[409, 200], stored("8", &json!([]))).await;
    let versions: Vec<_> = server.approvals.iter().map(|approval| &approval["metadata"]["resourceVersion"]).collect();
    assert_eq!((versions, server.gets), (vec![&json!("7"), &json!("8")], 1));
}

#[tokio::test]
async fn leaves_csr_with_foreign_verdict_unchanged() {
    let denied = json!([{"type": "Denied", "status": "True", "reason": "ByHand"}]);
    let server = evaluate_twice("{}", &[409], stored("8", &denied)).await;
    assert_eq!((server.approvals.len(), server.gets), (1, 1));
}

#[tokio::test]
async fn retries_failed_write_later() {
    let server = evaluate_twice("{}", &[500, 200], stored("7", &json!([]))).await;
    assert_eq!(server.approvals.len(), 1);
}

#[tokio::test]
async fn dry_run_writes_no_verdict() {
    let server = evaluate_twice("{kubeletServing: {dryRun: true}}", &[], stored("7", &json!([]))).await;
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
