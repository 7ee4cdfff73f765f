//! Validates a user-provided CA. The CA is accepted only if all certificates that it signs will be valid.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::certificate::to_pem;
use super::{CertificateAuthority, CertificateFacts, ExtendedUsage, PrivateKey, certificates_in};

/// The tolerance for the clock of the issuer of the CA certificate.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// The reason why a CA is not usable for a cluster, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserProvidedCaError {
    /// The text has no certificates, or also other content.
    #[error("{0} does not consist of certificates in PEM form")]
    NoCertificate(&'static str),
    /// The key is encrypted with a passphrase.
    #[error("tls.key is encrypted with a passphrase; decrypt it with `openssl pkey`")]
    EncryptedKey,
    /// The text is not a private key, or has an algorithm that Kubernetes components do not support.
    #[error("tls.key is not a supported private key; use RSA with 2048 bits or more, P-256 or P-384")]
    Key,
    /// The key does not match the first certificate.
    #[error(
        "tls.key is not the key of the first certificate in tls.crt; put the CA certificate first, then its issuers in order"
    )]
    KeyMismatch,
    /// The certificate is not a CA certificate.
    #[error("{0} can't sign certificates; issue it with basicConstraints CA:TRUE and keyUsage keyCertSign")]
    NotACa(String),
    /// The CA certificate has no subject key identifier.
    #[error("{0} has no subjectKeyIdentifier, which leaf certificates refer to; issue it with one")]
    NoKeyIdentifier(String),
    /// The extended key usages of the CA do not cover those of the leaf certificates.
    #[error(
        "{0} has an extendedKeyUsage without all usages of the cluster's certificates; issue it without that extension"
    )]
    Usages(String),
    /// Name constraints may forbid names that the cluster needs.
    #[error(
        "{0} has nameConstraints, which can forbid names and addresses of the cluster; issue it without that extension"
    )]
    NameConstraints(String),
    /// The validity starts in the future.
    #[error("{name} is not valid before {begin}; wait, or issue it with an earlier notBefore")]
    NotYet {
        /// The name of the certificate.
        name: String,
        /// The start of the validity.
        begin: Timestamp,
    },
    /// The certificate is expired.
    #[error("{name} expired at {end}; replace it with a renewed certificate")]
    Ended {
        /// The name of the certificate.
        name: String,
        /// The expiry.
        end: Timestamp,
    },
    /// The certificates are in the wrong order, or one is missing.
    #[error(
        "in tls.crt, {below} is not signed by {above}, which follows it; put the CA certificate first, then its issuers in order"
    )]
    Order {
        /// The name of the certificate.
        below: String,
        /// The name of the next certificate.
        above: String,
    },
    /// The root does not match the chain.
    #[error("ca.crt did not sign {0}, the last certificate in tls.crt; put its root into ca.crt, or remove ca.crt")]
    Root(String),
    /// The path length of an issuer is too small.
    #[error("{name} has pathlen:{length}, but {below} CAs are below it; issue it with a larger pathlen")]
    PathLength {
        /// The name of the issuer.
        name: String,
        /// The path length.
        length: u32,
        /// The number of CAs below the issuer.
        below: usize,
    },
}

