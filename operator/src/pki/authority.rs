//! A certificate authority: made, loaded, and used to sign.

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::KeyAlgorithm;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyUsagePurpose};

use super::certificate::{alternative_names, parameters, to_pem};
use super::{AlternativeName, CertificateFacts, PkiError, PrivateKey, Subject, first_certificate};

/// A certificate authority: one whose key is at hand, or one whose owner signs outside.
#[derive(Debug)]
pub struct Authority {
    name: String,
    certificate_pem: String,
    facts: CertificateFacts,
    // Not there where its owner signs outside.
    key: Option<PrivateKey>,
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
        Self::known(name, certificate_pem, facts, Some(key))
    }

    /// Takes an authority whose owner signs outside, by its certificate alone.
    ///
    /// # Errors
    /// If the text can't be read, or is no authority's.
    pub fn signed_outside(name: &str, certificate_pem: &str) -> Result<Self, PkiError> {
        Self::known(name, certificate_pem, first_certificate(name, certificate_pem)?, None)
    }

    fn known(
        name: &str,
        certificate_pem: &str,
        facts: CertificateFacts,
        key: Option<PrivateKey>,
    ) -> Result<Self, PkiError> {
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

    /// The private key; nothing where its owner signs outside.
    #[must_use]
    pub fn key(&self) -> Option<&PrivateKey> {
        self.key.as_ref()
    }

    /// The private key, to sign with.
    pub(super) fn signing_key(&self) -> Result<&PrivateKey, PkiError> {
        self.key.as_ref().ok_or_else(|| PkiError::SignedOutside { authority: self.name.clone() })
    }

    /// What the certificate says.
    #[must_use]
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    pub(super) fn sign(&self, params: &CertificateParams, subject_key: &PrivateKey) -> Result<Certificate, PkiError> {
        let failed = |source| PkiError::Crypto { what: "signing a certificate", source };
        let certificate = self.facts.der.as_slice().into();
        let issuer = Issuer::from_ca_cert_der(&certificate, self.signing_key()?.signing_key()).map_err(failed)?;
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
    Ok(Some(to_pem(&issuer.sign(&params, subject.signing_key()?)?)))
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use super::super::{CertificateOrder, ExtendedUsage, issue};
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn openssl_verifies(root: &str, others: &str, leaf: &str) -> bool {
        let file = |content: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(content.as_bytes()).unwrap();
            file
        };
        let files = [root, others, leaf].map(file);
        let [root, others, leaf] = [0, 1, 2].map(|at| files[at].path());
        let mut verify = Command::new("openssl");
        verify.args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"]).arg(root);
        verify.arg("-untrusted").arg(others).arg(leaf).output().unwrap().status.success()
    }

    #[test]
    fn who_trusts_the_old_authority_alone_trusts_a_leaf_of_the_new_one_by_the_cross_certificate() {
        let now = Timestamp::now().as_second();
        let ages = [(KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256), (KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048)];
        for (before, after) in ages {
            // One name, as kubeadm's authorities have it from one rotation to the next.
            let old = mint_authority("kubernetes", before, at(now - 90), at(now + 1_000)).unwrap();
            let new = mint_authority("kubernetes", after, at(now - 90), at(now + 9_000)).unwrap();
            let cross = cross_sign(&new, &old, at(now - 60)).unwrap().unwrap();
            let order = CertificateOrder {
                subject: Subject::user("kube-apiserver"),
                alternative_names: vec![AlternativeName::parse("api.example")],
                extended_usages: vec![ExtendedUsage::ServerAuth],
                not_before: at(now - 60),
                not_after: at(now + 500),
            };
            let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
            let leaf = issue(&order, &key, &new).unwrap();
            assert!(openssl_verifies(old.certificate_pem(), &cross, &leaf), "{before:?} {after:?}");
            assert!(openssl_verifies(new.certificate_pem(), &cross, &leaf), "{before:?} {after:?}");
            assert!(!openssl_verifies(old.certificate_pem(), new.certificate_pem(), &leaf), "without it nobody does");
            let facts = first_certificate("cross", &cross).unwrap();
            assert_eq!(facts.not_after, at(now + 1_000), "it ends with the one that has signed it");
            assert_eq!(facts.subject_public_key_info, new.facts().subject_public_key_info);
        }
    }

    #[test]
    fn an_authority_that_may_sign_none_or_has_ended_signs_no_other_one() {
        let mint = || mint_authority("kubernetes", KeyAlgorithm::EcdsaP256, at(1_000), at(9_000)).unwrap();
        let (mut old, new) = (mint(), mint());
        assert!(cross_sign(&new, &old, at(2_000)).unwrap().is_some());
        assert_eq!(cross_sign(&new, &old, at(9_000)).unwrap(), None);
        old.facts.path_length = Some(0);
        assert_eq!(cross_sign(&new, &old, at(2_000)).unwrap(), None);
        old.facts.path_length = Some(1);
        assert!(cross_sign(&new, &old, at(2_000)).unwrap().is_some());
    }
}
