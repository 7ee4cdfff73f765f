//! Probes one server over TLS: reads its certificates, and checks whether it accepts a client certificate.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::serving_certificates::AnyCertificate;
use keyplane_core::pki::CertificateFacts;

/// Time for one probe. A server that is down does not answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A client's certificate and key, as PEM.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Result of a probe.
#[derive(Debug, Default)]
pub(super) struct ProbeResult {
    /// The presented certificates, the server's own first.
    pub(super) presents: Vec<CertificateFacts>,
    /// Whether the server accepts the client certificate; `None` if unknown.
    pub(super) accepts: Option<bool>,
}

/// The HTTP request: a path, and optionally a user header, which an API server accepts only from a front proxy.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProbeRequest {
    pub(super) path: &'static str,
    pub(super) remote_user: Option<&'static str>,
}

/// Probes the server; returns `None` without a connection.
pub(super) async fn probe(address: SocketAddr, identity: &Identity, request: ProbeRequest) -> Option<ProbeResult> {
    timeout(PROBE_TIMEOUT, connect_and_probe(address, identity, request)).await.ok()?
}

async fn connect_and_probe(address: SocketAddr, identity: &Identity, request: ProbeRequest) -> Option<ProbeResult> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyCertificate::new(&provider));
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect::<Result<Vec<_>, _>>().ok()?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).ok()?;
    let config = config.dangerous().with_custom_certificate_verifier(verifier);
    let config = config.with_client_auth_cert(chain, key).ok()?;
    let stream = TcpStream::connect(address).await.ok()?;
    let name = ServerName::from(address.ip());
    let mut stream = match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Ok(stream) => stream,
        Err(error) => {
            return is_rejection(&error).then(|| ProbeResult { accepts: Some(false), ..ProbeResult::default() });
        }
    };
    let presents = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let presents = presents.iter().filter_map(|certificate| CertificateFacts::from_der(certificate)).collect();
    // With TLS 1.3 a server verifies the client certificate after the handshake, so only its response shows the result.
    let accepts = match status(&mut stream, address, request).await {
        Ok(Some(401)) => Some(false),
        Ok(Some(200..=299 | 403 | 404)) => Some(true),
        Ok(_) => None,
        Err(error) => is_rejection(&error).then_some(false),
    };
    Some(ProbeResult { presents, accepts })
}

/// Sends the request, and reads the status code.
async fn status(
    stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
    address: SocketAddr,
    request: ProbeRequest,
) -> io::Result<Option<u16>> {
    let user = request.remote_user.map(|user| format!("X-Remote-User: {user}\r\n")).unwrap_or_default();
    let request = format!("GET {} HTTP/1.1\r\nHost: {address}\r\n{user}Connection: close\r\n\r\n", request.path);
    stream.write_all(request.as_bytes()).await?;
    // `HTTP/1.1 200`.
    let mut head = [0_u8; 12];
    stream.read_exact(&mut head).await?;
    Ok(std::str::from_utf8(&head).ok().and_then(|head| head.strip_prefix("HTTP/1.1 ")?.parse().ok()))
}

/// Returns whether the server rejected the certificate with a TLS alert, and did not just fail.
fn is_rejection(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::AlertReceived(_)))
}
