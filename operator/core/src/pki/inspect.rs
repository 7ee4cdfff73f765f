//! Reads certificates. The parser keeps duplicate attributes and extensions instead of merging them.

use std::net::IpAddr;

use aws_lc_rs::digest;
use k8s_openapi::jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::{GeneralName, ParsedExtension, SubjectAlternativeName};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::{AlternativeName, ExtendedUsage, PkiError, Subject};
use crate::checksum::hexadecimal;

/// The content of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The certificate as DER.
    pub der: Vec<u8>,
    /// CN and O. `None` unless there is exactly one CN. Keyplane issues no other certificates.
    pub subject: Option<Subject>,
    /// The common name of the issuer; empty if the issuer has no common name.
    pub issuer: String,
    /// The serial number in the format of `openssl x509 -serial`.
    pub serial: String,
    /// The start of the validity.
    pub not_before: Timestamp,
    /// The expiry.
    pub not_after: Timestamp,
    /// DNS names and IP addresses, sorted. `None` if there is a name of another kind.
    pub alternative_names: Option<Vec<AlternativeName>>,
    /// The extended key usages, sorted. `None` if there is a usage other than client and server authentication.
    pub extended_usages: Option<Vec<ExtendedUsage>>,
    /// Whether the certificate has CA:TRUE and, if key usages are listed, Certificate Sign.
    pub may_sign_certificates: bool,
    /// The subject key identifier (RFC 5280, 4.2.1.2), in lower-case hexadecimal.
    pub subject_key_id: Option<String>,
    /// The maximum number of intermediate CAs below this CA. `None` means no limit.
    pub path_length: Option<u32>,
    /// The public key as DER.
    pub subject_public_key_info: Vec<u8>,
}

/// The DNS name of the API server for Pods. kubeadm and the hard way put the name into each API server certificate.
const API_SERVER_NAME: &str = "kubernetes.default.svc";

impl CertificateFacts {
    /// Returns whether this is the certificate of an API server. Other servers at the same address, such as a proxy
    /// that terminates TLS, do not have the DNS name.
    #[must_use]
    pub fn is_of_api_server(&self) -> bool {
        let is_name = |name: &AlternativeName| matches!(name, AlternativeName::Dns(name) if name == API_SERVER_NAME);
        self.alternative_names.iter().flatten().any(is_name)
    }

    /// Parses a certificate. Returns `None` if the bytes are not a certificate.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let basic_constraints = certificate.basic_constraints().ok()?;
        let key_usage = certificate.key_usage().ok()?;
        Some(Self {
            der: der.to_vec(),
            subject: common_name_and_organizations(certificate.subject()),
            issuer: certificate
                .issuer()
                .iter_common_name()
                .next()
                .and_then(|name| name.as_str().ok())
                .unwrap_or_default()
                .to_owned(),
            serial: serial(&certificate),
            not_before: Timestamp::from_second(certificate.validity().not_before.timestamp()).ok()?,
            not_after: Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?,
            alternative_names: alternative_names(&certificate),
            extended_usages: extended_usages(&certificate),
            may_sign_certificates: basic_constraints.as_ref().is_some_and(|extension| extension.value.ca)
                && key_usage.is_none_or(|extension| extension.value.key_cert_sign()),
            subject_key_id: subject_key_id(&certificate),
            path_length: basic_constraints.and_then(|extension| extension.value.path_len_constraint),
            subject_public_key_info: certificate.public_key().raw.to_vec(),
        })
    }

    /// Returns whether both certificates have the same subject and public key.
    #[must_use]
    pub fn is_for_key_of(&self, other: &Self) -> bool {
        self.subject == other.subject && self.subject_public_key_info == other.subject_public_key_info
    }

    /// Returns the SHA-256 fingerprint of the certificate, in lower-case hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.der);
        hexadecimal(digest.as_ref())
    }

    /// Returns whether this is another certificate of the same CA. Public key, name and key identifier are the same, so
    /// each certificate that chains to one also chains to the other.
    #[must_use]
    pub fn is_renewal_of(&self, other: &Self) -> bool {
        let parsed = (X509Certificate::from_der(&self.der), X509Certificate::from_der(&other.der));
        let (Ok((_, one)), Ok((_, two))) = parsed else { return false };
        one.subject().as_raw() == two.subject().as_raw()
            && self.subject_public_key_info == other.subject_public_key_info
            && self.subject_key_id == other.subject_key_id
    }

    /// Returns whether the CA signed this certificate, judged by name and signature. If the library does not support
    /// the signature algorithm, the name alone decides.
    pub(super) fn may_be_signed_by(&self, ca: &Self) -> bool {
        let parsed = (X509Certificate::from_der(&self.der), X509Certificate::from_der(&ca.der));
        let (Ok((_, certificate)), Ok((_, ca))) = parsed else { return false };
        let verified = certificate.verify_signature(Some(ca.public_key()));
        certificate.issuer().as_raw() == ca.subject().as_raw()
            && matches!(verified, Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm))
    }

    /// Returns whether certificates below this CA may have these usages. Extended key usages of a CA limit the
    /// certificates below the CA.
    pub(super) fn allows(&self, usages: &[ExtendedUsage]) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(&self.der) else { return false };
        let Ok(named) = certificate.extended_key_usage() else { return false };
        named.is_none_or(|named| {
            let has = |usage: &ExtendedUsage| match usage {
                ExtendedUsage::ServerAuth => named.value.server_auth,
                ExtendedUsage::ClientAuth => named.value.client_auth,
            };
            named.value.any || usages.iter().all(has)
        })
    }

    /// Returns whether the CA certificate has name constraints.
    pub(super) fn constrains_names(&self) -> bool {
        let parsed = X509Certificate::from_der(&self.der);
        parsed.is_ok_and(|(_, certificate)| !matches!(certificate.name_constraints(), Ok(None)))
    }

    /// Returns whether the certificate is signed with its own key.
    #[must_use]
    pub fn is_self_signed(&self) -> bool {
        self.is_signed_by(self)
    }

    /// Returns the subject key identifier as bytes.
    #[must_use]
    pub fn key_identifier(&self) -> Option<Vec<u8>> {
        let (_, certificate) = X509Certificate::from_der(&self.der).ok()?;
        key_identifier(&certificate).map(<[u8]>::to_vec)
    }

    /// Returns whether the CA signed this certificate: issuer name and signature both match.
    #[must_use]
    pub fn is_signed_by(&self, ca: &Self) -> bool {
        let parsed = (X509Certificate::from_der(&self.der), X509Certificate::from_der(&ca.der));
        let (Ok((_, certificate)), Ok((_, ca))) = parsed else { return false };
        certificate.issuer().as_raw() == ca.subject().as_raw()
            && certificate.verify_signature(Some(ca.public_key())).is_ok()
    }
}

