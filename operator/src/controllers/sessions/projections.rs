//! Projections of watched Nodes and CSRs: only the fields that verdicts depend on. A Node has about 10 kB. With
//! thousands of Nodes, most of the work would be to parse unused fields.

use std::borrow::Cow;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::core::ClusterResourceScope;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use keyplane_core::approval::{NodeFacts, SigningRequest};

/// A watched CSR.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "RequestWire")]
pub(in crate::controllers) struct WatchedRequest {
    metadata: ObjectMeta,
    /// The CSR, or the parse error: one invalid CSR must not block the evaluation of others.
    pub(super) request: Result<SigningRequest, String>,
}

/// A watched Node.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "NodeWire")]
pub(in crate::controllers) struct WatchedNode {
    metadata: ObjectMeta,
    facts: NodeFacts,
}

impl From<&WatchedNode> for NodeFacts {
    fn from(node: &WatchedNode) -> Self {
        node.facts.clone()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetadataWire {
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RequestWire {
    metadata: MetadataWire,
    spec: Box<RawValue>,
    status: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecWire {
    signer_name: String,
    username: Option<String>,
    groups: Option<Vec<String>>,
    usages: Option<Vec<String>>,
    request: ByteString,
    expiration_seconds: Option<i32>,
}

#[derive(Default, Deserialize)]
struct StatusWire<'a> {
    #[serde(borrow)]
    certificate: Option<Cow<'a, str>>,
    conditions: Option<Vec<ConditionWire>>,
}

#[derive(Deserialize)]
struct ConditionWire {
    #[serde(rename = "type")]
    type_: String,
}

#[derive(Deserialize)]
struct NodeWire {
    metadata: MetadataWire,
    status: Option<NodeStatusWire>,
}

#[derive(Deserialize)]
struct NodeStatusWire {
    addresses: Option<Vec<AddressWire>>,
}

#[derive(Deserialize)]
struct AddressWire {
    #[serde(rename = "type")]
    type_: String,
    address: String,
}

impl MetadataWire {
    /// Returns the metadata that a watcher needs.
    fn kept(&self) -> ObjectMeta {
        ObjectMeta { name: self.name.clone(), resource_version: self.resource_version.clone(), ..ObjectMeta::default() }
    }
}

impl From<RequestWire> for WatchedRequest {
    fn from(wire: RequestWire) -> Self {
        let metadata = wire.metadata.kept();
        Self { metadata, request: read(wire).map_err(|error| error.to_string()) }
    }
}

fn read(wire: RequestWire) -> Result<SigningRequest, serde_json::Error> {
    let spec: SpecWire = serde_json::from_str(wire.spec.get())?;
    let status: Option<StatusWire> =
        wire.status.as_ref().map(|status| serde_json::from_str(status.get())).transpose()?;
    let status = status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let MetadataWire { name, uid, resource_version, creation_timestamp, deletion_timestamp } = wire.metadata;
    // Thousands of CSRs may be in the queue, so unused capacity is released.
    let fitting = |items: Option<Vec<String>>| items.unwrap_or_default().into_boxed_slice().into_vec();
    Ok(SigningRequest {
        name: name.unwrap_or_default(),
        uid: uid.unwrap_or_default(),
        resource_version: resource_version.unwrap_or_default(),
        signer_name: spec.signer_name,
        username: spec.username.unwrap_or_default(),
        groups: fitting(spec.groups),
        usages: fitting(spec.usages),
        request: spec.request.0,
        expiration_seconds: spec.expiration_seconds,
        created: creation_timestamp.map(|time| time.0),
        settled: deletion_timestamp.is_some()
            || !conditions.is_empty()
            || status.certificate.is_some_and(|certificate| !certificate.is_empty()),
        approved: conditions.iter().any(|condition| condition.type_ == "Approved"),
    })
}

impl From<NodeWire> for WatchedNode {
    fn from(wire: NodeWire) -> Self {
        let reported = wire.status.and_then(|status| status.addresses).unwrap_or_default();
        let reported = reported.iter().map(|reported| (reported.type_.as_str(), reported.address.as_str()));
        let created = wire.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let facts = NodeFacts::reported(wire.metadata.name.as_deref().unwrap_or_default(), created, reported);
        Self { metadata: wire.metadata.kept(), facts }
    }
}

/// Implements `Resource` with the API path of the whole object.
macro_rules! resource {
    ($watched:ty, $whole:ty) => {
        impl Resource for $watched {
            type DynamicType = ();
            type Scope = ClusterResourceScope;

            fn kind((): &()) -> Cow<'_, str> {
                <$whole as Resource>::kind(&())
            }

            fn group((): &()) -> Cow<'_, str> {
                <$whole as Resource>::group(&())
            }

            fn version((): &()) -> Cow<'_, str> {
                <$whole as Resource>::version(&())
            }

            fn plural((): &()) -> Cow<'_, str> {
                <$whole as Resource>::plural(&())
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(WatchedRequest, CertificateSigningRequest);
resource!(WatchedNode, Node);

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use serde_json::{Value, json};

    use super::*;

    fn request(spec: &Value, status: &Value) -> Value {
        let metadata = json!({
            "name": "csr-1", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-11-23T12:00:00Z",
            "managedFields": [{"manager": "kubelet"}],
        });
        json!({"kind": "CertificateSigningRequest", "metadata": metadata, "spec": spec, "status": status})
    }

    fn spec() -> Value {
        json!({
            "signerName": "kubernetes.io/kubelet-serving", "username": "system:node:a", "groups": ["system:nodes"],
            "usages": ["server auth"], "request": "UEVN", "expirationSeconds": 600, "extra": {"x": ["y"]},
        })
    }

    #[test]
    fn projected_csr_equals_the_whole_object() {
        let deleted = {
            let mut deleted = request(&spec(), &json!({}));
            deleted["metadata"]["deletionTimestamp"] = json!("2026-11-23T12:00:00Z");
            deleted
        };
        let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        let failed = json!({"conditions": [{"type": "Failed", "status": "True", "message": "\"x\""}]});
        let signed = json!({"certificate": "Y2VydA=="});
        let mut bare = spec();
        for field in ["username", "groups", "usages", "expirationSeconds"] {
            bare.as_object_mut().unwrap().remove(field);
        }
        let objects = [
            deleted,
            request(&spec(), &approved),
            request(&spec(), &failed),
            request(&spec(), &signed),
            request(&spec(), &json!({"certificate": "", "conditions": []})),
            request(&bare, &Value::Null),
        ];
        for object in objects {
            let text = object.to_string();
            let watched: WatchedRequest = serde_json::from_str(&text).unwrap();
            let whole: CertificateSigningRequest = serde_json::from_str(&text).unwrap();
            assert_eq!(watched.request.as_ref(), Ok(&SigningRequest::from(&whole)), "{text}");
            assert_eq!((watched.name_any().as_str(), watched.resource_version().as_deref()), ("csr-1", Some("7")));
        }
    }

    #[test]
    fn invalid_csr_still_has_its_name() {
        for spec in
            [json!({"signerName": 7}), json!({}), json!(7), json!({"signerName": "s", "request": "not base64!"})]
        {
            let watched: WatchedRequest = serde_json::from_str(&request(&spec, &json!({})).to_string()).unwrap();
            assert_eq!(watched.name_any(), "csr-1");
            assert!(watched.request.is_err(), "{spec}");
        }
        let odd_status = request(&spec(), &json!({"conditions": 7}));
        let watched: WatchedRequest = serde_json::from_str(&odd_status.to_string()).unwrap();
        assert!(watched.request.is_err());
    }

    #[test]
    fn projected_node_equals_the_whole_object() {
        let addresses = json!([
            {"type": "InternalIP", "address": "10.0.0.21"}, {"type": "Hostname", "address": "a"},
            {"type": "ExternalDNS", "address": "a.example.com"}, {"type": "Other", "address": "10.0.0.22"},
        ]);
        for status in [json!({"addresses": addresses, "images": []}), json!({"addresses": null}), Value::Null] {
            let metadata = json!({"name": "a", "creationTimestamp": "2026-11-23T12:00:00Z", "labels": {"x": "y"}});
            let text = json!({"metadata": metadata, "status": status}).to_string();
            let watched: WatchedNode = serde_json::from_str(&text).unwrap();
            let whole: Node = serde_json::from_str(&text).unwrap();
            assert_eq!(NodeFacts::from(&watched), NodeFacts::from(&whole), "{text}");
        }
    }
}
