//! The content of a leaf certificate.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::Subject;

/// A subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlternativeName {
    /// A DNS name.
    Dns(String),
    /// An IP address.
    Ip(IpAddr),
}

impl AlternativeName {
    /// Parses an IP address. Any other text is a DNS name.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Dns(text.to_owned()), Self::Ip)
    }
}

/// An extended key usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExtendedUsage {
    /// TLS servers.
    ServerAuth,
    /// TLS clients.
    ClientAuth,
}

/// The content of a certificate without the key, the issuer and the serial number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateTemplate {
    /// The subject.
    pub subject: Subject,
    /// The subject alternative names in the order of kubeadm: DNS names sorted, then IP addresses.
    pub alternative_names: Vec<AlternativeName>,
    /// The extended key usages.
    pub extended_usages: Vec<ExtendedUsage>,
    /// The start of the validity.
    pub not_before: Timestamp,
    /// The expiry, limited to the expiry of the CA at issuance.
    pub not_after: Timestamp,
}

/// The age of notBefore at issuance, for clocks that differ (kubeadm's `CertificateBackdate`).
pub(super) const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// Returns notBefore and notAfter of a certificate that is issued now.
#[must_use]
pub fn valid_for(now: Timestamp, validity: Duration) -> (Timestamp, Timestamp) {
    // `Timestamp` ends in the year 9999, so a longer validity is cut to that.
    (now.checked_sub(BACKDATE).unwrap_or(now), now.checked_add(validity).unwrap_or(Timestamp::MAX))
}

/// Encodes DER as PEM with LF line endings, like Go, openssl and kubeadm.
#[must_use]
pub fn to_pem(label: &str, der: &[u8]) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), lines)
}
