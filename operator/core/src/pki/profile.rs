//! Further properties of a certificate that an external signer issued.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{KeyUsage, X509Extension};
use x509_parser::oid_registry as oid;
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

use super::CertificateFacts;

/// The extensions that may be critical, because all clients support them.
const KNOWN: [Oid<'static>; 4] = [
    oid::OID_X509_EXT_BASIC_CONSTRAINTS,
    oid::OID_X509_EXT_KEY_USAGE,
    oid::OID_X509_EXT_EXTENDED_KEY_USAGE,
    oid::OID_X509_EXT_SUBJECT_ALT_NAME,
];

/// The signature algorithms that Go accepts (`crypto/x509`: neither SHA-1 nor MD5).
const SIGNATURES: [Oid<'static>; 7] = [
    oid::OID_SIG_ECDSA_WITH_SHA256,
    oid::OID_SIG_ECDSA_WITH_SHA384,
    oid::OID_SIG_ECDSA_WITH_SHA512,
    oid::OID_PKCS1_SHA256WITHRSA,
    oid::OID_PKCS1_SHA384WITHRSA,
    oid::OID_PKCS1_SHA512WITHRSA,
    oid::OID_SIG_ED25519,
];

/// The properties of a certificate that [`CertificateFacts`] does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The object identifiers of the subject attributes other than CN and O.
    pub other_subject_parts: Vec<String>,
    /// The key usages with their names in the Kubernetes API. `None` without that extension.
    pub key_usages: Option<Vec<&'static str>>,
    /// Whether the certificate has CA:TRUE.
    pub is_ca: bool,
    /// The object identifiers of critical extensions that some clients do not support.
    pub unknown_critical: Vec<String>,
    /// Whether Go accepts the signature algorithm.
    pub is_strongly_signed: bool,
}

impl Profile {
    /// Parses the certificate. Returns `None` if an extension can't be parsed or occurs twice.
    #[must_use]
    pub fn of(facts: &CertificateFacts) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(&facts.der).ok()?;
        // Fails if an extension occurs twice.
        certificate.extensions_map().ok()?;
        let parts = certificate.subject().iter_attributes().map(AttributeTypeAndValue::attr_type);
        let other =
            parts.filter(|part| **part != oid::OID_X509_COMMON_NAME && **part != oid::OID_X509_ORGANIZATION_NAME);
        let usages = certificate.key_usage().ok()?.map(|extension| names(*extension.value));
        let is_unknown = |extension: &&X509Extension<'_>| extension.critical && !KNOWN.contains(&extension.oid);
        Some(Self {
            other_subject_parts: other.map(Oid::to_id_string).collect(),
            is_ca: certificate.basic_constraints().ok()?.is_some_and(|extension| extension.value.ca),
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

/// Returns the names in the Kubernetes API (`certificates/v1`, `KeyUsage`), which cert-manager uses too.
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
