//! A fake API server in memory, for tests. A test can script the answer to a single request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use keyplane_client::events::Events;
use keyplane_crds::CertificatePolicy;
use kube::Client;
use kube::core::DeserializeGuard;
use kube::runtime::{reflector, watcher};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::sessions::Targets;
use super::{Context, agent_access, user_kubeconfigs};
use crate::metrics::Metrics;

/// The path of the ClusterSpecs.
pub const CLUSTER_SPECS: &str = "/apis/keyplane.io/v1alpha1/namespaces/default/clusterspecs";
/// The path of the Secrets.
pub const SECRETS: &str = "/api/v1/namespaces/default/secrets";
/// The path of the ConfigMaps.
pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The scripted answer to one request.
pub enum Answer {
    /// A failure with this status code.
    Failure(u16),
    /// The usual answer after this time.
    After(Duration),
    /// The usual answer. Before that, another client changes the objects.
    Meanwhile(Box<dyn FnOnce(&mut Objects) + Send>),
}

/// A received request.
#[derive(Debug, Clone)]
pub struct Received {
    pub method: Method,
    pub path: String,
    pub body: Value,
}

/// The stored objects, by path.
#[derive(Default)]
pub struct Objects {
    stored: BTreeMap<String, Value>,
    versions: u64,
}

impl Objects {
    /// Stores an object. A missing UID or resource version is set.
    pub fn insert(&mut self, path: &str, mut object: Value) -> Value {
        self.versions += 1;
        let metadata = &mut object["metadata"];
        for (key, prefix) in [("uid", "uid-"), ("resourceVersion", "100")] {
            if metadata[key].is_null() {
                metadata[key] = json!(format!("{prefix}{}", self.versions));
            }
        }
        self.stored.insert(path.to_owned(), object.clone());
        object
    }

    /// Removes an object.
    pub fn remove(&mut self, path: &str) {
        self.stored.remove(path);
    }

    /// Stores an object in a new resource version. A deleted object without finalizers is removed.
    fn update(&mut self, path: &str, mut object: Value) -> Value {
        object["metadata"]["resourceVersion"] = Value::Null;
        let object = self.insert(path, object);
        let metadata = &object["metadata"];
        if !metadata["deletionTimestamp"].is_null() && metadata["finalizers"].as_array().is_none_or(Vec::is_empty) {
            self.remove(path);
        }
        object
    }

    fn list(&self, collection: &str, query: &str) -> Value {
        let selector = query.split('&').find_map(|pair| pair.strip_prefix("labelSelector=")).unwrap_or_default();
        let selector = selector.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/");
        let is_selected = |object: &Value| {
            selector.split(',').filter(|term| !term.is_empty()).all(|term| match term.split_once('=') {
                Some((label, value)) => object["metadata"]["labels"][label] == *value,
                None => !object["metadata"]["labels"][term].is_null(),
            })
        };
        let in_collection = self.stored.iter().filter(|(path, _)| path.starts_with(&format!("{collection}/")));
        let items: Vec<_> = in_collection.map(|(_, object)| object).filter(|object| is_selected(object)).collect();
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items})
    }

    /// Answers like an API server.
    fn answer(&mut self, request: &Received, query: &str, is_apply: bool) -> (u16, Value) {
        let (collection, name, subresource) = parts(&request.path);
        let path = format!("{collection}/{}", name.as_deref().unwrap_or_default());
        let (body, stored) = (&request.body, self.stored.get(&path).cloned());
        match (&request.method, name, stored) {
            (&Method::GET, None, _) => (200, self.list(&collection, query)),
            (&Method::POST, None, _) => {
                let path = format!("{collection}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
                if self.stored.contains_key(&path) { failure(409) } else { (201, self.insert(&path, body.clone())) }
            }
            (&Method::GET, Some(_), Some(stored)) => (200, stored),
            (&Method::PUT, Some(_), Some(stored)) => {
                if is_outdated(&stored, &body["metadata"]) {
                    return failure(409);
                }
                let mut object = body.clone();
                object["metadata"]["uid"] = stored["metadata"]["uid"].clone();
                (200, self.update(&path, object))
            }
            (&Method::PATCH, Some(_), Some(mut stored)) => {
                if is_outdated(&stored, &body["metadata"]) {
                    return failure(409);
                }
                if is_apply && subresource.as_deref() == Some("status") {
                    stored["status"] = body["status"].clone();
                } else {
                    merge(&mut stored, body);
                }
                (200, self.update(&path, stored))
            }
            (&Method::DELETE, Some(_), Some(stored)) => {
                if is_outdated(&stored, &body["preconditions"]) {
                    return failure(409);
                }
                self.remove(&path);
                (200, json!({"apiVersion": "v1", "kind": "Status", "status": "Success"}))
            }
            _ => failure(404),
        }
    }
}

