//! Reconciliations of a ClusterSpec against a scripted API server.

use axum::http::Method;
use serde_json::{Value, json};

use super::*;
use crate::controllers::scripted::{
    Answer, CLUSTER_SPECS, CONFIG_MAPS, Objects, SECRETS, Server, cluster_spec, secret,
};

const DEMO: &str = "/apis/keyplane.io/v1alpha1/namespaces/default/clusterspecs/demo";
const STATUS_WRITE: &str = "PATCH /apis/keyplane.io/v1alpha1/namespaces/default/clusterspecs/demo/status";

/// Returns a server with the ClusterSpec `demo`, and the state of the controller.
fn start(changes: &Value) -> (Server, Arc<State>) {
    let server = Server::default();
    server.insert(DEMO, cluster_spec(changes));
    let state = State { context: server.context(), backoff: Backoff::default() };
    (server, Arc::new(state))
}

/// Returns a server with a completely written cluster, and the state of the controller.
async fn start_written() -> (Server, Arc<State>) {
    let (server, state) = start(&json!({}));
    pass(&state).await.unwrap();
    assert!(session(&state).is_some(), "{:?}", server.writes());
    server.forget_requests();
    (server, state)
}

fn cached() -> Arc<Guarded> {
    Arc::new(serde_json::from_value(cluster_spec(&json!({}))).unwrap())
}

async fn pass(state: &Arc<State>) -> Result<Action, Error> {
    reconcile(cached(), Arc::clone(state)).await
}

fn session(state: &State) -> Option<Arc<SessionSpec>> {
    state.context.targets.spec("default", "demo")
}

/// Counts one more failure, and returns its delay.
fn next_delay(state: &State) -> Duration {
    state.backoff.failed(("default".to_owned(), "demo".to_owned()))
}

#[tokio::test]
async fn first_pass_creates_keys_and_starts_session() {
    let (server, state) = start(&json!({}));
    pass(&state).await.unwrap();
    let secrets = server.collection(SECRETS);
    for name in ["demo-ca", "demo-etcd", "demo-proxy", "demo-sa", "demo-kubeconfig", "demo-cp1-pki"] {
        assert!(secrets.contains_key(&format!("{SECRETS}/{name}")), "{name}");
    }
    assert!(session(&state).is_some());
    assert_eq!(server.condition("Rendered")["status"], "True");
    let writes = server.writes();
    assert_eq!(writes.last().unwrap(), STATUS_WRITE);
    // Objects that do not exist are only created, and the status is written once.
    assert!(writes[..writes.len() - 1].iter().all(|write| write.starts_with("POST ")), "{writes:?}");
    server.forget_requests();
    pass(&state).await.unwrap();
    assert!(server.writes().iter().all(|write| write == STATUS_WRITE), "{:?}", server.writes());
}

#[tokio::test]
async fn invalid_spec_is_reported_and_nothing_else_is_written() {
    let (server, state) = start(&json!({"spec": {"network": {"podCIDRs": ["10.244.0.0/16", "10.245.0.0/16"]}}}));
    pass(&state).await.unwrap();
    for type_ in ["Rendered", "Ready"] {
        let condition = server.condition(type_);
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("InvalidSpec")));
        assert!(condition["message"].as_str().unwrap().contains("spec.network.podCIDRs"), "{condition}");
    }
    assert_eq!(server.writes(), [STATUS_WRITE]);
    assert!(session(&state).is_none());
}

#[tokio::test]
async fn unparsable_object_is_reported() {
    let (server, state) = start(&json!({"spec": {"controlPlane": "none"}}));
    pass(&state).await.unwrap();
    assert_eq!(server.condition("Rendered")["reason"], "Unreadable");
    assert_eq!(server.writes(), [STATUS_WRITE]);
}

#[tokio::test]
async fn unparsable_status_is_not_overwritten() {
    let (server, state) = start(&json!({"status": {"certificates": "lost"}}));
    pass(&state).await.unwrap();
    assert!(server.writes().is_empty(), "{:?}", server.writes());
}

#[tokio::test]
async fn secret_of_another_owner_is_not_overwritten() {
    for taken in ["demo-ca", "demo-kubeconfig"] {
        let (server, state) = start(&json!({}));
        let path = format!("{SECRETS}/{taken}");
        let theirs = server.insert(&path, secret(taken, &json!({"app.kubernetes.io/managed-by": "Helm"})));
        pass(&state).await.unwrap();
        assert_eq!(server.object(&path), Some(theirs));
        let touched: Vec<_> = server.writes().into_iter().filter(|write| write.ends_with(&path)).collect();
        assert!(touched.is_empty(), "{touched:?}");
        let condition = server.condition("Rendered");
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("ForeignObject")));
        assert!(condition["message"].as_str().unwrap().contains(taken), "{condition}");
    }
}

