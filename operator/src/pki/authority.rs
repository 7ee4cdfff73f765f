//! A certificate authority: made, loaded, and used to sign.

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::KeyAlgorithm;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyUsagePurpose};

use super::certificate::{alternative_names, parameters, to_pem};
use super::{AlternativeName, CertificateFacts, PkiError, PrivateKey, Subject, first_certificate};

/// A certificate authority whose key is at hand.
#[derive(Debug)]
pub struct Authority {
    name: String,
    certificate_pem: String,
    facts: CertificateFacts,
    key: PrivateKey,
}

impl Authority {
    /// Takes an authority from its PEM texts; `name` is for messages.
    ///
    /// # Errors
    /// If the texts can't be read, don't belong together, or are no authority's.
    pub fn load(name: &str, certificate_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let facts = first_certificate(name, certificate_pem)?;
        let key = PrivateKey::from_pem(name, key_pem)?;
        if facts.subject_public_key_info != key.subject_public_key_info() {
            return Err(PkiError::KeyMismatch { what: name.to_owned() });
        }
        if !facts.may_sign_certificates {
            return Err(PkiError::NoAuthority { what: name.to_owned() });
        }
        Ok(Self { name: name.to_owned(), certificate_pem: certificate_pem.to_owned(), facts, key })
    }

    /// The name for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The certificate, or the bundle that begins with it, as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// What the certificate says.
    #[must_use]
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    pub(super) fn sign(&self, params: &CertificateParams, subject_key: &PrivateKey) -> Result<Certificate, PkiError> {
        let failed = |source| PkiError::Crypto { what: "signing a certificate", source };
        let certificate = self.facts.der.as_slice().into();
        let issuer = Issuer::from_ca_cert_der(&certificate, self.key.signing_key()).map_err(failed)?;
        params.signed_by(subject_key.signing_key(), &issuer).map_err(failed)
    }
}

/// Has one authority sign another one's name and key, so that who trusts the first alone also trusts what the second
/// signs. `None` where the first may not sign authorities.
///
/// # Errors
/// If the certificate can't be made.
pub fn cross_sign(subject: &Authority, issuer: &Authority, not_before: Timestamp) -> Result<Option<String>, PkiError> {
    if issuer.facts.path_length == Some(0) || issuer.facts.not_after <= not_before {
        return Ok(None);
    }
    let name = subject.facts.subject.clone().unwrap_or_else(|| Subject::user(&subject.name));
    let mut params = parameters(&name, not_before, subject.facts.not_after.min(issuer.facts.not_after))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    params.use_authority_key_identifier_extension = true;
    Ok(Some(to_pem(&issuer.sign(&params, &subject.key)?)))
}

/// Makes a self-signed authority with kubeadm's fields: the common name also as a DNS name, key usages digital
/// signature, key encipherment and certificate sign, and no authority key identifier.
///
/// # Errors
/// If the key can't be made.
pub fn mint_authority(
    common_name: &str,
    algorithm: KeyAlgorithm,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<Authority, PkiError> {
    let key = PrivateKey::generate(algorithm)?;
    let subject = Subject::user(common_name);
    let mut params = parameters(&subject, not_before, not_after)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    params.subject_alt_names = alternative_names(&[AlternativeName::Dns(common_name.to_owned())])?;
    let certificate = params
        .self_signed(key.signing_key())
        .map_err(|source| PkiError::Crypto { what: "signing an authority", source })?;
    Authority::load(common_name, &to_pem(&certificate), key.pem())
}
