//! The option for structured authentication. Kubernetes 1.34 and later support `apiserver.config.k8s.io/v1`.

use serde_json::{Map, Value, json};

use super::{ApiServerOption, file, mount};
use crate::model::Cluster;
use crate::yaml;

const DIRECTORY: &str = "/etc/kubernetes/authentication";
const CONFIGURATION: &str = "/etc/kubernetes/authentication/config.yaml";

pub(super) fn option(cluster: &Cluster) -> Option<ApiServerOption> {
    let authentication = cluster.spec.authentication.as_ref()?;
    let anonymous = authentication.anonymous.as_ref().map(|anonymous| {
        let mut section = Map::from_iter([("enabled".to_owned(), anonymous.enabled.into())]);
        if !anonymous.conditions.is_empty() {
            section.insert("conditions".to_owned(), json!(anonymous.conditions));
        }
        Value::Object(section)
    });
    let mut configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": authentication.jwt,
    });
    if let Some(anonymous) = &anonymous {
        configuration["anonymous"] = anonymous.clone();
    }
    Some(ApiServerOption {
        files: vec![file("authentication-config.yaml", CONFIGURATION, yaml::write(&configuration))],
        arguments: vec![("authentication-config", CONFIGURATION.to_owned())],
        mounts: vec![mount("authentication-config", DIRECTORY, true)],
        // The API server reloads a changed file, but rejects a change of the section `anonymous`.
        read_at_start: anonymous.map(|anonymous| ("anonymous", anonymous.to_string())),
    })
}
