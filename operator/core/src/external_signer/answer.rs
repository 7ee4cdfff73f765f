//! Compares a signed certificate with the requested one. Each check has its own rejection.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::request::{KEY_USAGES, usage_name};
use crate::pki::{AlternativeName, CertificateFacts, ExtendedUsage, Profile, Subject, first_certificate, to_pem};

/// The tolerance for a validity longer than requested. Signers backdate notBefore (Vault 30 seconds, Kubernetes five
/// minutes), and their clocks differ.
const VALIDITY_TOLERANCE: SignedDuration = SignedDuration::from_hours(1);

/// The divisor for the minimum remaining validity: a quarter of the requested one. A shorter certificate would be
/// requested again and again.
const MIN_VALIDITY_DIVISOR: i32 = 4;

/// The certificate that a request asks for.
#[derive(Debug, Clone)]
pub struct ExpectedCertificate<'a> {
    /// The subject.
    pub subject: &'a Subject,
    /// The subject alternative names.
    pub alternative_names: &'a [AlternativeName],
    /// The extended key usages.
    pub extended_usages: &'a [ExtendedUsage],
    /// The maximum validity.
    pub validity: Duration,
    /// The public key as DER.
    pub subject_public_key_info: &'a [u8],
}

/// The reason why a signed certificate is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The text has no readable certificate.
    #[error("tls.crt does not begin with a readable PEM certificate; write the signed certificate first")]
    Unreadable,
    /// The certificate has another public key.
    #[error("public key: differs from the key of the request; sign request.csr unchanged")]
    OtherKey,
    /// Another CA signed the certificate.
    #[error("issuer: signed by {issuer:?}, which is not the CA {ca:?} or has another key; sign with the CA {ca:?}")]
    OtherIssuer {
        /// The issuer name in the certificate.
        issuer: String,
        /// The common name of the expected CA.
        ca: String,
    },
    /// Go and the API server reject the signature algorithm.
    #[error("signature: algorithm is not accepted by the API server; sign with SHA-256, SHA-384, SHA-512 or Ed25519")]
    WeakSignature,
    /// The subject differs.
    #[error("subject: found {found}, requested {requested}; sign with the subject of request.csr")]
    OtherSubject {
        /// The subject of the certificate.
        found: String,
        /// The requested subject.
        requested: String,
    },
    /// The subject alternative names differ.
    #[error(
        "subject alternative names: {}; sign with the extensions of extensions.cnf",
        name_differences(.missing, .added)
    )]
    OtherNames {
        /// Requested names that the certificate lacks.
        missing: Vec<String>,
        /// Names that were not requested.
        added: Vec<String>,
    },
    /// The key usages or the extended key usages differ.
    #[error("{field}: found {found}, requested {requested}; sign with the extensions of extensions.cnf")]
    OtherUsages {
        /// The name of the extension.
        field: &'static str,
        /// The usages of the certificate.
        found: String,
        /// The requested usages.
        requested: String,
    },
    /// The certificate is a CA certificate.
    #[error("basic constraints: found CA:TRUE, requested CA:FALSE; sign with the extensions of extensions.cnf")]
    CertificateAuthority,
    /// A critical extension that some clients do not support.
    #[error("extensions: critical extension {0} is not supported by all clients; remove it or make it non-critical")]
    UnknownCritical(String),
    /// The validity starts in the future.
    #[error("not before: {0} is in the future; check the clock of the signer")]
    NotYetValid(Timestamp),
    /// The certificate is expired, or expires so soon that a new request would follow at once.
    #[error("not after: {0} is too soon; sign with a longer validity")]
    TooShort(Timestamp),
    /// The validity is longer than requested.
    #[error("not after: {found} is later than {latest}; sign with a shorter validity")]
    TooLong {
        /// The expiry of the certificate.
        found: Timestamp,
        /// The latest allowed expiry.
        latest: Timestamp,
    },
}

fn name_differences(missing: &[String], added: &[String]) -> String {
    let parts = [("missing", missing), ("not requested", added)];
    let parts = parts.into_iter().filter(|(_, names)| !names.is_empty());
    let parts: Vec<_> = parts.map(|(what, names)| format!("{what}: {}", names.join(", "))).collect();
    if parts.is_empty() {
        "found names that are neither DNS names nor IP addresses".to_owned()
    } else {
        parts.join("; ")
    }
}

/// Compares the first certificate of an answer with the expected one. Returns that certificate as PEM, without the rest
/// of the text.
///
/// # Errors
/// Returns the first difference.
pub fn check(
    answer: &str,
    expected: &ExpectedCertificate<'_>,
    ca: &CertificateFacts,
    now: Timestamp,
) -> Result<String, Rejection> {
    let facts = first_certificate("the answer", answer).map_err(|_| Rejection::Unreadable)?;
    let profile = Profile::of(&facts).ok_or(Rejection::Unreadable)?;
    let found = Comparison { facts: &facts, profile: &profile, expected, ca, now };
    CHECKS.iter().try_for_each(|check| check(&found))?;
    Ok(to_pem("CERTIFICATE", &facts.der))
}

type Check = fn(&Comparison<'_>) -> Result<(), Rejection>;

const CHECKS: [Check; 8] = [key, issuer, is_not_ca, subject, names, usages, extensions, validity];

struct Comparison<'a> {
    facts: &'a CertificateFacts,
    profile: &'a Profile,
    expected: &'a ExpectedCertificate<'a>,
    ca: &'a CertificateFacts,
    now: Timestamp,
}

