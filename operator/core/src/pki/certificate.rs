//! What a certificate below an authority says.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::Subject;

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

/// As PEM with lines as Go, openssl and kubeadm write them.
#[must_use]
pub fn to_pem(label: &str, der: &[u8]) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), lines)
}
