//! What a certificate that somebody else has made says beside its facts.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{KeyUsage, X509Extension};
use x509_parser::oid_registry as oid;
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

use super::CertificateFacts;

/// The extensions that everybody who reads certificates understands, of those that may be critical.
const KNOWN: [Oid<'static>; 4] = [
    oid::OID_X509_EXT_BASIC_CONSTRAINTS,
    oid::OID_X509_EXT_KEY_USAGE,
    oid::OID_X509_EXT_EXTENDED_KEY_USAGE,
    oid::OID_X509_EXT_SUBJECT_ALT_NAME,
];

/// The signature algorithms that Go takes (`crypto/x509`: nothing with SHA-1 or MD5).
const SIGNATURES: [Oid<'static>; 7] = [
    oid::OID_SIG_ECDSA_WITH_SHA256,
    oid::OID_SIG_ECDSA_WITH_SHA384,
    oid::OID_SIG_ECDSA_WITH_SHA512,
    oid::OID_PKCS1_SHA256WITHRSA,
    oid::OID_PKCS1_SHA384WITHRSA,
    oid::OID_PKCS1_SHA512WITHRSA,
    oid::OID_SIG_ED25519,
];

/// What a certificate says beside its [`CertificateFacts`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The parts of the subject that are neither CN nor O, as object identifiers.
    pub other_subject_parts: Vec<String>,
    /// What the key may be used for, by the names that Kubernetes has for it. `None` without that extension.
    pub key_usages: Option<Vec<&'static str>>,
    /// Whether it is an authority's.
    pub is_authority: bool,
    /// The critical extensions that nobody is sure to understand, as object identifiers.
    pub unknown_critical: Vec<String>,
    /// Whether its signature is of an algorithm that Go takes.
    pub is_strongly_signed: bool,
}

impl Profile {
    /// Reads it; nothing if an extension can't be read, or is there twice.
    #[must_use]
    pub fn of(facts: &CertificateFacts) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(&facts.der).ok()?;
        // Fails if one is there twice.
        certificate.extensions_map().ok()?;
        let parts = certificate.subject().iter_attributes().map(AttributeTypeAndValue::attr_type);
        let other =
            parts.filter(|part| **part != oid::OID_X509_COMMON_NAME && **part != oid::OID_X509_ORGANIZATION_NAME);
        let usages = certificate.key_usage().ok()?.map(|extension| names(*extension.value));
        let is_unknown = |extension: &&X509Extension<'_>| extension.critical && !KNOWN.contains(&extension.oid);
        Some(Self {
            other_subject_parts: other.map(Oid::to_id_string).collect(),
            is_authority: certificate.basic_constraints().ok()?.is_some_and(|extension| extension.value.ca),
            key_usages: usages,
            unknown_critical: certificate
                .extensions()
                .iter()
                .filter(is_unknown)
                .map(|extension| extension.oid.to_id_string())
                .collect(),
            is_strongly_signed: SIGNATURES.contains(&certificate.signature_algorithm.algorithm),
        })
    }
}

/// Kubernetes' names (`certificates/v1`, `KeyUsage`), which are cert-manager's too.
fn names(usage: KeyUsage) -> Vec<&'static str> {
    let all = [
        (usage.digital_signature(), "digital signature"),
        (usage.non_repudiation(), "content commitment"),
        (usage.key_encipherment(), "key encipherment"),
        (usage.data_encipherment(), "data encipherment"),
        (usage.key_agreement(), "key agreement"),
        (usage.key_cert_sign(), "cert sign"),
        (usage.crl_sign(), "crl sign"),
        (usage.encipher_only(), "encipher only"),
        (usage.decipher_only(), "decipher only"),
    ];
    all.into_iter().filter_map(|(is_set, name)| is_set.then_some(name)).collect()
}
