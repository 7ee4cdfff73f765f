//! Input of `keyplane render`: objects as YAML, in files or from standard input.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use keyplane_crds::{CertificatePolicy, ClusterSpec, NodePool};
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{RenderError, file_error};
use crate::args::read_text;

/// kubectl's default namespace for an object without one.
const DEFAULT_NAMESPACE: &str = "default";

/// The parsed objects, by kind.
#[derive(Default)]
pub(super) struct Inputs {
    pub(super) clusters: Vec<ClusterSpec>,
    pub(super) policies: Vec<CertificatePolicy>,
    pub(super) pools: Vec<NodePool>,
    pub(super) secrets: Vec<Secret>,
    pub(super) config_maps: Vec<ConfigMap>,
    pub(super) nodes: Vec<Node>,
}

/// Returns the namespace into which kubectl would apply the object.
pub(super) fn namespace_of(object: &impl ResourceExt) -> String {
    object.namespace().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())
}

/// Reads all files.
pub(super) fn read(filenames: &[PathBuf]) -> Result<Inputs, RenderError> {
    let mut inputs = Inputs::default();
    for filename in filenames {
        let file = filename.display().to_string();
        let text = read_text(filename).map_err(|source| file_error(filename, source))?;
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|error| RenderError::Document {
            file: file.clone(),
            number: 1,
            problem: error.to_string(),
        })?;
        for (number, document) in documents.into_iter().enumerate() {
            inputs.take(document).map_err(|problem| RenderError::Document {
                file: file.clone(),
                number: number + 1,
                problem,
            })?;
        }
    }
    Ok(inputs)
}

impl Inputs {
    /// Adds a document, or the items of a `List` from `kubectl get -o yaml`.
    fn take(&mut self, document: Value) -> Result<(), String> {
        let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        match kind.as_str() {
            _ if document.is_null() => {}
            "List" | "SecretList" | "NodeList" | "ConfigMapList" => {
                for item in document.get("items").and_then(Value::as_array).into_iter().flatten() {
                    self.take(item.clone())?;
                }
            }
            "ClusterSpec" => self.clusters.push(read_as(document)?),
            "CertificatePolicy" => self.policies.push(read_as(document)?),
            "NodePool" => self.pools.push(read_as(document)?),
            "Node" => self.nodes.push(read_as(document)?),
            "Secret" => self.secrets.push(read_as(document)?),
            "ConfigMap" => self.config_maps.push(read_as(document)?),
            other => {
                return Err(format!(
                    "kind {other:?} is not supported: use ClusterSpec, NodePool, CertificatePolicy, Secret, ConfigMap \
                     and Node"
                ));
            }
        }
        Ok(())
    }
}

fn read_as<T: DeserializeOwned>(document: Value) -> Result<T, String> {
    serde_json::from_value(document).map_err(|error| error.to_string())
}
