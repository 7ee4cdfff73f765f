//! DNS names and addresses in one canonical form each, so that equal things compare equal and nothing else does.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A DNS name in its canonical form: lower case, no dot at its end.
///
/// TLS clients compare names without regard to case, and a dot at the end means the same name: both are folded away, or
/// `KUBERNETES.default.svc.` would pass where `kubernetes.default.svc` doesn't (a finding of the review of
/// GHSA-87pw-5j2g-6376). Everything else that is not a plain host name is refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(String);

/// Why a text is no host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has a `*`.
    #[error("a wildcard stands for names of other machines")]
    Wildcard,
    /// Clients may take it for an IP address.
    #[error("clients may read it as an IP address")]
    LooksLikeAddress,
    /// It is not made of letters, digits, hyphens and dots, or is too long.
    #[error("a host name has labels of 1 to 63 letters, digits and inner hyphens, and 253 characters at most")]
    NotAHostName,
}

impl DnsName {
    /// Reads a host name.
    ///
    /// # Errors
    /// If it is none; the error says why.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.contains('*') {
            return Err(NameError::Wildcard);
        }
        let canonical = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        // Before the form: an IPv6 address is no host name either, but this says more.
        if looks_like_address(&canonical) {
            return Err(NameError::LooksLikeAddress);
        }
        if !is_subdomain(&canonical) {
            return Err(NameError::NotAHostName);
        }
        Ok(Self(canonical))
    }

    /// The canonical form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name is `domain` or ends in `.domain`.
    #[must_use]
    pub fn is_within(&self, domain: &str) -> bool {
        self.0.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// The first label.
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

/// Whether the text is a DNS subdomain (RFC 1123, lower case), as the names of Nodes are.
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

/// Whether some client reads the text as an address: the usual notations, and those of `inet_aton` (`127.1`,
/// `2130706433`, `0x7f000001`, `0177.0.0.1`), which are all made of numbers only.
fn looks_like_address(text: &str) -> bool {
    let is_number = |label: &str| {
        label.strip_prefix("0x").map_or_else(
            || !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit()),
            |hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        )
    };
    text.parse::<IpAddr>().is_ok() || text.split('.').all(is_number)
}

/// Reads an address and brings it into its canonical form: an IPv4-mapped IPv6 address is that IPv4 address.
///
/// Zero-padded IPv4 addresses are no addresses: `010.0.0.1` is 8.0.0.1 to some and 10.0.0.1 to others. Neither are
/// addresses with a zone (`fe80::1%eth0`).
#[must_use]
pub fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Why the octets of an IP name in a certificate are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OctetsError {
    /// Neither 4 nor 16.
    #[error("an address has 4 or 16 octets, not {0}")]
    Length(usize),
    /// An IPv4 address dressed up as an IPv6 address. Kubelets write four octets; who writes sixteen wants two readers
    /// to see two addresses.
    #[error("{0} is an IPv4 address written as an IPv6 address")]
    Mapped(Ipv6Addr),
}

/// Reads the octets of an IP name in a certificate.
///
/// # Errors
/// If they are no address, or one that has another, canonical form.
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

/// Whether a name matches a pattern in which `*` stands for any characters but a dot, also for none.
#[must_use]
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    let (patterns, labels) = (pattern.split('.'), name.split('.'));
    patterns.clone().count() == labels.clone().count()
        && patterns.zip(labels).all(|(pattern, label)| label_matches(pattern, label))
}

/// The leftmost place for each piece between two stars leaves the most room for the pieces after it, so one pass is
/// enough: no pattern makes this slow.
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
