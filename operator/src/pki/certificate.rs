//! One certificate below an authority.

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::rand;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::fields::{Field, signed_again};
use super::{Authority, PkiError, PrivateKey, Subject};

/// A subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlternativeName {
    /// A DNS name.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl AlternativeName {
    /// Reads an address, or else takes the text as a DNS name.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Dns(text.to_owned()), Self::Ip)
    }
}

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExtendedUsage {
    /// TLS servers.
    ServerAuth,
    /// TLS clients.
    ClientAuth,
}

/// Everything about a certificate but its key, issuer and serial number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateOrder {
    /// Whose certificate it is.
    pub subject: Subject,
    /// Its names, in kubeadm's order: DNS names sorted, then addresses.
    pub alternative_names: Vec<AlternativeName>,
    /// What it is for.
    pub extended_usages: Vec<ExtendedUsage>,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when; cut to the authority's end.
    pub not_after: Timestamp,
}

/// notBefore lies this far back, for clocks that differ (kubeadm's `CertificateBackdate`).
pub(super) const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// notBefore and notAfter of what is issued now.
#[must_use]
pub fn valid_for(now: Timestamp, validity: Duration) -> (Timestamp, Timestamp) {
    // Past the year 9999 there is no timestamp; a certificate that long ends with time itself.
    (now.checked_sub(BACKDATE).unwrap_or(now), now.checked_add(validity).unwrap_or(Timestamp::MAX))
}

/// Issues a certificate, and returns it as PEM.
///
/// # Errors
/// If the authority has ended, or a name can't be in a certificate.
pub fn issue(order: &CertificateOrder, key: &PrivateKey, authority: &Authority) -> Result<String, PkiError> {
    let end = authority.facts().not_after;
    if end <= order.not_before {
        return Err(PkiError::AuthorityEnded { authority: authority.name().to_owned() });
    }
    let mut params = parameters(&order.subject, order.not_before, order.not_after.min(end))?;
    params.subject_alt_names = alternative_names(&order.alternative_names)?;
    params.extended_key_usages = order
        .extended_usages
        .iter()
        .map(|usage| match usage {
            ExtendedUsage::ServerAuth => ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedUsage::ClientAuth => ExtendedKeyUsagePurpose::ClientAuth,
        })
        .collect();
    params.use_authority_key_identifier_extension = true;
    // rcgen's own CA:FALSE comes with a subject key identifier, which kubeadm's leaves don't have. The content is an
    // empty SEQUENCE: in DER a FALSE that is the default is left out.
    params.is_ca = IsCa::NoCa;
    let mut basic_constraints = CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 0x00]);
    basic_constraints.set_criticality(true);
    params.custom_extensions = vec![basic_constraints];
    let mut certificate = authority.sign(&params, key)?;
    if order.subject.organizations.len() > 1 {
        certificate = signed_again(&certificate, [(Field::Subject, order.subject.to_der())], authority.signing_key()?)?;
    }
    Ok(to_pem("CERTIFICATE", &certificate))
}

/// As PEM with lines as Go, openssl and kubeadm write them.
#[must_use]
pub fn to_pem(label: &str, der: &[u8]) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), lines)
}

/// What leaves and authorities have in common. rcgen's own defaults (1975 to 4096, a serial made from the key, no
/// extension) are all replaced.
pub(super) fn parameters(
    subject: &Subject,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject.distinguished_name()?;
    params.not_before = to_time(not_before)?;
    params.not_after = to_time(not_after)?;
    params.serial_number = Some(random_serial()?);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    Ok(params)
}

pub(super) fn alternative_names(names: &[AlternativeName]) -> Result<Vec<SanType>, PkiError> {
    names
        .iter()
        .map(|name| match name {
            AlternativeName::Dns(name) => {
                name.as_str().try_into().map(SanType::DnsName).map_err(|_| PkiError::Name { value: name.clone() })
            }
            AlternativeName::Ip(address) => Ok(SanType::IpAddress(*address)),
        })
        .collect()
}

fn to_time(timestamp: Timestamp) -> Result<OffsetDateTime, PkiError> {
    OffsetDateTime::from_unix_timestamp(timestamp.as_second())
        .map_err(|_| PkiError::Name { value: timestamp.to_string() })
}

/// 127 random bits: RFC 5280 asks for at most 20 octets and a positive number, the CA/Browser Forum for 64 random bits.
fn random_serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0_u8; 16];
    rand::fill(&mut bytes).map_err(|_| PkiError::Random)?;
    // Positive, and never shortened by a leading zero byte.
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