#[tokio::test]
async fn secret_created_at_the_same_time_is_not_overwritten() {
    let (server, state) = start(&json!({}));
    let path = format!("{SECRETS}/demo-ca");
    let theirs = secret("demo-ca", &json!({}));
    let inserted = theirs.clone();
    let at = path.clone();
    let create = move |objects: &mut Objects| _ = objects.insert(&at, inserted);
    server.script(Method::POST, SECRETS, Answer::Meanwhile(Box::new(create)));
    let error = pass(&state).await.unwrap_err();
    assert!(matches!(error, Error::Conflict(_)), "{error}");
    assert!(!server.writes().contains(&STATUS_WRITE.to_owned()));
    pass(&state).await.unwrap();
    assert_eq!(server.condition("Rendered")["reason"], "ForeignObject");
    assert_eq!(server.object(&path).unwrap()["data"], theirs["data"]);
}

#[tokio::test]
async fn conflict_leads_to_another_pass_without_backoff() {
    let (server, state) = start(&json!({}));
    server.script(Method::POST, SECRETS, Answer::Failure(409));
    let error = pass(&state).await.unwrap_err();
    assert!(matches!(error, Error::Conflict(_)), "{error}");
    assert!(server.object(DEMO).unwrap()["status"].is_null());
    assert_ne!(on_error(cached(), &error, Arc::clone(&state)), Action::await_change());
    assert!(next_delay(&state) <= Duration::from_secs(1));
    pass(&state).await.unwrap();
    assert_eq!(server.condition("Rendered")["status"], "True");
}

#[tokio::test]
async fn object_deleted_before_its_replacement_is_created_again() {
    let (server, state) = start_written().await;
    let path = format!("{CONFIG_MAPS}/demo-ca-bundle");
    let mut changed = server.object(&path).unwrap();
    let data = changed["data"].clone();
    changed["data"] = json!({"ca.crt": "changed"});
    server.insert(&path, changed);
    let at = path.clone();
    server.script(Method::PUT, &path, Answer::Meanwhile(Box::new(move |objects| objects.remove(&at))));
    let error = pass(&state).await.unwrap_err();
    assert!(matches!(error, Error::Conflict(_)), "{error}");
    assert_eq!(server.writes(), [format!("PUT {path}")]);
    pass(&state).await.unwrap();
    assert_eq!(server.object(&path).unwrap()["data"], data);
    assert!(server.writes().contains(&format!("POST {CONFIG_MAPS}")));
}

#[tokio::test]
async fn forbidden_write_is_an_error_with_backoff_and_no_status() {
    let (server, state) = start(&json!({}));
    server.script(Method::POST, SECRETS, Answer::Failure(403));
    let error = pass(&state).await.unwrap_err();
    assert!(matches!(error, Error::Api { .. }), "{error}");
    assert_eq!(server.writes(), [format!("POST {SECRETS}")]);
    assert!(server.object(DEMO).unwrap()["status"].is_null());
    assert!(session(&state).is_none());
    assert_ne!(on_error(cached(), &error, Arc::clone(&state)), Action::await_change());
    assert!(next_delay(&state) > Duration::from_secs(1));
    // A success resets the backoff.
    pass(&state).await.unwrap();
    assert!(next_delay(&state) <= Duration::from_secs(1));
}

#[tokio::test]
async fn failed_read_writes_nothing() {
    let (server, state) = start_written().await;
    // The session reads Secrets, too.
    state.context.targets.stop("default", "demo");
    // Without the answer, the CA would seem to be missing.
    server.script(Method::GET, &format!("{SECRETS}/demo-ca"), Answer::Failure(500));
    let error = pass(&state).await.unwrap_err();
    assert!(matches!(error, Error::Api { .. }), "{error}");
    assert!(server.writes().is_empty(), "{:?}", server.writes());
}

#[tokio::test]
async fn paused_cluster_has_no_session_and_writes_no_secret() {
    let (server, state) = start_written().await;
    let mut found = server.object(DEMO).unwrap();
    found["spec"]["paused"] = json!(true);
    server.insert(DEMO, found);
    // Without the pause, this Secret would be written again.
    server.remove(&format!("{SECRETS}/demo-kubeconfig"));
    pass(&state).await.unwrap();
    assert!(session(&state).is_none());
    assert_eq!(server.writes(), [STATUS_WRITE]);
    assert_eq!(server.condition("Reconciling")["reason"], "Paused");
}

#[tokio::test]
async fn deleted_cluster_spec_has_no_session() {
    let (server, state) = start_written().await;
    server.remove(DEMO);
    assert_eq!(pass(&state).await.unwrap(), Action::await_change());
    assert!(session(&state).is_none());
    assert!(server.writes().is_empty(), "{:?}", server.writes());
}

#[tokio::test]
async fn status_write_to_a_deleted_cluster_spec_is_an_error() {
    let (server, state) = start(&json!({}));
    let remove = |objects: &mut Objects| objects.remove(DEMO);
    server.script(Method::PATCH, "/demo/status", Answer::Meanwhile(Box::new(remove)));
    let error = pass(&state).await.unwrap_err();
    assert!(matches!(error, Error::Api { .. }), "{error}");
}

#[tokio::test]
async fn slow_answer_exceeds_the_reconcile_timeout() {
    let (server, state) = start(&json!({}));
    server.script(Method::GET, CLUSTER_SPECS, Answer::After(Duration::from_hours(1)));
    let result = reconcile_within(Duration::from_millis(50), &cached(), &state).await;
    assert_eq!(result.unwrap_err().reason(), "timeout");
    assert!(server.writes().is_empty(), "{:?}", server.writes());
}
