//! An authority that somebody gives: taken only if everything below it will be good.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::certificate::to_pem;
use super::{Authority, CertificateFacts, ExtendedUsage, PrivateKey, certificates_in};

/// A clock may differ by so much, as that of who has made the certificate.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// Why what was given is no authority for a cluster, and the cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// There is no certificate, or something that is none.
    #[error("{0} holds something else than certificates in PEM form")]
    NoCertificate(&'static str),
    /// The key needs a passphrase.
    #[error("tls.key is encrypted, and nobody could enter its passphrase: decrypt it with `openssl pkey`")]
    EncryptedKey,
    /// The key is none, or one of a kind that components don't read.
    #[error(
        "tls.key is no private key that Kubernetes' components and Keyplane read: RSA from 2048 bits on, P-256 or P-384"
    )]
    Key,
    /// The key is not that of the first certificate.
    #[error(
        "tls.key is not the key of the first certificate in tls.crt: put the authority's own first, then those above it"
    )]
    KeyMismatch,
    /// It may not sign certificates.
    #[error("{0} may not sign certificates: it needs basicConstraints CA:TRUE and keyUsage keyCertSign")]
    NoAuthority(String),
    /// Its key has no identifier.
    #[error(
        "{0} has no subjectKeyIdentifier, by which certificates name the key that has signed them: have it made with one"
    )]
    NoKeyIdentifier(String),
    /// What is issued below it could not be used.
    #[error(
        "{0} has an extendedKeyUsage that leaves out what the cluster's certificates are for: have it made without one"
    )]
    Usages(String),
    /// Names that the cluster needs may be forbidden.
    #[error("{0} has nameConstraints, and a cluster needs names and addresses of its own: have it made without them")]
    NameConstraints(String),
    /// Its time has not come.
    #[error("{name} is valid only from {begin} on")]
    NotYet {
        /// Whose.
        name: String,
        /// From when on.
        begin: Timestamp,
    },
    /// Its time is over.
    #[error("{name} has ended at {end}: put a renewed one there")]
    Ended {
        /// Whose.
        name: String,
        /// Until when.
        end: Timestamp,
    },
    /// The certificates are in another order, or one is missing.
    #[error(
        "in tls.crt, {below} is not signed by {above}, which follows it: put the authority's own first, and below each the one that has signed it"
    )]
    Order {
        /// Whose.
        below: String,
        /// The one that follows.
        above: String,
    },
    /// The root is another one's.
    #[error(
        "ca.crt is not above {0}, the last certificate in tls.crt: put the root there that has signed it, or leave ca.crt out"
    )]
    Root(String),
    /// One above it allows too few authorities below.
    #[error("{name} has pathlen:{length}, which does not allow {below} authorities below it")]
    PathLength {
        /// Whose.
        name: String,
        /// How many it allows.
        length: u32,
        /// How many there are.
        below: usize,
    },
}

/// Takes an authority from `tls.crt` (its certificate, and those above it), `tls.key` (nothing where its owner signs
/// outside) and `ca.crt` (the root); `name` is for messages. `usages` are those of the certificates below it.
///
/// # Errors
/// The first thing that would leave something in the cluster without a good certificate. It holds nothing of the key.
pub fn given_authority(
    name: &str,
    (certificates, key, root): (&str, Option<&str>, Option<&str>),
    usages: &[ExtendedUsage],
    now: Timestamp,
) -> Result<Authority, Unfit> {
    let mut line = certificates_in("tls.crt", certificates).map_err(|_| Unfit::NoCertificate("tls.crt"))?;
    let key = key.map(private_key).transpose()?;
    let own = line.first().ok_or(Unfit::NoCertificate("tls.crt"))?;
    if key.as_ref().is_some_and(|key| own.subject_public_key_info != key.subject_public_key_info()) {
        return Err(Unfit::KeyMismatch);
    }
    let called = label(own);
    if !own.allows(usages) {
        return Err(Unfit::Usages(called));
    }
    if own.constrains_names() {
        return Err(Unfit::NameConstraints(called));
    }
    if own.subject_key_id.is_none() {
        return Err(Unfit::NoKeyIdentifier(called));
    }
    if let Some([below, above]) = line.array_windows().find(|[below, above]| !below.may_be_signed_by(above)) {
        return Err(Unfit::Order { below: label(below), above: label(above) });
    }
    line.extend(next_above(&line, root)?);
    for (below, certificate) in line.iter().enumerate() {
        refuse(certificate, below, now)?;
    }
    let mut blocks = line.iter().map(|certificate| to_pem("CERTIFICATE", &certificate.der));
    let own = blocks.next().ok_or(Unfit::NoCertificate("tls.crt"))?;
    let mut above: Vec<_> = blocks.collect();
    let is_complete = line.last().is_some_and(CertificateFacts::is_self_signed);
    let root = if is_complete { above.pop() } else { None };
    let authority = match &key {
        Some(key) => Authority::load(name, &own, key.pem()),
        None => Authority::signed_outside(name, &own),
    };
    let authority = authority.map_err(|_| Unfit::NoAuthority(called))?;
    Ok(authority.below(above.concat(), root))
}

/// The one of `ca.crt` that is above the last of these, unless it is that one.
fn next_above(line: &[CertificateFacts], root: Option<&str>) -> Result<Option<CertificateFacts>, Unfit> {
    let (Some(root), Some(last)) = (root, line.last()) else { return Ok(None) };
    let found = certificates_in("ca.crt", root).map_err(|_| Unfit::NoCertificate("ca.crt"))?;
    if found.iter().any(|certificate| certificate.der == last.der) {
        return Ok(None);
    }
    let above = found.into_iter().find(|certificate| last.may_be_signed_by(certificate));
    above.map(Some).ok_or_else(|| Unfit::Root(label(last)))
}

/// `below` is how many authorities there are between it and a certificate of the cluster.
fn refuse(certificate: &CertificateFacts, below: usize, now: Timestamp) -> Result<(), Unfit> {
    let name = label(certificate);
    if !certificate.may_sign_certificates {
        return Err(Unfit::NoAuthority(name));
    }
    if certificate.not_before > now + CLOCK_TOLERANCE {
        return Err(Unfit::NotYet { name, begin: certificate.not_before });
    }
    if certificate.not_after <= now {
        return Err(Unfit::Ended { name, end: certificate.not_after });
    }
    match certificate.path_length {
        Some(length) if usize::try_from(length).is_ok_and(|length| length < below) => {
            Err(Unfit::PathLength { name, length, below })
        }
        _ => Ok(()),
    }
}

/// The one private key in a text. openssl may write the parameters of its curve before it.
fn private_key(text: &str) -> Result<PrivateKey, Unfit> {
    if text.contains("ENCRYPTED") {
        return Err(Unfit::EncryptedKey);
    }
    let blocks = ::pem::parse_many(text).map_err(|_| Unfit::Key)?;
    let block = blocks.iter().find(|block| block.tag().ends_with("PRIVATE KEY")).ok_or(Unfit::Key)?;
    let key = PrivateKey::from_pem("tls.key", &to_pem(block.tag(), block.contents())).map_err(|_| Unfit::Key)?;
    if key.is_verified_here() { Ok(key) } else { Err(Unfit::Key) }
}

/// By what a person knows a certificate.
fn label(certificate: &CertificateFacts) -> String {
    let name = certificate.subject.as_ref().map(|subject| subject.common_name.clone());
    name.map_or_else(
        || format!("the certificate {}", certificate.serial),
        |name| format!("the certificate of {name:?}"),
    )
}

#[cfg(test)]
mod tests;
