//! Files from Secrets that the ClusterSpec references and that belong on the nodes.

use keyplane_crds::reasons;
use serde_json::Value;

use super::secret_file::{PRIVATE, UserProvidedFile};
use super::{encryption_keys, external_etcd};
use crate::blocker::Blocker;
use crate::manifests::WEBHOOK_KUBECONFIG;
use crate::model::Cluster;
use crate::objects;
use crate::observed::Observed;
use crate::pki::SecretText;

/// The key of a kubeconfig in a Secret, as in Cluster API.
const KUBECONFIG_KEY: &str = "value";

pub(crate) const NOT_FOUND: &str = reasons::SECRET_NOT_FOUND;
pub(crate) const UNUSABLE: &str = reasons::SECRET_UNUSABLE;

/// Returns the files from the Secrets that the ClusterSpec references. An API server would not start without them, so
/// Keyplane writes nothing for a node while one is missing.
///
/// # Errors
/// Returns a blocker that names the missing Secret or the missing key.
pub fn files(cluster: &Cluster, observed: &Observed) -> Result<Vec<UserProvidedFile>, Blocker> {
    let mut files = external_etcd::files(cluster, observed)?;
    files.extend(encryption_keys::file(cluster, observed)?);
    let webhook = cluster.spec.audit.as_ref().and_then(|audit| audit.webhook.as_ref());
    let Some(webhook) = webhook else { return Ok(files) };
    let content = SecretText(kubeconfig(observed, "spec.audit.webhook.secretRef", &webhook.secret_ref.name)?);
    files.push(UserProvidedFile {
        key: "audit-webhook.conf",
        path: WEBHOOK_KUBECONFIG.to_owned(),
        mode: PRIVATE,
        content,
    });
    Ok(files)
}

impl Blocker {
    /// Returns whether the user has to create or correct a Secret.
    #[must_use]
    pub fn requires_secret(&self) -> bool {
        [NOT_FOUND, UNUSABLE].contains(&self.reason)
    }
}

fn kubeconfig(observed: &Observed, field: &str, name: &str) -> Result<String, Blocker> {
    let secret = observed.secrets.get(name).ok_or_else(|| Blocker {
        reason: NOT_FOUND,
        message: format!(
            "{field}: Secret {name} does not exist: create it with a kubeconfig under the key {KUBECONFIG_KEY}"
        ),
    })?;
    let unusable = |problem: &str| Blocker {
        reason: UNUSABLE,
        message: format!(
            "{field}: Secret {name} {problem}: put the kubeconfig of the audit webhook under the key {KUBECONFIG_KEY}"
        ),
    };
    let text = objects::text(secret, KUBECONFIG_KEY).ok_or_else(|| unusable("lacks the key `value`"))?;
    // The parser's error could quote secret content.
    let config: Value = serde_saphyr::from_str(text).map_err(|_| unusable("is not valid YAML"))?;
    let server = config.pointer("/clusters/0/cluster/server").and_then(Value::as_str).unwrap_or_default();
    if !server.starts_with("https://") && !server.starts_with("http://") {
        return Err(unusable("has no server URL"));
    }
    Ok(text.to_owned())
}
