//! Asks one server one question over TLS: which certificates it presents, and whether it takes those of its client.

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

use super::serving::Anyone;
use keyplane_core::pki::CertificateFacts;

/// How long a server has to answer. One that is down says nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client's certificate and key, as PEM.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// What a server said.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The certificates that it presents, its own first.
    pub(super) presents: Vec<CertificateFacts>,
    /// Whether it takes the client's certificate. Nothing where it said neither.
    pub(super) accepts: Option<bool>,
}

/// The question: a path, and a header that an API server believes only those whom it lets speak for others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub(super) path: &'static str,
    pub(super) remote_user: Option<&'static str>,
}

/// Asks; nothing if there is no connection.
pub(super) async fn ask(address: SocketAddr, identity: &Identity, question: Question) -> Option<Answer> {
    timeout(PATIENCE, asked(address, identity, question)).await.ok()?
}

async fn asked(address: SocketAddr, identity: &Identity, question: Question) -> Option<Answer> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Anyone::new(&provider));
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect::<Result<Vec<_>, _>>().ok()?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).ok()?;
    let config = config.dangerous().with_custom_certificate_verifier(verifier);
    let config = config.with_client_auth_cert(chain, key).ok()?;
    let stream = TcpStream::connect(address).await.ok()?;
    let name = ServerName::from(address.ip());
    let mut stream = match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Ok(stream) => stream,
        Err(error) => return is_refusal(&error).then(|| Answer { accepts: Some(false), ..Answer::default() }),
    };
    let presents = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let presents = presents.iter().filter_map(|certificate| CertificateFacts::from_der(certificate)).collect();
    // With TLS 1.3 a server judges the client's certificate after the handshake: only its answer tells.
    let accepts = match status(&mut stream, address, question).await {
        Ok(Some(401)) => Some(false),
        Ok(Some(200..=299 | 403 | 404)) => Some(true),
        Ok(_) => None,
        Err(error) => is_refusal(&error).then_some(false),
    };
    Some(Answer { presents, accepts })
}

/// The status of the answer.
async fn status(
    stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
    address: SocketAddr,
    question: Question,
) -> io::Result<Option<u16>> {
    let user = question.remote_user.map(|user| format!("X-Remote-User: {user}\r\n")).unwrap_or_default();
    let request = format!("GET {} HTTP/1.1\r\nHost: {address}\r\n{user}Connection: close\r\n\r\n", question.path);
    stream.write_all(request.as_bytes()).await?;
    // `HTTP/1.1 200`.
    let mut head = [0_u8; 12];
    stream.read_exact(&mut head).await?;
    Ok(std::str::from_utf8(&head).ok().and_then(|head| head.strip_prefix("HTTP/1.1 ")?.parse().ok()))
}

/// Whether the server said that it does not take the certificate, and did not just fail.
fn is_refusal(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::AlertReceived(_)))
}
