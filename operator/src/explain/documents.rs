//! Parses the YAML documents of `keyplane csr explain`.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use keyplane_crds::{CertificatePolicy, ClusterSpec, NodePool};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ExplainError;
use keyplane_core::approval::SigningRequest;

/// The parsed objects, by kind.
#[derive(Default)]
pub(super) struct Documents {
    requests: Vec<CertificateSigningRequest>,
    pub(super) nodes: Vec<Node>,
    pub(super) pools: Vec<NodePool>,
    pub(super) clusters: Vec<ClusterSpec>,
    pub(super) policies: Vec<CertificatePolicy>,
}

impl Documents {
    /// Adds the documents of a file.
    pub(super) fn read(&mut self, file: &str, text: &str) -> Result<(), ExplainError> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)
            .map_err(|error| ExplainError::Yaml { file: file.to_owned(), problem: error.to_string() })?;
        for (index, document) in documents.into_iter().enumerate() {
            self.take(document).map_err(|problem| ExplainError::Document {
                file: file.to_owned(),
                number: index + 1,
                problem,
            })?;
        }
        Ok(())
    }

    /// Returns the only request.
    pub(super) fn request(&self) -> Result<SigningRequest, ExplainError> {
        match self.requests.as_slice() {
            [request] => Ok(SigningRequest::from(request)),
            requests => Err(ExplainError::Requests(requests.len())),
        }
    }

    /// Adds a document, or the items of a list from `kubectl get -o yaml`.
    fn take(&mut self, document: Value) -> Result<(), String> {
        if document.is_null() {
            return Ok(());
        }
        let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Some(items) = document.get("items").and_then(Value::as_array)
            && kind.ends_with("List")
        {
            return items.iter().try_for_each(|item| self.take(item.clone()));
        }
        match kind.as_str() {
            "CertificateSigningRequest" => {
                required(&document, &["spec", "request"])?;
                required(&document, &["spec", "signerName"])?;
                self.requests.push(read(document)?);
            }
            "Node" => self.nodes.push(read(document)?),
            "NodePool" => self.pools.push(read(document)?),
            "ClusterSpec" => self.clusters.push(read(document)?),
            "CertificatePolicy" => self.policies.push(read(document)?),
            "" => return Err("kind is missing".to_owned()),
            other => {
                return Err(format!(
                    "kind {other:?} is not supported: use CertificateSigningRequest, Node, NodePool, ClusterSpec and \
                     CertificatePolicy"
                ));
            }
        }
        Ok(())
    }
}

/// Checks a required field, because Kubernetes' own types deserialize a missing field as an empty one.
fn required(document: &Value, path: &[&str]) -> Result<(), String> {
    let found = path.iter().try_fold(document, |value, field| value.get(field));
    match found.and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Ok(()),
        _ => Err(format!("{} is missing or is not a string", path.join("."))),
    }
}

fn read<T: DeserializeOwned>(document: Value) -> Result<T, String> {
    let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    serde_path_to_error::deserialize(document).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { format!("{path}: ") };
        let object = format!("{kind} {name}");
        format!("{}: {path}{}", object.trim_end(), error.into_inner())
    })
}
