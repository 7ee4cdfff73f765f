//! Who is let in where: client certificates made from any authority, and the question whether an API server, a kubelet,
//! an etcd member or the aggregation layer accepts them, each asked at its own address on a new connection.

use anyhow::{Context, Result, bail};
use http::{Method, StatusCode};
use hyper::body::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use serde_json::Value;
use tokio::runtime::Builder;

use super::connection::{Access, Pair};
use super::kubeconfig::access_in;
use crate::kubectl::Kubectl;

/// An API server's port.
const API_SERVER: u16 = 6443;

/// A kubelet's port.
const KUBELET: u16 = 10250;

/// etcd's port for clients.
const ETCD: u16 = 2379;

/// etcd's port for other members.
const ETCD_PEER: u16 = 2380;

/// As whom a front-proxy certificate lets its holder come: a name that a test recognises, with the right to nothing.
const PASSED_ON: &str = "passed-on-by-a-test";

/// An authority with its key.
#[derive(Clone)]
pub struct Authority {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Authority {
    /// The CA that the Secret holds under two keys: `tls.crt` and `tls.key` for the one that signs now, `next.*` for its
    /// successor, `previous.*` for its predecessor.
    ///
    /// # Errors
    /// When it does not.
    pub fn read(management: &Kubectl, secret: &str, certificate: &str, key: &str) -> Result<Self> {
        let text = |field: &str| management.secret_text(secret, field);
        Ok(Self { certificate: text(certificate)?, key: text(key)? })
    }

    /// One that nobody trusts, though it has this name.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn stranger(name: &str) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        Ok(Self { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
    }

    /// A client certificate of this authority, valid from an hour ago until tomorrow.
    ///
    /// # Errors
    /// When the authority can't be read.
    pub fn client(&self, name: &str, groups: &[&str]) -> Result<Pair> {
        let issuer_key = KeyPair::from_pem(&self.key).context("an authority's key that can't be read")?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, issuer_key).context("an authority's certificate")?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let (before, after) = (jiff::Timestamp::now().as_second() - 3600, jiff::Timestamp::now().as_second() + 86_400);
        params.not_before = time::OffsetDateTime::from_unix_timestamp(before)?;
        params.not_after = time::OffsetDateTime::from_unix_timestamp(after)?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Pair { certificate: certificate.pem().into_bytes(), key: key.serialize_pem().into_bytes() })
    }
}

/// The pair in a kubeconfig, and the authorities that it trusts.
///
/// # Errors
/// When it has none.
pub fn of_kubeconfig(kubeconfig: &str) -> Result<Access> {
    access_in(kubeconfig)
}

/// Whether the API server at this address takes the holder of the pair for somebody: it lets anybody shake hands, and
/// answers 401 to those it does not know.
///
/// # Errors
/// When it does not answer, or can't be trusted with these authorities.
pub fn accepted_by_api_server(address: &str, authorities: &[u8], pair: &Pair) -> Result<bool> {
    judge(ask(address, API_SERVER, authorities, Some(pair), Method::GET, "/api", &[], "")?.0)
}

/// Whether the API server at this address takes the bearer of a token for somebody.
///
/// # Errors
/// As [`accepted_by_api_server`].
pub fn token_accepted_by_api_server(address: &str, authorities: &[u8], token: &str) -> Result<bool> {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str())];
    judge(ask(address, API_SERVER, authorities, None, Method::GET, "/api", &headers, "")?.0)
}

/// Whether the kubelet at this address takes the holder of the pair for somebody: 403 is an answer to one whom it knows.
///
/// # Errors
/// As [`accepted_by_api_server`].
pub fn accepted_by_kubelet(address: &str, authorities: &[u8], pair: &Pair) -> Result<bool> {
    judge(ask(address, KUBELET, authorities, Some(pair), Method::GET, "/pods", &[], "")?.0)
}

