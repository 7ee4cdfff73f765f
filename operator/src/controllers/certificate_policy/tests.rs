//! Reconciliations of a CertificatePolicy against a scripted API server.

use axum::http::Method;
use kube::runtime::reflector;
use serde_json::{Value, json};

use super::*;
use crate::controllers::scripted::{Answer, Server};

const PATH: &str = "/apis/keyplane.io/v1alpha1/namespaces/default/certificatepolicies/strict";

/// Stores a policy with this spec, reconciles it, and returns the result.
async fn pass(server: &Server, spec: &Value) -> Result<Action, Error> {
    let policy = server.insert(
        PATH,
        json!({
            "apiVersion": "keyplane.io/v1alpha1",
            "kind": "CertificatePolicy",
            "metadata": {"name": "strict", "namespace": "default"},
            "spec": spec,
        }),
    );
    let state =
        State { client: server.client(), policies: reflector::store().0, own_namespace: "keyplane-system".to_owned() };
    reconcile(Arc::new(serde_json::from_value(policy).unwrap()), Arc::new(state)).await
}

fn condition(server: &Server, type_: &str) -> Value {
    let conditions = server.object(PATH).unwrap()["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == *type_).unwrap_or_default()
}

#[tokio::test]
async fn reports_valid_and_invalid_policies() {
    for (spec, status, reason) in
        [(json!({}), "True", "Accepted"), (json!({"leaf": {"validity": "soon"}}), "False", "InvalidSpec")]
    {
        let server = Server::default();
        pass(&server, &spec).await.unwrap();
        let ready = condition(&server, "Ready");
        assert_eq!((&ready["status"], &ready["reason"]), (&json!(status), &json!(reason)), "{ready}");
        assert_eq!(server.writes(), [format!("PATCH {PATH}/status")]);
    }
}

#[tokio::test]
async fn approver_in_another_namespace_is_not_in_force() {
    let server = Server::default();
    let approver = json!({"reserved": {"serviceCIDRs": ["10.96.0.0/12"], "endpoints": ["api.example"]}});
    pass(&server, &json!({"approver": approver})).await.unwrap();
    let in_force = condition(&server, APPROVER);
    assert_eq!((&in_force["status"], &in_force["reason"]), (&json!("False"), &json!("OtherNamespace")));
}

#[tokio::test]
async fn refused_status_write_is_an_error() {
    for code in [403, 404, 409, 500] {
        let server = Server::default();
        server.script(Method::PATCH, "/strict/status", Answer::Failure(code));
        let error = pass(&server, &json!({})).await.unwrap_err();
        assert!(matches!(error, Error::Api { .. }), "{error}");
    }
}
