//! The kubeconfig of the cluster's owner as it is in the management cluster now: what a person or a tool has who looks
//! whenever a connection is made.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use serde_json::Value;

use super::connection::{Access, Pair};

/// How often the Secret is looked at.
const PAUSE: Duration = Duration::from_secs(1);

/// The kubeconfig of now, in memory and in a file for kubectl.
#[derive(Clone)]
pub struct OwnersKubeconfig {
    secrets: Api<Secret>,
    secret: String,
    file: PathBuf,
    access: Arc<RwLock<Access>>,
}

impl OwnersKubeconfig {
    /// Reads the Secret `<cluster>-kubeconfig` of the namespace `default`, and writes it to `file`.
    ///
    /// # Errors
    /// When there is none that can be used.
    pub async fn read(management: Client, cluster: &str, file: PathBuf) -> Result<Self> {
        let secrets = Api::namespaced(management, "default");
        let secret = format!("{cluster}-kubeconfig");
        let text = text_in(&secrets, &secret).await?;
        let access = Arc::new(RwLock::new(access_in(&text)?));
        write(&file, &text)?;
        Ok(Self { secrets, secret, file, access })
    }

    /// As the kubeconfig says now.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Follows the Secret for ever. What can't be read is tried again: the last one holds until then.
    pub async fn follow(self) {
        let mut last = String::new();
        loop {
            if let Ok(text) = text_in(&self.secrets, &self.secret).await
                && text != last
                && let Ok(access) = access_in(&text)
                && write(&self.file, &text).is_ok()
            {
                *self.access.write().unwrap_or_else(PoisonError::into_inner) = access;
                last = text;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn text_in(secrets: &Api<Secret>, name: &str) -> Result<String> {
    let secret = secrets.get(name).await.with_context(|| format!("cannot read the Secret {name}"))?;
    let value = secret.data.unwrap_or_default().remove("value");
    let value = value.with_context(|| format!("the Secret {name} has no key `value`"))?;
    String::from_utf8(value.0).with_context(|| format!("`value` of {name} is no text"))
}

/// kubectl may read at any time.
fn write(file: &Path, text: &str) -> Result<()> {
    let partial = file.with_extension("partial");
    fs::write(&partial, text).with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, file).with_context(|| format!("cannot write {}", file.display()))
}

/// What the first cluster and the first user of a kubeconfig say.
///
/// # Errors
/// When it has none, or none with embedded certificates.
pub fn access_in(kubeconfig: &str) -> Result<Access> {
    let config: Value = serde_saphyr::from_str(kubeconfig).context("a kubeconfig that can't be read")?;
    let cluster = &config["clusters"][0]["cluster"];
    let user = &config["users"][0]["user"];
    let text = |part: &Value, field: &str| -> Result<String> {
        Ok(part[field].as_str().with_context(|| format!("a kubeconfig without {field}"))?.to_owned())
    };
    let decoded = |part: &Value, field: &str| -> Result<Vec<u8>> {
        BASE64_STANDARD.decode(text(part, field)?).with_context(|| format!("{field} is not base64"))
    };
    let server = text(cluster, "server")?;
    Ok(Access {
        address: server.strip_prefix("https://").with_context(|| format!("{server} is no https URL"))?.to_owned(),
        authorities: decoded(cluster, "certificate-authority-data")?,
        pair: Some(Pair {
            certificate: decoded(user, "client-certificate-data")?,
            key: decoded(user, "client-key-data")?,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_says_where_to_go_whom_to_trust_and_as_whom_to_come() {
        let text = "clusters: [{name: a, cluster: {server: 'https://10.0.0.5:6443', certificate-authority-data: Y2E=}}]\n\
                    users: [{name: b, user: {client-certificate-data: Y3J0, client-key-data: a2V5}}]\n";
        let access = access_in(text).unwrap();
        let pair = access.pair.unwrap();
        assert_eq!((access.address.as_str(), access.authorities.as_slice()), ("10.0.0.5:6443", &b"ca"[..]));
        assert_eq!((pair.certificate.as_slice(), pair.key.as_slice()), (&b"crt"[..], &b"key"[..]));
        let error = access_in("clusters: []").err().unwrap().to_string();
        assert_eq!(error, "a kubeconfig without server");
    }
}
