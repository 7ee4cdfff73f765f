//! Issues leaf certificates.

use keyplane_core::pki::{CertificateAuthority, CertificateTemplate, ExtendedUsage, PkiError, PrivateKey, to_pem};
use rcgen::{CustomExtension, ExtendedKeyUsagePurpose, IsCa};

use super::authority::sign;
use super::fields::{Field, replace_fields};
use super::parameters::{alternative_names, parameters};
use super::subject::subject_der;

/// Issues a certificate and returns the PEM text.
///
/// # Errors
/// If the CA is expired, or a name is not valid in a certificate.
pub fn issue(template: &CertificateTemplate, key: &PrivateKey, ca: &CertificateAuthority) -> Result<String, PkiError> {
    let ca_expiry = ca.facts().not_after;
    if ca_expiry <= template.not_before {
        return Err(PkiError::CaExpired { ca: ca.name().to_owned() });
    }
    let mut params = parameters(&template.subject, template.not_before, template.not_after.min(ca_expiry))?;
    params.subject_alt_names = alternative_names(&template.alternative_names)?;
    params.extended_key_usages = template
        .extended_usages
        .iter()
        .map(|usage| match usage {
            ExtendedUsage::ServerAuth => ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedUsage::ClientAuth => ExtendedKeyUsagePurpose::ClientAuth,
        })
        .collect();
    params.use_authority_key_identifier_extension = true;
    // With its own CA:FALSE, rcgen adds a subject key identifier, which kubeadm's leaf certificates don't have. The
    // content is an empty SEQUENCE, because DER omits a FALSE that is the default.
    params.is_ca = IsCa::NoCa;
    let mut basic_constraints = CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 0x00]);
    basic_constraints.set_criticality(true);
    params.custom_extensions = vec![basic_constraints];
    let mut certificate = sign(ca, &params, key)?;
    if template.subject.organizations.len() > 1 {
        certificate =
            replace_fields(&certificate, [(Field::Subject, subject_der(&template.subject))], ca.signing_key()?)?;
    }
    Ok(to_pem("CERTIFICATE", &certificate))
}
