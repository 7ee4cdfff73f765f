//! Reads the certificate that each API server presents at its own address.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use keyplane_core::model::{API_SERVER_PORT, Cluster};
use keyplane_core::pki::CertificateFacts;

/// Reads the certificate of each API server of a cluster that answers at its own address within the limit, by node.
/// Only a TLS handshake is sent.
pub(in crate::controllers) async fn presented_by_each(
    cluster: &Cluster,
    limit: Duration,
) -> BTreeMap<String, CertificateFacts> {
    let handshakes = cluster.nodes.iter().map(async |node| {
        let certificate = timeout(limit, handshake(node.advertise_address)).await.ok()??;
        Some((node.name.clone(), certificate))
    });
    join_all(handshakes).await.into_iter().flatten().collect()
}

async fn handshake(address: IpAddr) -> Option<CertificateFacts> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyCertificate::new(&provider));
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    let stream = TcpStream::connect(SocketAddr::new(address, API_SERVER_PORT)).await.ok()?;
    let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::from(address), stream).await.ok()?;
    CertificateFacts::from_der(stream.get_ref().1.peer_certificates()?.first()?)
}

/// A verifier that accepts every certificate, because the certificate is only read, and not trusted. The server still
/// has to prove possession of its key.
#[derive(Debug)]
pub(super) struct AnyCertificate(WebPkiSupportedAlgorithms);

impl AnyCertificate {
    pub(super) fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
