//! Clients of a target cluster's API.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::KeyAlgorithm;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use keyplane_core::kubeconfig;
use keyplane_core::kubeconfig::Credential;
use keyplane_core::model::Endpoint;
use keyplane_core::pki::{Authority, CertificateOrder, ExtendedUsage, PkiError, PrivateKey, Subject, valid_for};
use keyplane_issuance::x509::generate;
use keyplane_issuance::x509::issue;

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
    let key = generate(KeyAlgorithm::EcdsaP256)?;
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use keyplane_core::model::Host;
    use keyplane_issuance::x509::mint_authority;

    /// What a proxy hears first, and after it has said `answer`.
    async fn heard(scheme: &str, host: Host, answer: &'static [u8]) -> (Vec<u8>, Vec<u8>) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let now = Timestamp::now();
        let (not_before, not_after) = valid_for(now, CLIENT_VALIDITY);
        let authority = mint_authority("kubernetes", KeyAlgorithm::EcdsaP256, not_before, not_after).unwrap();
        let (certificate, key) = issue_client(Subject::user("a"), &authority, now).unwrap();
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://{}", proxy.local_addr().unwrap());
        let server = Endpoint { host, port: 6443 };
        let client = connect(Some(&url), &server, authority.certificate_pem(), &certificate, &key).await.unwrap();
        let listening = tokio::task::spawn_blocking(move || {
            let (mut stream, _) = proxy.accept().unwrap();
            let hear = |stream: &mut std::net::TcpStream| {
                let mut buffer = vec![0; 1024];
                let length = stream.read(&mut buffer).unwrap();
                buffer[..length].to_vec()
            };
            let first = hear(&mut stream);
            stream.write_all(answer).unwrap();
            (first, hear(&mut stream))
        });
        // The proxy goes away then.
        assert!(client.apiserver_version().await.is_err());
        listening.await.unwrap()
    }

    #[tokio::test]
    async fn a_proxy_of_http_is_asked_for_a_tunnel_to_the_name() {
        let name = Host::Name("api.inside.example".to_owned());
        let (first, second) = heard("http", name, b"HTTP/1.1 200 OK\r\n\r\n").await;
        let first = String::from_utf8(first).unwrap();
        assert!(first.starts_with("CONNECT api.inside.example:6443 HTTP/1.1\r\n"), "{first}");
        assert_eq!(second[0], 0x16, "no TLS handshake follows: {second:?}");
        let (first, _) = heard("http", Host::Address("fd00::1".parse().unwrap()), b"HTTP/1.1 200 OK\r\n\r\n").await;
        assert!(first.starts_with(b"CONNECT [fd00::1]:6443 HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&first));
    }

    #[tokio::test]
    async fn a_socks_proxy_resolves_the_name() {
        let name = Host::Name("api.inside.example".to_owned());
        let (first, second) = heard("socks5", name, &[5, 0]).await;
        assert_eq!((first[0], first[2]), (5, 0), "{first:?}");
        // RFC 1928: version, CONNECT, reserved, a domain name of 18 characters.
        let expected = [&[5, 1, 0, 3, 18][..], b"api.inside.example", &6443_u16.to_be_bytes()].concat();
        assert_eq!(second, expected);
        let (_, second) = heard("socks5", Host::Address("fd00::1".parse().unwrap()), &[5, 0]).await;
        assert_eq!(second[..5], [5, 1, 0, 4, 0xfd], "{second:?}");
    }
}