/// Whether the API server at this address believes the holder of the pair who asks for somebody else, as the API server
/// that passes a request on to an aggregated one does.
///
/// # Errors
/// As [`accepted_by_api_server`].
pub fn accepted_as_front_proxy(address: &str, authorities: &[u8], pair: &Pair) -> Result<bool> {
    let headers = [
        ("X-Remote-User", PASSED_ON),
        ("X-Remote-Group", "system:authenticated"),
        ("Content-Type", "application/json"),
    ];
    let review = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (status, body) = ask(address, API_SERVER, authorities, Some(pair), Method::POST, path, &headers, review)?;
    if status == StatusCode::UNAUTHORIZED {
        return Ok(false);
    }
    let answer: Value = serde_json::from_slice(&body).with_context(|| format!("{status} without JSON"))?;
    Ok(answer["status"]["userInfo"]["username"] == PASSED_ON)
}

/// Whether the etcd member at this address shakes hands with the holder of the pair.
///
/// # Errors
/// When it can't be reached at all.
pub fn accepted_by_etcd(address: &str, authorities: &[u8], pair: &Pair) -> Result<bool> {
    shakes_hands(address, ETCD, authorities, pair, "/health")
}

/// Whether the etcd member at this address shakes hands with the holder of the pair as with another member.
///
/// # Errors
/// When it can't be reached at all.
pub fn accepted_by_etcd_as_peer(address: &str, authorities: &[u8], pair: &Pair) -> Result<bool> {
    shakes_hands(address, ETCD_PEER, authorities, pair, "/version")
}

/// Whether what serves at this address and port is believed by somebody who trusts only these authorities.
///
/// # Errors
/// When nobody listens there.
pub fn is_believed(address: &str, port: u16, authorities: &[u8]) -> Result<bool> {
    let access = Access { address: format!("{address}:{port}"), authorities: authorities.to_vec(), pair: None };
    match block_on(async { access.connect().await })? {
        Ok(_) => Ok(true),
        Err(error) if is_certificate_trouble(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// etcd wants a certificate that it knows in the handshake. In TLS 1.3 the client is done before the server has looked, so
/// the refusal comes with the first answer.
fn shakes_hands(address: &str, port: u16, authorities: &[u8], pair: &Pair, path: &str) -> Result<bool> {
    let result = ask(address, port, authorities, Some(pair), Method::GET, path, &[], "");
    match result {
        Ok(_) => Ok(true),
        Err(error) if is_refusal(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The other side's alert that it does not know our certificate.
fn is_refusal(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.to_string().contains("received fatal alert"))
}

/// Our own complaint about the other side's certificate.
fn is_certificate_trouble(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.to_string().contains("invalid peer certificate"))
}

fn judge(status: StatusCode) -> Result<bool> {
    match status {
        StatusCode::UNAUTHORIZED => Ok(false),
        StatusCode::FORBIDDEN => Ok(true),
        status if status.is_success() => Ok(true),
        status => bail!("the answer is {status}, which says nothing of the certificate"),
    }
}

#[expect(clippy::too_many_arguments, reason = "a request is all of this, and each question above one line")]
fn ask(
    address: &str,
    port: u16,
    authorities: &[u8],
    pair: Option<&Pair>,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<(StatusCode, Bytes)> {
    let host = if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
    let access = Access { address: host, authorities: authorities.to_vec(), pair: pair.cloned() };
    let body = Bytes::copy_from_slice(body.as_bytes());
    block_on(async {
        let answer = access.connect().await?.send(method, path, headers, body).await?;
        Ok((answer.status, answer.body))
    })?
}

/// Tests ask from plain threads.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<Result<T>> {
    Ok(Builder::new_current_thread().enable_all().build().context("no thread")?.block_on(work))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_certificate_of_any_authority_can_be_made() {
        let pair = Authority::stranger("kubernetes").unwrap().client("somebody", &["some", "groups"]).unwrap();
        assert!(String::from_utf8(pair.certificate).unwrap().starts_with("-----BEGIN CERTIFICATE"));
    }

    #[test]
    fn only_an_answer_about_the_certificate_is_one() {
        assert!(!judge(StatusCode::UNAUTHORIZED).unwrap());
        assert!(judge(StatusCode::FORBIDDEN).unwrap() && judge(StatusCode::OK).unwrap());
        assert!(judge(StatusCode::INTERNAL_SERVER_ERROR).is_err());
    }
}
