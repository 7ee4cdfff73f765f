//! A certificate authority: made, loaded, and used to sign.

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::KeyAlgorithm;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyUsagePurpose};

use super::certificate::{alternative_names, parameters, to_pem};
use super::fields::{Field, field, signed_again};
use super::{AlternativeName, CertificateFacts, PkiError, PrivateKey, Subject, first_certificate};

/// A certificate authority: one whose key is at hand, or one whose owner signs outside.
#[derive(Debug)]
pub struct Authority {
    name: String,
    certificate_pem: String,
    facts: CertificateFacts,
    // Not there where its owner signs outside.
    key: Option<PrivateKey>,
    above: String,
    root: Option<String>,
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
        let (name, certificate_pem) = (name.to_owned(), certificate_pem.to_owned());
        Ok(Self { name, certificate_pem, facts, key, above: String::new(), root: None })
    }

    /// The same with the authorities above it, as PEM: those between it and the root, and the root.
    #[must_use]
    pub fn below(self, above: String, root: Option<String>) -> Self {
        Self { above, root, ..self }
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

    /// The authorities between this one and the root, as PEM: the one that has signed this one first. They are never
    /// trusted, as each of them may have signed others beside this one.
    #[must_use]
    pub fn above(&self) -> &str {
        &self.above
    }

    /// The root above this one, as PEM, if it is known and another one.
    #[must_use]
    pub fn root(&self) -> Option<&str> {
        self.root.as_deref()
    }

    /// What a server presents after a certificate of this authority, for clients that trust the root alone: nothing if it
    /// is one.
    #[must_use]
    pub fn chain(&self) -> String {
        if self.facts.is_self_signed() { String::new() } else { format!("{}{}", self.certificate_pem, self.above) }
    }

    /// Whether both are the same in everything that is written of them.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.facts.der == other.facts.der && self.above == other.above && self.root == other.root
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

    pub(super) fn sign(&self, params: &CertificateParams, subject_key: &PrivateKey) -> Result<Vec<u8>, PkiError> {
        let failed = |source| PkiError::Crypto { what: "signing a certificate", source };
        let certificate = self.facts.der.as_slice().into();
        let key = self.signing_key()?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key.signing_key()).or_else(|_| {
            // Names of other authorities may be such as rcgen does not read.
            let mut params = CertificateParams::default();
            params.key_identifier_method = self.facts.key_id_method();
            Ok(Issuer::new(params, key.signing_key()))
        });
        let made = params.signed_by(subject_key.signing_key(), &issuer.map_err(failed)?).map_err(failed)?;
        // rcgen keeps one attribute of a kind of the issuer's name, and everybody compares names byte by byte.
        let name = field(&self.facts.der, Field::Subject)?;
        if field(made.der(), Field::Issuer)? == name {
            return Ok(made.der().to_vec());
        }
        signed_again(made.der(), [(Field::Issuer, name)], key)
    }
}

/// Has one authority sign another one's name and key, so that who trusts the first alone also trusts what the second
/// signs. `None` where the first may not sign authorities, or its owner signs outside.
///
/// # Errors
/// If the certificate can't be made.
pub fn cross_sign(subject: &Authority, issuer: &Authority, not_before: Timestamp) -> Result<Option<String>, PkiError> {
    if issuer.key.is_none() || issuer.facts.path_length == Some(0) || issuer.facts.not_after <= not_before {
        return Ok(None);
    }
    let (path_length, end) = (subject.facts.path_length, subject.facts.not_after.min(issuer.facts.not_after));
    let mut params = parameters(&Subject::user(&subject.name), not_before, end)?;
    let constraint = path_length.and_then(|length| u8::try_from(length).ok());
    params.is_ca = IsCa::Ca(constraint.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    params.use_authority_key_identifier_extension = true;
    // Certificates of the subject name its key by the identifier that it gives it.
    params.key_identifier_method = subject.facts.key_id_method();
    let cross = issuer.sign(&params, subject.signing_key()?)?;
    let name = field(&subject.facts.der, Field::Subject)?;
    Ok(Some(to_pem("CERTIFICATE", &signed_again(&cross, [(Field::Subject, name)], issuer.signing_key()?)?)))
}

/// Another certificate for an authority that has signed its own: with the same key, name, key identifier and extensions,
/// so that what it has signed stays good with either.
///
/// # Errors
/// If somebody else has signed it.
pub fn renew_authority(
    authority: &Authority,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<Authority, PkiError> {
    if !authority.facts.is_self_signed() {
        return Err(PkiError::NotSelfSigned { authority: authority.name.clone() });
    }
    let key = authority.signing_key()?;
    let failed = |source| PkiError::Crypto { what: "signing an authority", source };
    let like = parameters(&Subject::user(&authority.name), not_before, not_after)?;
    let like = like.self_signed(key.signing_key()).map_err(failed)?;
    let changes = [Field::SerialNumber, Field::Algorithm, Field::Validity]
        .into_iter()
        .map(|name| Ok((name, field(like.der(), name)?)))
        .collect::<Result<Vec<_>, PkiError>>()?;
    let certificate = signed_again(&authority.facts.der, changes, key)?;
    Authority::load(&authority.name, &to_pem("CERTIFICATE", &certificate), key.pem())
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
    Authority::load(common_name, &to_pem("CERTIFICATE", certificate.der()), key.pem())
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
