//! What a certificate says: read with a parser that merges nothing.

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

/// What Keyplane wants to know of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The whole certificate.
    pub der: Vec<u8>,
    /// CN and O. `None` where there is not exactly one CN, which Keyplane never issues.
    pub subject: Option<Subject>,
    /// The issuer's common name; empty if it has none.
    pub issuer: String,
    /// The serial number as `openssl x509 -serial` prints it.
    pub serial: String,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// DNS names and addresses, sorted. `None` where there is a name of another kind.
    pub alternative_names: Option<Vec<AlternativeName>>,
    /// What it is for, sorted. `None` where there is another use than client and server.
    pub extended_usages: Option<Vec<ExtendedUsage>>,
    /// CA:TRUE, and the key usage Certificate Sign if it names any.
    pub may_sign_certificates: bool,
    /// The identifier of its key (RFC 5280, 4.2.1.2), in lower-case hexadecimal.
    pub subject_key_id: Option<String>,
    /// How many authorities may stand between it and a leaf. `None` means any number.
    pub path_length: Option<u32>,
    /// The public key as DER.
    pub subject_public_key_info: Vec<u8>,
}

/// The name by which Pods ask for an API server; kubeadm and the hard way put it into each one's certificate.
const API_SERVER_NAME: &str = "kubernetes.default.svc";

impl CertificateFacts {
    /// Whether it is an API server's. Whatever else answers at an address, such as a proxy that looks into TLS, has none with
    /// that name.
    #[must_use]
    pub fn is_of_api_server(&self) -> bool {
        let is_name = |name: &AlternativeName| matches!(name, AlternativeName::Dns(name) if name == API_SERVER_NAME);
        self.alternative_names.iter().flatten().any(is_name)
    }

    /// Reads a certificate; nothing if it is none.
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

    /// Whether both certify the same key for the same name.
    #[must_use]
    pub fn is_for_key_of(&self, other: &Self) -> bool {
        self.subject == other.subject && self.subject_public_key_info == other.subject_public_key_info
    }

    /// The SHA-256 of the whole certificate, in lower-case hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.der);
        hexadecimal(digest.as_ref())
    }

    /// Whether it is another certificate for the same authority: its key, name and key identifier are the same, so that
    /// what is below the one is below the other.
    #[must_use]
    pub fn is_renewal_of(&self, other: &Self) -> bool {
        let parsed = (X509Certificate::from_der(&self.der), X509Certificate::from_der(&other.der));
        let (Ok((_, one)), Ok((_, two))) = parsed else { return false };
        one.subject().as_raw() == two.subject().as_raw()
            && self.subject_public_key_info == other.subject_public_key_info
            && self.subject_key_id == other.subject_key_id
    }

    /// Whether the authority signed this certificate, as far as its name and the signature tell: a signature of a kind
    /// that can't be verified here is left to those who can.
    pub(super) fn may_be_signed_by(&self, authority: &Self) -> bool {
        let parsed = (X509Certificate::from_der(&self.der), X509Certificate::from_der(&authority.der));
        let (Ok((_, certificate)), Ok((_, authority))) = parsed else { return false };
        let verified = certificate.verify_signature(Some(authority.public_key()));
        certificate.issuer().as_raw() == authority.subject().as_raw()
            && matches!(verified, Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm))
    }

    /// Whether certificates below this one may be for these uses: one that names uses leaves those below it no others.
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

    /// Whether it allows certain names alone in certificates below it.
    pub(super) fn constrains_names(&self) -> bool {
        let parsed = X509Certificate::from_der(&self.der);
        parsed.is_ok_and(|(_, certificate)| !matches!(certificate.name_constraints(), Ok(None)))
    }

    /// Whether it is an authority's that has signed its own.
    #[must_use]
    pub fn is_self_signed(&self) -> bool {
        self.is_signed_by(self)
    }

    /// The identifier of the key, as bytes.
    #[must_use]
    pub fn key_identifier(&self) -> Option<Vec<u8>> {
        let (_, certificate) = X509Certificate::from_der(&self.der).ok()?;
        key_identifier(&certificate).map(<[u8]>::to_vec)
    }

    /// Whether the authority signed this certificate: its name is the issuer's, and its key verifies the signature.
    #[must_use]
    pub fn is_signed_by(&self, authority: &Self) -> bool {
        let parsed = (X509Certificate::from_der(&self.der), X509Certificate::from_der(&authority.der));
        let (Ok((_, certificate)), Ok((_, authority))) = parsed else { return false };
        certificate.issuer().as_raw() == authority.subject().as_raw()
            && certificate.verify_signature(Some(authority.public_key())).is_ok()
    }
}

/// Every certificate in a PEM text, in order; `what` names it in the error.
///
/// # Errors
/// If there is none, or one of them can't be read.
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

/// The first certificate in a PEM text: in a bundle the one that signs, as kubeadm reads it.
///
/// # Errors
/// If there is none.
pub fn first_certificate(what: &str, pem: &str) -> Result<CertificateFacts, PkiError> {
    let mut certificates = certificates_in(what, pem)?;
    Ok(certificates.swap_remove(0))
}

/// The first certificate of a PEM text, as it stands there.
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

/// The identifier of the key that signed a certificate, in lower-case hexadecimal, if the certificate names it.
#[must_use]
pub fn authority_key_id(facts: &CertificateFacts) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(&facts.der).ok()?;
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(identifier) => Some(hexadecimal(identifier.key_identifier.as_ref()?.0)),
        _ => None,
    })
}

/// CN and O of a name; nothing where there is not exactly one CN.
pub(super) fn common_name_and_organizations(name: &X509Name<'_>) -> Option<Subject> {
    let mut names = name.iter_common_name();
    let common_name = names.next()?.as_str().ok()?.to_owned();
    let organizations = name.iter_organization();
    let organizations = organizations.map(|value| value.as_str().ok().map(str::to_owned)).collect::<Option<_>>()?;
    names.next().is_none().then_some(Subject { common_name, organizations })
}

fn serial(certificate: &X509Certificate<'_>) -> String {
    let bytes = certificate.raw_serial();
    // A leading zero byte keeps the number positive and isn't printed.
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

/// DNS names and addresses; nothing where there is a name of another kind.
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
