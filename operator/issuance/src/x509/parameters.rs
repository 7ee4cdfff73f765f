//! The parameters that all certificates have in common, as values of rcgen.

use aws_lc_rs::rand;
use k8s_openapi::jiff::Timestamp;
use keyplane_core::pki::{AlternativeName, PkiError, Subject};
use rcgen::{CertificateParams, KeyUsagePurpose, SanType, SerialNumber};
use time::OffsetDateTime;

use super::subject::distinguished_name;

/// Returns the parameters that leaf and CA certificates have in common. They replace all defaults of rcgen (1975 to
/// 4096, a serial number derived from the key, no extension).
pub(super) fn parameters(
    subject: &Subject,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(subject)?;
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

/// Returns a serial number with 126 random bits. RFC 5280 requires a positive number of at most 20 octets, and the
/// CA/Browser Forum requires 64 random bits.
fn random_serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0_u8; 16];
    rand::fill(&mut bytes).map_err(|_| PkiError::Random)?;
    // Keeps the number positive, and never shortened by a leading zero byte.
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