/// Parses all certificates in a PEM text, in order. `what` names the text in the error.
///
/// # Errors
/// If the text has no certificate, or one of them can't be parsed.
pub fn certificates_in(what: &str, pem: &str) -> Result<Vec<CertificateFacts>, PkiError> {
    let error = || PkiError::NoCertificate { what: what.to_owned() };
    let mut certificates = vec![];
    for block in Pem::iter_from_buffer(pem.as_bytes()) {
        let block = block.map_err(|_| error())?;
        if block.label != "CERTIFICATE" {
            return Err(error());
        }
        certificates.push(CertificateFacts::from_der(&block.contents).ok_or_else(error)?);
    }
    if certificates.is_empty() { Err(error()) } else { Ok(certificates) }
}

/// Parses the first certificate in a PEM text. In a CA bundle that is the signing CA, as in kubeadm.
///
/// # Errors
/// If the text has no certificate, or one of them can't be parsed.
pub fn first_certificate(what: &str, pem: &str) -> Result<CertificateFacts, PkiError> {
    let mut certificates = certificates_in(what, pem)?;
    Ok(certificates.swap_remove(0))
}

/// Returns the first certificate block of a PEM text, unchanged.
#[must_use]
pub fn first_block(pem: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----\n";
    pem.find(END).map_or(pem, |at| &pem[..at + END.len()])
}

fn subject_key_id(certificate: &X509Certificate<'_>) -> Option<String> {
    key_identifier(certificate).map(hexadecimal)
}

fn key_identifier<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    })
}

/// Returns the authority key identifier in lower-case hexadecimal, if the certificate has one.
#[must_use]
pub fn authority_key_id(facts: &CertificateFacts) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(&facts.der).ok()?;
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(identifier) => Some(hexadecimal(identifier.key_identifier.as_ref()?.0)),
        _ => None,
    })
}

/// Returns CN and O of a name, or `None` unless there is exactly one CN.
pub(super) fn common_name_and_organizations(name: &X509Name<'_>) -> Option<Subject> {
    let mut names = name.iter_common_name();
    let common_name = names.next()?.as_str().ok()?.to_owned();
    let organizations = name.iter_organization();
    let organizations = organizations.map(|value| value.as_str().ok().map(str::to_owned)).collect::<Option<_>>()?;
    names.next().is_none().then_some(Subject { common_name, organizations })
}

fn serial(certificate: &X509Certificate<'_>) -> String {
    let bytes = certificate.raw_serial();
    // A leading zero byte only keeps the number positive, so openssl does not print the byte.
    let bytes = match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        _ => bytes,
    };
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().concat()
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Option<Vec<AlternativeName>> {
    let Some(extension) = certificate.subject_alternative_name().ok()? else { return Some(vec![]) };
    let mut names = names_in(extension.value)?;
    names.sort();
    Some(names)
}

/// Returns the DNS names and IP addresses, or `None` if there is a name of another kind.
pub(super) fn names_in(value: &SubjectAlternativeName<'_>) -> Option<Vec<AlternativeName>> {
    let names = value.general_names.iter().map(|name| match name {
        GeneralName::DNSName(name) => Some(AlternativeName::Dns((*name).to_owned())),
        GeneralName::IPAddress(bytes) => address(bytes).map(AlternativeName::Ip),
        _ => None,
    });
    names.collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn extended_usages(certificate: &X509Certificate<'_>) -> Option<Vec<ExtendedUsage>> {
    let Some(extension) = certificate.extended_key_usage().ok()? else { return Some(vec![]) };
    let usage = extension.value;
    let others = usage.any || usage.code_signing || usage.email_protection || usage.time_stamping || usage.ocsp_signing;
    if others || !usage.other.is_empty() {
        return None;
    }
    let mut usages = vec![];
    if usage.server_auth {
        usages.push(ExtendedUsage::ServerAuth);
    }
    if usage.client_auth {
        usages.push(ExtendedUsage::ClientAuth);
    }
    Some(usages)
}
