//! One certificate below an authority.

use aws_lc_rs::rand;
use k8s_openapi::jiff::Timestamp;
use keyplane_core::pki::{
    AlternativeName, Authority, CertificateOrder, ExtendedUsage, PkiError, PrivateKey, Subject, to_pem,
};
use rcgen::{
    CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::authority::sign;
use super::fields::{Field, signed_again};
use super::subject::{distinguished_name, subject_der};

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
    let mut certificate = sign(authority, &params, key)?;
    if order.subject.organizations.len() > 1 {
        certificate =
            signed_again(&certificate, [(Field::Subject, subject_der(&order.subject))], authority.signing_key()?)?;
    }
    Ok(to_pem("CERTIFICATE", &certificate))
}

/// What leaves and authorities have in common. rcgen's own defaults (1975 to 4096, a serial made from the key, no
/// extension) are all replaced.
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

/// 127 random bits: RFC 5280 asks for at most 20 octets and a positive number, the CA/Browser Forum for 64 random bits.
fn random_serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0_u8; 16];
    rand::fill(&mut bytes).map_err(|_| PkiError::Random)?;
    // Positive, and never shortened by a leading zero byte.
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