/// Loads a user-provided CA from `tls.crt` (the CA certificate, then its issuers), `tls.key` (`None` for an external
/// CA) and `ca.crt` (the root). `name` is for messages. `usages` are the extended key usages of the leaf certificates.
///
/// # Errors
/// Returns the first defect that would make certificates of the cluster invalid. The error contains no part of the key.
pub fn user_provided_ca(
    name: &str,
    (certificates, key, root): (&str, Option<&str>, Option<&str>),
    usages: &[ExtendedUsage],
    now: Timestamp,
) -> Result<CertificateAuthority, UserProvidedCaError> {
    let mut chain =
        certificates_in("tls.crt", certificates).map_err(|_| UserProvidedCaError::NoCertificate("tls.crt"))?;
    let key = key.map(private_key).transpose()?;
    let own = chain.first().ok_or(UserProvidedCaError::NoCertificate("tls.crt"))?;
    if key.as_ref().is_some_and(|key| own.subject_public_key_info != key.subject_public_key_info()) {
        return Err(UserProvidedCaError::KeyMismatch);
    }
    let display_name = certificate_label(own);
    if !own.allows(usages) {
        return Err(UserProvidedCaError::Usages(display_name));
    }
    if own.constrains_names() {
        return Err(UserProvidedCaError::NameConstraints(display_name));
    }
    if own.subject_key_id.is_none() {
        return Err(UserProvidedCaError::NoKeyIdentifier(display_name));
    }
    if let Some([below, above]) = chain.array_windows().find(|[below, above]| !below.may_be_signed_by(above)) {
        return Err(UserProvidedCaError::Order { below: certificate_label(below), above: certificate_label(above) });
    }
    chain.extend(issuer_in_root_file(&chain, root)?);
    for (below, certificate) in chain.iter().enumerate() {
        validate(certificate, below, now)?;
    }
    let mut blocks = chain.iter().map(|certificate| to_pem("CERTIFICATE", &certificate.der));
    let own = blocks.next().ok_or(UserProvidedCaError::NoCertificate("tls.crt"))?;
    let mut above: Vec<_> = blocks.collect();
    let is_complete = chain.last().is_some_and(CertificateFacts::is_self_signed);
    let root = if is_complete { above.pop() } else { None };
    let ca = match &key {
        Some(key) => CertificateAuthority::load(name, &own, key.pem()),
        None => CertificateAuthority::external(name, &own),
    };
    let ca = ca.map_err(|_| UserProvidedCaError::NotACa(display_name))?;
    Ok(ca.with_chain(above.concat(), root))
}

/// Returns the certificate in `ca.crt` that signed the last one of the chain, or `None` if `ca.crt` contains the last
/// one itself.
fn issuer_in_root_file(
    chain: &[CertificateFacts],
    root: Option<&str>,
) -> Result<Option<CertificateFacts>, UserProvidedCaError> {
    let (Some(root), Some(last)) = (root, chain.last()) else { return Ok(None) };
    let found = certificates_in("ca.crt", root).map_err(|_| UserProvidedCaError::NoCertificate("ca.crt"))?;
    if found.iter().any(|certificate| certificate.der == last.der) {
        return Ok(None);
    }
    let above = found.into_iter().find(|certificate| last.may_be_signed_by(certificate));
    above.map(Some).ok_or_else(|| UserProvidedCaError::Root(certificate_label(last)))
}

/// Validates one CA certificate of the chain. `below` is the number of CAs between this one and the leaf certificates.
fn validate(certificate: &CertificateFacts, below: usize, now: Timestamp) -> Result<(), UserProvidedCaError> {
    let name = certificate_label(certificate);
    if !certificate.may_sign_certificates {
        return Err(UserProvidedCaError::NotACa(name));
    }
    if certificate.not_before > now + CLOCK_TOLERANCE {
        return Err(UserProvidedCaError::NotYet { name, begin: certificate.not_before });
    }
    if certificate.not_after <= now {
        return Err(UserProvidedCaError::Ended { name, end: certificate.not_after });
    }
    match certificate.path_length {
        Some(length) if usize::try_from(length).is_ok_and(|length| length < below) => {
            Err(UserProvidedCaError::PathLength { name, length, below })
        }
        _ => Ok(()),
    }
}

/// Parses the private key in a text. openssl may write the curve parameters before the key.
fn private_key(text: &str) -> Result<PrivateKey, UserProvidedCaError> {
    if text.contains("ENCRYPTED") {
        return Err(UserProvidedCaError::EncryptedKey);
    }
    let blocks = ::pem::parse_many(text).map_err(|_| UserProvidedCaError::Key)?;
    let block = blocks.iter().find(|block| block.tag().ends_with("PRIVATE KEY")).ok_or(UserProvidedCaError::Key)?;
    let key = PrivateKey::from_pem("tls.key", &to_pem(block.tag(), block.contents()))
        .map_err(|_| UserProvidedCaError::Key)?;
    if key.is_verifiable() { Ok(key) } else { Err(UserProvidedCaError::Key) }
}

/// Returns the name of a certificate for messages.
fn certificate_label(certificate: &CertificateFacts) -> String {
    let name = certificate.subject.as_ref().map(|subject| subject.common_name.clone());
    name.map_or_else(
        || format!("the certificate {}", certificate.serial),
        |name| format!("the certificate of {name:?}"),
    )
}

#[cfg(test)]
mod tests;
