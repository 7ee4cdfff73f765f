//! One TLS connection that is all the caller's: it decides what to trust and as whom to come, and knows whether an answer
//! came on a connection that was used before.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// An API server that is being replaced takes a moment; who waits longer than this has been let down.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client certificate with its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate, perhaps with a chain.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
}

/// Where to connect, what to trust there, and as whom to come.
#[derive(Clone)]
pub struct Access {
    /// Host and port.
    pub address: String,
    /// The trusted authorities, in PEM.
    pub authorities: Vec<u8>,
    /// The client certificate, if any.
    pub pair: Option<Pair>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// After how many seconds the server wants to be asked again.
    pub retry_after: Option<u64>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body of a success.
    ///
    /// # Errors
    /// When it is no success; the message has the beginning of the body.
    pub fn success(self) -> Result<Bytes> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        let words: String = String::from_utf8_lossy(&self.body).chars().take(300).collect();
        bail!("{}: {}", self.status, words.trim())
    }
}

/// An open connection (HTTP/1.1).
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    /// How many answers came on it.
    answers: u32,
}

impl Access {
    /// Connects, with a new handshake.
    ///
    /// # Errors
    /// When nobody listens, or one of the two does not trust the other.
    pub async fn connect(&self) -> Result<Connection> {
        let what = || format!("cannot connect to {}", self.address);
        timeout(PATIENCE, self.handshake()).await.with_context(what)?.with_context(what)
    }

    async fn handshake(&self) -> Result<Connection> {
        let (host, _) = self.address.rsplit_once(':').context("an address without a port")?;
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        let tls = TlsConnector::from(Arc::new(self.tls()?)).connect(name, tcp).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        // It ends with its connection; what goes wrong there is told to whoever asks.
        tokio::spawn(connection);
        Ok(Connection { sender, host: self.address.clone(), answers: 0 })
    }

    fn tls(&self) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.authorities) {
            roots.add(certificate.context("an authority that is no certificate")?)?;
        }
        ensure!(!roots.is_empty(), "there is no authority to trust");
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_root_certificates(roots);
        let Some(Pair { certificate, key }) = &self.pair else { return Ok(builder.with_no_client_auth()) };
        let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
        Ok(builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?)
    }
}

impl Connection {
    /// How many answers came on it.
    #[must_use]
    pub fn answers(&self) -> u32 {
        self.answers
    }

    /// Whether the other side has closed it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// GET.
    ///
    /// # Errors
    /// When no answer comes; any status is an answer.
    pub async fn get(&mut self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// Any request, with these headers and this body.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn send(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Result<Answer> {
        let mut request = Request::builder().method(method.clone()).uri(path).header("Host", &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let what = || format!("{method} {path}");
        let request = request.header("Accept", "application/json").body(Full::new(body)).with_context(what)?;
        let answer = timeout(PATIENCE, self.exchange(request)).await.with_context(what)?.with_context(what)?;
        self.answers += 1;
        Ok(answer)
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer> {
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let retry_after = response.headers().get("Retry-After").and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Answer { status, retry_after, body })
    }
}