fn key(found: &Comparison<'_>) -> Result<(), Rejection> {
    if found.facts.subject_public_key_info == found.expected.subject_public_key_info {
        Ok(())
    } else {
        Err(Rejection::OtherKey)
    }
}

fn issuer(found: &Comparison<'_>) -> Result<(), Rejection> {
    if !found.profile.is_strongly_signed {
        return Err(Rejection::WeakSignature);
    }
    if found.facts.is_signed_by(found.ca) {
        return Ok(());
    }
    let ca = found.ca.subject.as_ref().map(|subject| subject.common_name.clone());
    Err(Rejection::OtherIssuer { issuer: found.facts.issuer.clone(), ca: ca.unwrap_or_default() })
}

fn is_not_ca(found: &Comparison<'_>) -> Result<(), Rejection> {
    if found.profile.is_ca { Err(Rejection::CertificateAuthority) } else { Ok(()) }
}

fn subject(found: &Comparison<'_>) -> Result<(), Rejection> {
    let same = found.facts.subject.as_ref().is_some_and(|subject| subject.is_same_user(found.expected.subject));
    if same && found.profile.other_subject_parts.is_empty() {
        return Ok(());
    }
    let mut text =
        found.facts.subject.as_ref().map_or_else(|| "a subject without exactly one CN".to_owned(), subject_text);
    if !found.profile.other_subject_parts.is_empty() {
        text = format!("{text} with other attributes ({})", found.profile.other_subject_parts.join(", "));
    }
    Err(Rejection::OtherSubject { found: text, requested: subject_text(found.expected.subject) })
}

fn subject_text(subject: &Subject) -> String {
    let organizations = subject.organizations.iter().map(|organization| format!("O={organization}, "));
    format!("{:?}", format!("{}CN={}", organizations.collect::<String>(), subject.common_name))
}

fn names(found: &Comparison<'_>) -> Result<(), Rejection> {
    let mut requested = found.expected.alternative_names.to_vec();
    requested.sort();
    let Some(present) = &found.facts.alternative_names else {
        return Err(Rejection::OtherNames { missing: vec![], added: vec![] });
    };
    let lacking = |of: &[AlternativeName], others: &[AlternativeName]| -> Vec<String> {
        of.iter().filter(|name| !others.contains(name)).map(name_text).collect()
    };
    let (missing, added) = (lacking(&requested, present), lacking(present, &requested));
    if missing.is_empty() && added.is_empty() { Ok(()) } else { Err(Rejection::OtherNames { missing, added }) }
}

fn name_text(name: &AlternativeName) -> String {
    match name {
        AlternativeName::Dns(name) => name.clone(),
        AlternativeName::Ip(address) => address.to_string(),
    }
}

fn usages(found: &Comparison<'_>) -> Result<(), Rejection> {
    let mut requested = found.expected.extended_usages.to_vec();
    requested.sort();
    if found.facts.extended_usages.as_ref() != Some(&requested) {
        let text = |usages: &[ExtendedUsage]| {
            let names = usages.iter().map(|usage| usage_name(*usage));
            names.collect::<Vec<_>>().join(", ")
        };
        let present = match &found.facts.extended_usages {
            None => "usages other than client and server auth".to_owned(),
            Some(usages) if usages.is_empty() => "no such extension, which allows every usage".to_owned(),
            Some(usages) => text(usages),
        };
        return Err(Rejection::OtherUsages {
            field: "extended key usage",
            found: present,
            requested: text(&requested),
        });
    }
    // An ECDSA key cannot encipher keys, so some signers omit key encipherment.
    let matches_request =
        found.profile.key_usages.as_ref().is_some_and(|usages| {
            usages.contains(&KEY_USAGES[0]) && usages.iter().all(|usage| KEY_USAGES.contains(usage))
        });
    if matches_request {
        return Ok(());
    }
    let present = match &found.profile.key_usages {
        None => "no such extension, which allows every usage".to_owned(),
        Some(usages) => usages.join(", "),
    };
    Err(Rejection::OtherUsages { field: "key usage", found: present, requested: KEY_USAGES.join(", ") })
}

fn extensions(found: &Comparison<'_>) -> Result<(), Rejection> {
    match found.profile.unknown_critical.first() {
        Some(unknown) => Err(Rejection::UnknownCritical(unknown.clone())),
        None => Ok(()),
    }
}

fn validity(found: &Comparison<'_>) -> Result<(), Rejection> {
    let Comparison { facts, expected, ca, now, .. } = found;
    if facts.not_before > *now {
        return Err(Rejection::NotYetValid(facts.not_before));
    }
    let requested = SignedDuration::try_from(expected.validity).unwrap_or(SignedDuration::MAX);
    let latest_requested =
        requested.checked_add(VALIDITY_TOLERANCE).and_then(|longest| facts.not_before.checked_add(longest).ok());
    let latest = latest_requested.unwrap_or(Timestamp::MAX).min(ca.not_after);
    if facts.not_after > latest {
        return Err(Rejection::TooLong { found: facts.not_after, latest });
    }
    // Close to the expiry of the CA, its remaining validity limits the certificate.
    let longest = requested.min(ca.not_after.duration_since(*now));
    let earliest = now.checked_add(longest / MIN_VALIDITY_DIVISOR).unwrap_or(Timestamp::MAX);
    if facts.not_after <= *now || facts.not_after < earliest {
        return Err(Rejection::TooShort(facts.not_after));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