/// Returns whether the UID or the resource version of an object differs from the expected one.
fn is_outdated(stored: &Value, expected: &Value) -> bool {
    ["uid", "resourceVersion"].iter().any(|key| !expected[key].is_null() && expected[key] != stored["metadata"][key])
}

/// Splits a path into the path of the collection, the name and the subresource.
fn parts(path: &str) -> (String, Option<String>, Option<String>) {
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let group = if parts[0] == "api" { 2 } else { 3 };
    let is_namespaced = parts.get(group) == Some(&"namespaces") && parts.len() > group + 2;
    let plural = if is_namespaced { group + 2 } else { group };
    let part = |index: usize| parts.get(index).map(|part| (*part).to_owned());
    (format!("/{}", parts[..parts.len().min(plural + 1)].join("/")), part(plural + 1), part(plural + 2))
}

/// Merges a JSON merge patch (RFC 7386).
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut into[key], value);
        }
    }
}

fn failure(code: u16) -> (u16, Value) {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Gone",
        _ => "InternalError",
    };
    let status = json!({
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": format!("answer {code}"),
    });
    (code, status)
}

#[derive(Default)]
struct State {
    objects: Objects,
    requests: Vec<Received>,
    script: Vec<(Method, String, Answer)>,
}

/// The fake API server.
#[derive(Clone, Default)]
pub struct Server(Arc<Mutex<State>>);

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usual_answer(&self, request: &Received, query: &str, is_apply: bool) -> (u16, Value) {
        self.state().objects.answer(request, query, is_apply)
    }

    /// Scripts the answer to the next request with this method whose path contains this text.
    pub fn script(&self, method: Method, path: &str, answer: Answer) {
        self.state().script.push((method, path.to_owned(), answer));
    }

    /// Stores an object.
    pub fn insert(&self, path: &str, object: Value) -> Value {
        self.state().objects.insert(path, object)
    }

    /// Removes an object.
    pub fn remove(&self, path: &str) {
        self.state().objects.remove(path);
    }

    /// Returns a stored object.
    pub fn object(&self, path: &str) -> Option<Value> {
        self.state().objects.stored.get(path).cloned()
    }

    /// Returns the stored objects of a collection, by path.
    pub fn collection(&self, collection: &str) -> BTreeMap<String, Value> {
        let prefix = format!("{collection}/");
        let mut stored = self.state().objects.stored.clone();
        stored.retain(|path, _| path.starts_with(&prefix));
        stored
    }

    /// Returns the received requests.
    pub fn requests(&self) -> Vec<Received> {
        self.state().requests.clone()
    }

    /// Forgets the received requests.
    pub fn forget_requests(&self) {
        self.state().requests.clear();
    }

    /// Returns the method and path of each received write, without Events.
    pub fn writes(&self) -> Vec<String> {
        let requests = self.requests();
        let writes = requests.iter().filter(|request| request.method != Method::GET && !is_event(&request.path));
        writes.map(|request| format!("{} {}", request.method, request.path)).collect()
    }

    /// Returns a condition of the ClusterSpec `demo`; null if the condition does not exist.
    pub fn condition(&self, type_: &str) -> Value {
        let found = self.object(&format!("{CLUSTER_SPECS}/demo")).unwrap();
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == *type_).unwrap_or_default()
    }

    /// Returns a client of this server. No request leaves the process.
    pub fn client(&self) -> Client {
        let server = self.clone();
        let router = Router::new().fallback(move |request: Request| answer(server.clone(), request));
        Client::new(router, "default")
    }

    /// Returns the dependencies of a controller. The only cached object is the CertificatePolicy `fast`.
    pub fn context(&self) -> Context {
        // An already installed backend is no error.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = self.client();
        let (events, metrics) = (Events::new(client.clone(), "test"), Metrics::new().unwrap());
        let (trigger, pool_trigger) = (mpsc::unbounded_channel().0, mpsc::unbounded_channel().0);
        let targets = Targets::new(client.clone(), trigger, pool_trigger, events.clone(), metrics.clone());
        let targets = Arc::new(targets);
        // Nothing polls the watches, so the caches stay empty.
        let issued_kubeconfigs = user_kubeconfigs::watch(client.clone()).1;
        let agents = agent_access::watch(client.clone(), Arc::clone(&targets)).1;
        let node_pools = reflector::store().0;
        let (certificate_policies, mut policies) = reflector::store();
        let policy: CertificatePolicy = serde_json::from_value(json!({
            "apiVersion": "keyplane.io/v1alpha1",
            "kind": "CertificatePolicy",
            "metadata": {"name": "fast", "namespace": "default"},
            "spec": {"authority": {"keyAlgorithm": "ECDSA-P256"}, "leaf": {"keyAlgorithm": "ECDSA-P256"}},
        }))
        .unwrap();
        policies.apply_watcher_event(&watcher::Event::Apply(DeserializeGuard(Ok(policy))));
        Context { client, events, metrics, targets, node_pools, certificate_policies, issued_kubeconfigs, agents }
    }
}

