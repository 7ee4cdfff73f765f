//! Writes against a scripted API server: nothing is overwritten or deleted that was not observed.

use axum::http::Method;
use keyplane_client::write::{Deleted, delete};
use keyplane_core::model::Policy;
use keyplane_core::plan::{Kind, Removal};
use serde_json::{Value, json};

use super::*;
use crate::controllers::scripted::{Answer, SECRETS, Server, cluster_spec, secret};

const PATH: &str = "/api/v1/namespaces/default/secrets/demo-ca";

/// Returns a server with the Secret `demo-ca`, an API of its Secrets, and the observed Secret.
fn start() -> (Server, Api<Secret>, Secret) {
    let server = Server::default();
    let stored = server.insert(PATH, secret("demo-ca", &json!({})));
    let api = Api::namespaced(server.client(), "default");
    (server, api, serde_json::from_value(stored).unwrap())
}

/// Another client changes the Secret.
fn change(server: &Server) -> Value {
    let mut changed = server.object(PATH).unwrap();
    changed["data"] = json!({"tls.key": "b3RoZXI="});
    changed["metadata"]["resourceVersion"] = Value::Null;
    server.insert(PATH, changed)
}

/// Another client deletes the Secret and creates another one with the same name and resource version.
fn recreate(server: &Server) -> Value {
    let mut recreated = server.object(PATH).unwrap();
    recreated["metadata"]["uid"] = Value::Null;
    server.insert(PATH, recreated)
}

#[tokio::test]
async fn create_of_an_existing_object_is_a_conflict() {
    let (server, api, mut secret) = start();
    let before = server.object(PATH);
    secret.metadata.resource_version = None;
    assert!(matches!(write(&api, &secret).await, Ok(Written::Conflict)));
    assert_eq!(server.object(PATH), before);
    assert_eq!(server.writes(), [format!("POST {SECRETS}")]);
}

#[tokio::test]
async fn replace_sends_the_observed_resource_version() {
    let (server, api, mut secret) = start();
    let observed = secret.resource_version();
    secret.data = None;
    let Ok(Written::Done(written)) = write(&api, &secret).await else { panic!("{:?}", server.writes()) };
    assert_ne!(written.resource_version(), observed);
    assert_eq!(server.requests()[0].body["metadata"]["resourceVersion"], json!(observed));
    assert!(server.object(PATH).unwrap()["data"].is_null());
}

#[tokio::test]
async fn replace_of_a_changed_object_is_a_conflict() {
    let (server, api, secret) = start();
    let changed = change(&server);
    assert!(matches!(write(&api, &secret).await, Ok(Written::Conflict)));
    assert_eq!(server.object(PATH), Some(changed));
}

#[tokio::test]
async fn replace_of_a_deleted_object_is_a_conflict() {
    let (server, api, secret) = start();
    server.remove(PATH);
    assert!(matches!(write(&api, &secret).await, Ok(Written::Conflict)));
    assert_eq!(server.object(PATH), None);
}

#[tokio::test]
async fn refused_write_is_an_error_and_no_conflict() {
    for code in [403, 410, 422, 500] {
        let (server, api, mut secret) = start();
        let before = server.object(PATH);
        server.script(Method::PUT, PATH, Answer::Failure(code));
        assert!(write(&api, &secret).await.is_err(), "{code}");
        secret.metadata.resource_version = None;
        server.script(Method::POST, SECRETS, Answer::Failure(code));
        assert!(write(&api, &secret).await.is_err(), "{code}");
        server.script(Method::DELETE, PATH, Answer::Failure(code));
        assert!(delete(&api, "demo-ca", secret.uid(), None).await.is_err(), "{code}");
        assert_eq!(server.object(PATH), before);
    }
}

#[tokio::test]
async fn delete_sends_the_observed_uid_and_resource_version() {
    let (server, api, secret) = start();
    let deleted = delete(&api, "demo-ca", secret.uid(), secret.resource_version()).await;
    assert!(matches!(deleted, Ok(Deleted::Done)));
    let expected = json!({"uid": secret.uid().unwrap(), "resourceVersion": secret.resource_version().unwrap()});
    assert_eq!(server.requests()[0].body["preconditions"], expected);
    assert_eq!(server.object(PATH), None);
}

#[tokio::test]
async fn delete_leaves_a_changed_or_recreated_object() {
    for another_client in [change, recreate] {
        let (server, api, secret) = start();
        let theirs = another_client(&server);
        let deleted = delete(&api, "demo-ca", secret.uid(), secret.resource_version()).await;
        assert!(matches!(deleted, Ok(Deleted::Conflict)));
        assert_eq!(server.object(PATH), Some(theirs));
    }
}

#[tokio::test]
async fn delete_of_a_missing_object_is_done() {
    let (server, api, secret) = start();
    server.remove(PATH);
    assert!(matches!(delete(&api, "demo-ca", secret.uid(), None).await, Ok(Deleted::Done)));
}

#[tokio::test]
async fn put_counts_writes_and_reports_conflicts() {
    let (server, api, secret) = start();
    let context = server.context();
    let count = || context.metrics.writes.with_label_values(&["Secret"]).get();
    let written = put(&api, &secret, &context).await.unwrap();
    assert_eq!(count(), 1);
    // The Secret has a newer version now.
    let error = put(&api, &secret, &context).await.unwrap_err();
    assert!(matches!(error, Error::Conflict(_)), "{error}");
    assert!(error.to_string().contains("Secret demo-ca"), "{error}");
    server.remove(PATH);
    let error = put(&api, &written, &context).await.unwrap_err();
    assert!(matches!(error, Error::Conflict(_)), "{error}");
    assert_eq!(count(), 1);
}

#[tokio::test]
async fn removal_of_a_changed_object_is_a_conflict() {
    let (server, _, secret) = start();
    let context = server.context();
    let spec = serde_json::from_value(cluster_spec(&json!({}))["spec"].clone()).unwrap();
    let cluster = Cluster::parse("demo", "default", &spec, Policy::default()).unwrap();
    let mut observed = Observed::default();
    observed.secrets.insert("demo-ca".to_owned(), secret.clone());
    let removal = Removal {
        kind: Kind::Secret,
        name: "demo-ca".to_owned(),
        uid: secret.uid(),
        resource_version: secret.resource_version(),
        reason: reasons::WRITTEN,
        note: String::new(),
    };
    let theirs = change(&server);
    let error = deletion::remove(&cluster, &mut observed, &removal, &context).await.unwrap_err();
    assert!(matches!(error, Error::Conflict(_)), "{error}");
    assert_eq!(server.object(PATH), Some(theirs));
    assert!(observed.secrets.contains_key("demo-ca"));
}
