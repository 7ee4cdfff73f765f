//! Deletion of a ClusterSpec against a scripted API server.

use axum::http::Method;
use serde_json::{Value, json};

use super::*;
use crate::controllers::scripted::{Answer, CONFIG_MAPS, Objects, SECRETS, Server, cluster_spec, secret};

const DEMO: &str = "/apis/keyplane.io/v1alpha1/namespaces/default/clusterspecs/demo";

/// Returns a server with a ClusterSpec that is being deleted, and with its objects.
fn start(confirmation: &Value, policy: &str) -> Server {
    let server = Server::default();
    let changes = json!({
        "metadata": {
            "deletionTimestamp": "2026-11-23T12:00:00Z",
            "finalizers": [keys::CLUSTERSPEC_FINALIZER],
            "annotations": {CONFIRM_DELETION_ANNOTATION: confirmation},
        },
        "spec": {"deletionPolicy": policy},
    });
    server.insert(DEMO, cluster_spec(&changes));
    let ours = |cluster: &str| json!({MANAGED_BY_LABEL: MANAGED_BY, CLUSTER_LABEL: cluster});
    for (name, labels) in [
        ("demo-ca", ours("demo")),
        ("demo-sa", ours("demo")),
        ("other-ca", ours("other")),
        ("user-provided", json!({CLUSTER_LABEL: "demo"})),
    ] {
        server.insert(&format!("{SECRETS}/{name}"), secret(name, &labels));
    }
    let mut config_map = secret("demo-ca-bundle", &ours("demo"));
    config_map["kind"] = json!("ConfigMap");
    server.insert(&format!("{CONFIG_MAPS}/demo-ca-bundle"), config_map);
    server
}

fn found(server: &Server) -> ClusterSpec {
    serde_json::from_value(server.object(DEMO).unwrap()).unwrap()
}

async fn handle_on(server: &Server) -> Result<Option<Action>, Error> {
    handle(&found(server), &server.context()).await
}

fn finalizers(server: &Server) -> Value {
    server.object(DEMO).unwrap()["metadata"]["finalizers"].clone()
}

fn secrets(server: &Server) -> Vec<String> {
    let names = server.collection(SECRETS).into_keys();
    names.map(|path| path.rsplit('/').next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn wrong_or_missing_confirmation_deletes_nothing() {
    for confirmation in [Value::Null, json!(""), json!("true"), json!("other")] {
        let server = start(&confirmation, "Delete");
        assert_eq!(handle_on(&server).await.unwrap(), Some(Action::await_change()), "{confirmation}");
        assert_eq!(server.writes(), [format!("PATCH {DEMO}/status")], "{confirmation}");
        assert_eq!(server.condition("Rendered")["reason"], "DeletionNotConfirmed");
        assert_eq!(finalizers(&server), json!([keys::CLUSTERSPEC_FINALIZER]));
    }
}

#[tokio::test]
async fn confirmed_deletion_deletes_only_objects_of_the_cluster() {
    let server = start(&json!("demo"), "Delete");
    let stored = server.object(&format!("{SECRETS}/demo-ca")).unwrap();
    assert_eq!(handle_on(&server).await.unwrap(), Some(Action::await_change()));
    assert_eq!(secrets(&server), ["other-ca", "user-provided"]);
    assert!(server.collection(CONFIG_MAPS).is_empty());
    // Without its finalizer, the ClusterSpec is gone.
    assert_eq!(server.object(DEMO), None);
    let requests = server.requests();
    let deletion = requests.iter().find(|request| request.method == Method::DELETE).unwrap();
    let expected = ["uid", "resourceVersion"].map(|key| &stored["metadata"][key]);
    assert_eq!(["uid", "resourceVersion"].map(|key| &deletion.body["preconditions"][key]), expected);
}

#[tokio::test]
async fn retained_cluster_loses_only_its_finalizer() {
    let server = start(&json!("demo"), "Retain");
    handle_on(&server).await.unwrap();
    assert_eq!(server.writes(), [format!("PATCH {DEMO}")]);
    assert_eq!(secrets(&server).len(), 4);
}

#[tokio::test]
async fn object_recreated_since_the_list_is_not_deleted() {
    let server = start(&json!("demo"), "Delete");
    let path = format!("{SECRETS}/demo-ca");
    let at = path.clone();
    let recreate = move |objects: &mut Objects| {
        _ = objects.insert(&at, secret("demo-ca", &json!({})));
    };
    server.script(Method::DELETE, &path, Answer::Meanwhile(Box::new(recreate)));
    let error = handle_on(&server).await.unwrap_err();
    assert!(error.to_string().contains("deleting Secret demo-ca"), "{error}");
    assert!(server.object(&path).is_some());
    assert_eq!(finalizers(&server), json!([keys::CLUSTERSPEC_FINALIZER]));
}

#[tokio::test]
async fn object_deleted_since_the_list_is_no_error() {
    let server = start(&json!("demo"), "Delete");
    let path = format!("{SECRETS}/demo-ca");
    let at = path.clone();
    server.script(Method::DELETE, &path, Answer::Meanwhile(Box::new(move |objects| objects.remove(&at))));
    handle_on(&server).await.unwrap();
    assert_eq!(secrets(&server), ["other-ca", "user-provided"]);
    assert_eq!(server.object(DEMO), None);
}

#[tokio::test]
async fn failed_list_or_delete_leaves_the_finalizer() {
    for (method, path, code) in [
        (Method::GET, SECRETS, 410),
        (Method::GET, CONFIG_MAPS, 403),
        (Method::DELETE, SECRETS, 403),
        (Method::DELETE, CONFIG_MAPS, 500),
    ] {
        let server = start(&json!("demo"), "Delete");
        server.script(method, path, Answer::Failure(code));
        assert!(handle_on(&server).await.is_err(), "{path} {code}");
        assert_eq!(finalizers(&server), json!([keys::CLUSTERSPEC_FINALIZER]), "{path} {code}");
    }
}

#[tokio::test]
async fn finalizer_of_another_client_is_not_lost() {
    let server = Server::default();
    server.insert(DEMO, cluster_spec(&json!({"spec": {"deletionPolicy": "Delete"}})));
    let observed = found(&server);
    let changes = json!({"spec": {"deletionPolicy": "Delete"}, "metadata": {"finalizers": ["example.com/backup"]}});
    server.insert(DEMO, cluster_spec(&changes));
    assert!(handle(&observed, &server.context()).await.is_err());
    assert_eq!(finalizers(&server), json!(["example.com/backup"]));
    assert_eq!(handle_on(&server).await.unwrap(), None);
    assert_eq!(finalizers(&server), json!(["example.com/backup", keys::CLUSTERSPEC_FINALIZER]));
}