fn is_event(path: &str) -> bool {
    parts(path).0.ends_with("/events")
}

async fn answer(server: Server, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let query = head.uri.query().unwrap_or_default();
    let is_apply =
        head.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply"));
    let received = Received { method: head.method, path: head.uri.path().to_owned(), body };
    if query.contains("watch=") {
        // A watch without events.
        std::future::pending::<()>().await;
    }
    let scripted = {
        let mut state = server.state();
        state.requests.push(received.clone());
        let applies = |(method, path, _): &(Method, String, Answer)| {
            *method == received.method && received.path.contains(path) && !is_event(&received.path)
        };
        state.script.iter().position(applies).map(|index| state.script.remove(index).2)
    };
    let (status, answer) = match scripted {
        Some(Answer::Failure(code)) => failure(code),
        Some(Answer::After(time)) => {
            tokio::time::sleep(time).await;
            server.usual_answer(&received, query, is_apply)
        }
        Some(Answer::Meanwhile(change)) => {
            change(&mut server.state().objects);
            server.usual_answer(&received, query, is_apply)
        }
        None => server.usual_answer(&received, query, is_apply),
    };
    let mut response = Response::new(Body::from(answer.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// Returns the ClusterSpec `demo` of a small cluster, with the changes of a JSON merge patch.
pub fn cluster_spec(changes: &Value) -> Value {
    let mut cluster = json!({
        "apiVersion": "keyplane.io/v1alpha1",
        "kind": "ClusterSpec",
        "metadata": {"name": "demo", "namespace": "default", "generation": 1},
        "spec": {
            "kubernetesVersion": "v1.37.2",
            "controlPlaneEndpoint": {"host": "api.demo.example"},
            "controlPlane": {"nodes": [{"name": "cp1", "addresses": ["10.0.0.11"]}]},
            "network": {"podCIDRs": ["10.244.0.0/16"]},
            "certificatePolicyRef": {"name": "fast"},
        },
    });
    merge(&mut cluster, changes);
    cluster
}

/// Returns a Secret with these labels.
pub fn secret(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "data": {"tls.key": "a2V5"},
    })
}
