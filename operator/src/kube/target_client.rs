//! Clients of a target cluster's API.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::KeyAlgorithm;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::cluster::Endpoint;
use crate::kubeconfig::{self, Credential};
use crate::pki::{Authority, CertificateOrder, ExtendedUsage, PkiError, PrivateKey, Subject, issue, valid_for};

/// How long Keyplane's own certificate is valid. It is made anew by each process and never stored, so it can be short;
/// a day survives an outage of the management cluster.
pub const CLIENT_VALIDITY: Duration = Duration::from_hours(24);

/// How long a connection may take. A machine that is down answers nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The client's parts make no configuration.
#[derive(Debug, thiserror::Error)]
#[error("the client could not be configured: {0}")]
pub struct TargetClientError(String);

/// A certificate and key for Keyplane's own client. Work for a thread of its own.
///
/// # Errors
/// If the certificate can't be made.
pub fn issue_client(subject: Subject, authority: &Authority, now: Timestamp) -> Result<(String, String), PkiError> {
    // ECDSA whatever the policy says: the key lives in memory only, and is made in no time.
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
    let (not_before, not_after) = valid_for(now, CLIENT_VALIDITY);
    let order = CertificateOrder {
        subject,
        alternative_names: vec![],
        extended_usages: vec![ExtendedUsage::ClientAuth],
        not_before,
        not_after,
    };
    Ok((issue(&order, &key, authority)?, key.pem().to_owned()))
}

/// A client with a certificate, through a proxy where there is one.
///
/// # Errors
/// If the parts make no configuration.
pub async fn connect(
    proxy_url: Option<&str>,
    server: &Endpoint,
    trust: &str,
    certificate: &str,
    key: &str,
) -> Result<Client, TargetClientError> {
    let text = kubeconfig::write(server, trust, "keyplane", Credential::Embedded { certificate, key });
    let error = |error: &dyn std::fmt::Display| TargetClientError(error.to_string());
    let kubeconfig = Kubeconfig::from_yaml(&text).map_err(|source| error(&source))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|source| error(&source))?;
    if let Some(proxy_url) = proxy_url {
        // The one that is asked for, whatever NO_PROXY says.
        config.proxy_url = Some(proxy_url.parse().map_err(|source: http::uri::InvalidUri| error(&source))?);
    }
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // A request that fails is judged again from what is then there, not repeated blindly for minutes.
    config.default_retry = false;
    Client::try_from(config).map_err(|source| error(&source))
}
