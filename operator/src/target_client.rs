//! Clients of a target cluster's API.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::KeyAlgorithm;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use keyplane_core::kubeconfig::{self, Credential};
use keyplane_core::model::Endpoint;
use keyplane_core::pki::{CertificateAuthority, CertificateTemplate, ExtendedUsage, PkiError, Subject, valid_for};
use keyplane_issuance::x509::{generate, issue};

/// Validity of Keyplane's own client certificate. Each process issues a new one and never stores it, so the validity
/// can be short. With one day, the certificate survives an outage of the management cluster.
pub const CLIENT_VALIDITY: Duration = Duration::from_hours(24);

/// Time for a connection. A node that is down does not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The client can't be configured.
#[derive(Debug, thiserror::Error)]
#[error("the client could not be configured: {0}")]
pub struct TargetClientError(String);

/// Issues a certificate and generates a key for Keyplane's own client. The function is CPU-bound: call it on a blocking
/// thread.
///
/// # Errors
/// The key can't be generated, or the certificate can't be issued.
pub fn issue_client(subject: Subject, ca: &CertificateAuthority, now: Timestamp) -> Result<(String, String), PkiError> {
    // ECDSA regardless of the policy: the key is only in memory, and an ECDSA key is generated quickly.
    let key = generate(KeyAlgorithm::EcdsaP256)?;
    let (not_before, not_after) = valid_for(now, CLIENT_VALIDITY);
    let template = CertificateTemplate {
        subject,
        alternative_names: vec![],
        extended_usages: vec![ExtendedUsage::ClientAuth],
        not_before,
        not_after,
    };
    Ok((issue(&template, &key, ca)?, key.pem().to_owned()))
}

/// Creates a client with a certificate, through a proxy if one is configured.
///
/// # Errors
/// The client can't be configured.
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
        // The configured proxy overrides NO_PROXY.
        config.proxy_url = Some(proxy_url.parse().map_err(|source: http::uri::InvalidUri| error(&source))?);
    }
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // A failed request leads to a new reconciliation with fresh state, instead of blind retries for minutes.
    config.default_retry = false;
    Client::try_from(config).map_err(|source| error(&source))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use keyplane_core::model::Host;
    use keyplane_issuance::x509::generate_ca;

    /// Returns the first bytes that a proxy receives, and the bytes that follow its `answer`.
    async fn received_by_proxy(scheme: &str, host: Host, answer: &'static [u8]) -> (Vec<u8>, Vec<u8>) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let now = Timestamp::now();
        let (not_before, not_after) = valid_for(now, CLIENT_VALIDITY);
        let ca = generate_ca("kubernetes", KeyAlgorithm::EcdsaP256, not_before, not_after).unwrap();
        let (certificate, key) = issue_client(Subject::user("a"), &ca, now).unwrap();
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://{}", proxy.local_addr().unwrap());
        let server = Endpoint { host, port: 6443 };
        let client = connect(Some(&url), &server, ca.certificate_pem(), &certificate, &key).await.unwrap();
        let listening = tokio::task::spawn_blocking(move || {
            let (mut stream, _) = proxy.accept().unwrap();
            let receive = |stream: &mut std::net::TcpStream| {
                let mut buffer = vec![0; 1024];
                let length = stream.read(&mut buffer).unwrap();
                buffer[..length].to_vec()
            };
            let first = receive(&mut stream);
            stream.write_all(answer).unwrap();
            (first, receive(&mut stream))
        });
        // The proxy closes the connection afterwards.
        assert!(client.apiserver_version().await.is_err());
        listening.await.unwrap()
    }

    #[tokio::test]
    async fn http_proxy_receives_connect_with_the_host_name() {
        let name = Host::Name("api.inside.example".to_owned());
        let (first, second) = received_by_proxy("http", name, b"HTTP/1.1 200 OK\r\n\r\n").await;
        let first = String::from_utf8(first).unwrap();
        assert!(first.starts_with("CONNECT api.inside.example:6443 HTTP/1.1\r\n"), "{first}");
        assert_eq!(second[0], 0x16, "no TLS handshake follows: {second:?}");
        let (first, _) =
            received_by_proxy("http", Host::Address("fd00::1".parse().unwrap()), b"HTTP/1.1 200 OK\r\n\r\n").await;
        assert!(first.starts_with(b"CONNECT [fd00::1]:6443 HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&first));
    }

    #[tokio::test]
    async fn socks_proxy_resolves_the_host_name() {
        let name = Host::Name("api.inside.example".to_owned());
        let (first, second) = received_by_proxy("socks5", name, &[5, 0]).await;
        assert_eq!((first[0], first[2]), (5, 0), "{first:?}");
        // RFC 1928: version, CONNECT, reserved, a domain name of 18 characters.
        let expected = [&[5, 1, 0, 3, 18][..], b"api.inside.example", &6443_u16.to_be_bytes()].concat();
        assert_eq!(second, expected);
        let (_, second) = received_by_proxy("socks5", Host::Address("fd00::1".parse().unwrap()), &[5, 0]).await;
        assert_eq!(second[..5], [5, 1, 0, 4, 0xfd], "{second:?}");
    }
}
