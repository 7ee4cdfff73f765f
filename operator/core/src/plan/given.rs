//! What users give in Secrets of their own, and what belongs on the machines.

use keyplane_crds::reasons;
use serde_json::Value;

use super::node::PRIVATE;
use super::{encryption, external_etcd};
use crate::blocker::Blocker;
use crate::manifests::WEBHOOK_KUBECONFIG;
use crate::model::Cluster;
use crate::objects;
use crate::observed::Observed;
use crate::pki::SecretText;

/// The key of a kubeconfig in a Secret, as Cluster API has it.
const KUBECONFIG_KEY: &str = "value";

pub(super) const NOT_FOUND: &str = reasons::SECRET_NOT_FOUND;
pub(super) const UNUSABLE: &str = reasons::SECRET_UNUSABLE;

/// A secret file for every control-plane machine.
#[derive(Debug)]
pub struct GivenFile {
    /// Its key in the node's Secret.
    pub key: &'static str,
    /// Its path on the machine.
    pub path: String,
    /// Its mode.
    pub mode: u32,
    /// Its content.
    pub content: SecretText,
}

/// Takes the files from the Secrets that the ClusterSpec refers to. Without them an API server would not start, so
/// nothing is written for a machine while one is missing.
///
/// # Errors
/// The Secret that is missing or lacks something.
pub fn files(cluster: &Cluster, observed: &Observed) -> Result<Vec<GivenFile>, Blocker> {
    let mut files = external_etcd::files(cluster, observed)?;
    files.extend(encryption::file(cluster, observed)?);
    let webhook = cluster.spec.audit.as_ref().and_then(|audit| audit.webhook.as_ref());
    let Some(webhook) = webhook else { return Ok(files) };
    let content = SecretText(kubeconfig(observed, "spec.audit.webhook.secretRef", &webhook.secret_ref.name)?);
    files.push(GivenFile { key: "audit-webhook.conf", path: WEBHOOK_KUBECONFIG.to_owned(), mode: PRIVATE, content });
    Ok(files)
}

impl Blocker {
    /// Whether it ends when a user makes or mends a Secret.
    #[must_use]
    pub fn waits_for_a_secret(&self) -> bool {
        [NOT_FOUND, UNUSABLE].contains(&self.reason)
    }
}

fn kubeconfig(observed: &Observed, field: &str, name: &str) -> Result<String, Blocker> {
    let secret = observed.secrets.get(name).ok_or_else(|| Blocker {
        reason: NOT_FOUND,
        message: format!(
            "{field}: there is no Secret {name}: make it, with a kubeconfig under the key {KUBECONFIG_KEY}"
        ),
    })?;
    let unusable = |problem: &str| Blocker {
        reason: UNUSABLE,
        message: format!("{field}: Secret {name} {problem}: put the kubeconfig of the server under {KUBECONFIG_KEY}"),
    };
    let text = objects::text(secret, KUBECONFIG_KEY).ok_or_else(|| unusable("has no such text"))?;
    // What the parser says could quote what is secret.
    let config: Value = serde_saphyr::from_str(text).map_err(|_| unusable("holds no YAML"))?;
    let server = config.pointer("/clusters/0/cluster/server").and_then(Value::as_str).unwrap_or_default();
    if !server.starts_with("https://") && !server.starts_with("http://") {
        return Err(unusable("names no server with an URL"));
    }
    Ok(text.to_owned())
}
