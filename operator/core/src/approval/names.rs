//! Canonical forms of DNS names and IP addresses, so that equal names and addresses compare as equal.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A DNS name in canonical form: lower case, no trailing dot.
///
/// TLS clients ignore case, and a trailing dot does not change the name. Both are normalized; otherwise
/// `KUBERNETES.default.svc.` would pass where `kubernetes.default.svc` does not (a finding of the review of
/// GHSA-87pw-5j2g-6376). All other texts that are not plain host names are rejected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(String);

/// The reason why a text is not a host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text has a `*`.
    #[error("a wildcard covers names of other nodes")]
    Wildcard,
    /// The text looks like an IP address to some clients.
    #[error("clients may read it as an IP address")]
    LooksLikeAddress,
    /// The text does not consist of letters, digits, hyphens and dots, or is too long.
    #[error("a host name has labels of 1 to 63 letters, digits and inner hyphens, and 253 characters at most")]
    NotAHostName,
}

impl DnsName {
    /// Parses a host name.
    ///
    /// # Errors
    /// If the text is not a host name; the error has the reason.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.contains('*') {
            return Err(NameError::Wildcard);
        }
        let canonical = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        // Checked before the form, because this error is more precise for IPv6 addresses.
        if looks_like_address(&canonical) {
            return Err(NameError::LooksLikeAddress);
        }
        if !is_subdomain(&canonical) {
            return Err(NameError::NotAHostName);
        }
        Ok(Self(canonical))
    }

    /// Returns the canonical form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the name is `domain` or ends in `.domain`.
    #[must_use]
    pub fn is_within(&self, domain: &str) -> bool {
        self.0.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// Returns the first label.
    #[must_use]
    pub fn first_label(&self) -> &str {
        self.0.split_once('.').map_or(self.0.as_str(), |(first, _)| first)
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Returns whether the text is a DNS subdomain (RFC 1123, lower case), the form of Node names.
#[must_use]
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Returns whether some client reads the text as an address: the usual notations, and those of `inet_aton` (`127.1`,
/// `2130706433`, `0x7f000001`, `0177.0.0.1`), which consist of numbers only.
fn looks_like_address(text: &str) -> bool {
    let is_number = |label: &str| {
        label.strip_prefix("0x").map_or_else(
            || !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit()),
            |hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        )
    };
    text.parse::<IpAddr>().is_ok() || text.split('.').all(is_number)
}

/// Parses an address into its canonical form. An IPv4-mapped IPv6 address becomes the IPv4 address.
///
/// Zero-padded IPv4 addresses are rejected, because some programs read `010.0.0.1` as 8.0.0.1 and others as 10.0.0.1.
/// Addresses with a zone (`fe80::1%eth0`) are rejected too.
#[must_use]
pub fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// The reason why the octets of an IP name in a CSR are rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OctetsError {
    /// Neither 4 nor 16.
    #[error("an address has 4 or 16 octets, not {0}")]
    Length(usize),
    /// An IPv4-mapped IPv6 address. Kubelets write four octets; sixteen octets suggest an attempt to make parsers see
    /// different addresses.
    #[error("{0} is an IPv4 address written as an IPv6 address")]
    Mapped(Ipv6Addr),
}

/// Parses the octets of an IP name in a CSR.
///
/// # Errors
/// If the octets are not an address in canonical form.
pub fn address_of_octets(octets: &[u8]) -> Result<IpAddr, OctetsError> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Ok(IpAddr::V4(Ipv4Addr::from(octets)));
    }
    let octets = <[u8; 16]>::try_from(octets).map_err(|_| OctetsError::Length(octets.len()))?;
    let address = Ipv6Addr::from(octets);
    match address.to_ipv4_mapped() {
        Some(_) => Err(OctetsError::Mapped(address)),
        None => Ok(IpAddr::V6(address)),
    }
}

/// Returns whether a name matches a pattern in which `*` stands for any number of characters except dots.
#[must_use]
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    let (patterns, labels) = (pattern.split('.'), name.split('.'));
    patterns.clone().count() == labels.clone().count()
        && patterns.zip(labels).all(|(pattern, label)| label_matches(pattern, label))
}

/// Matches one label in a single pass. The leftmost position of each piece between two stars leaves the most room for
/// the next pieces, so no pattern is slow.
fn label_matches(pattern: &str, label: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == label };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut label) = label.strip_prefix(head).and_then(|label| label.strip_suffix(tail)) else { return false };
    for piece in middle.split('*') {
        match label.find(piece) {
            Some(at) => label = &label[at + piece.len()..],
            None => return false,
        }
    }
    true
}
