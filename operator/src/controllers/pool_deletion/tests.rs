//! Deletion of a NodePool against a scripted API server.

use std::sync::Arc;

use axum::http::Method;
use keyplane_core::names::{MANAGED_BY, MANAGED_BY_LABEL};
use serde_json::{Value, json};

use super::*;
use crate::controllers::scripted::{Answer, CLUSTER_SPECS, CONFIG_MAPS, Server, cluster_spec, secret};

const WORKERS: &str = "/apis/keyplane.io/v1alpha1/namespaces/default/nodepools/workers";

/// Returns a server with a NodePool that is being deleted, with this status, and with the ConfigMaps of its nodes. One
/// ConfigMap belongs to another pool.
fn start(status: &Value) -> Server {
    let server = Server::default();
    let pool = json!({
        "apiVersion": "keyplane.io/v1alpha1",
        "kind": "NodePool",
        "metadata": {
            "name": "workers",
            "namespace": "default",
            "deletionTimestamp": "2026-11-23T12:00:00Z",
            "finalizers": [keys::NODEPOOL_FINALIZER],
        },
        "spec": {
            "clusterRef": {"name": "demo"},
            "machines": [{"name": "w1", "addresses": ["10.0.0.21"]}, {"name": "w2", "addresses": ["10.0.0.22"]}],
        },
        "status": status,
    });
    server.insert(WORKERS, pool);
    server.insert(&format!("{CLUSTER_SPECS}/demo"), cluster_spec(&json!({})));
    for (node, pool) in [("w1", "workers"), ("w2", "other")] {
        let labels =
            json!({MANAGED_BY_LABEL: MANAGED_BY, (keys::CLUSTER_LABEL): "demo", (keys::NODE_POOL_LABEL): pool});
        let name = worker_config_map("demo", node);
        let mut config_map = secret(&name, &labels);
        config_map["kind"] = json!("ConfigMap");
        server.insert(&format!("{CONFIG_MAPS}/{name}"), config_map);
    }
    server
}

async fn handle_on(server: &Server) -> Result<Action, Error> {
    let pool: NodePool = serde_json::from_value(server.object(WORKERS).unwrap()).unwrap();
    let state = State { context: server.context(), written: Arc::default() };
    handle(&pool, &state).await
}

#[tokio::test]
async fn deletion_deletes_only_objects_of_the_pool() {
    let server = start(&json!({}));
    assert_eq!(handle_on(&server).await.unwrap(), Action::await_change());
    let left: Vec<_> = server.collection(CONFIG_MAPS).into_keys().collect();
    assert_eq!(left, [format!("{CONFIG_MAPS}/{}", worker_config_map("demo", "w2"))]);
    // Without its finalizer, the NodePool is gone.
    assert_eq!(server.object(WORKERS), None);
}

#[tokio::test]
async fn deletion_waits_while_the_token_may_be_valid() {
    let expires = Timestamp::now() + Duration::from_hours(1);
    let server = start(&json!({"tokenExpires": expires.to_string()}));
    assert_eq!(handle_on(&server).await.unwrap(), Action::requeue(SOON));
    assert_eq!(server.writes(), [format!("PATCH {WORKERS}/status")]);
    let conditions = server.object(WORKERS).unwrap()["status"]["conditions"].clone();
    assert_eq!(conditions[0]["reason"], "RevokingToken");
    // Without a ClusterSpec, no session could revoke the token.
    server.remove(&format!("{CLUSTER_SPECS}/demo"));
    assert_eq!(handle_on(&server).await.unwrap(), Action::await_change());
    assert_eq!(server.object(WORKERS), None);
}

#[tokio::test]
async fn refused_deletion_leaves_the_finalizer() {
    for code in [403, 409, 500] {
        let server = start(&json!({}));
        server.script(Method::DELETE, CONFIG_MAPS, Answer::Failure(code));
        assert!(handle_on(&server).await.is_err(), "{code}");
        let finalizers = server.object(WORKERS).unwrap()["metadata"]["finalizers"].clone();
        assert_eq!(finalizers, json!([keys::NODEPOOL_FINALIZER]), "{code}");
        assert_eq!(server.collection(CONFIG_MAPS).len(), 2, "{code}");
    }
}
