//! Certificate authorities: made, renewed, cross-signed, and used to sign.

use k8s_openapi::jiff::Timestamp;
use keyplane_core::pki::{AlternativeName, Authority, CertificateFacts, PkiError, PrivateKey, Subject, to_pem};
use keyplane_crds::KeyAlgorithm;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose};

use super::certificate::{alternative_names, parameters};
use super::fields::{Field, field, signed_again};
use super::generate;

/// Signs a certificate with an authority's key.
pub(super) fn sign(
    authority: &Authority,
    params: &CertificateParams,
    subject_key: &PrivateKey,
) -> Result<Vec<u8>, PkiError> {
    let failed = |source| PkiError::Crypto { what: "signing a certificate", source };
    let certificate = authority.facts().der.as_slice().into();
    let key = authority.signing_key()?;
    let issuer = Issuer::from_ca_cert_der(&certificate, key.signing_key()).or_else(|_| {
        // Names of other authorities may be such as rcgen does not read.
        let mut params = CertificateParams::default();
        params.key_identifier_method = key_id_method(authority.facts());
        Ok(Issuer::new(params, key.signing_key()))
    });
    let made = params.signed_by(subject_key.signing_key(), &issuer.map_err(failed)?).map_err(failed)?;
    // rcgen keeps one attribute of a kind of the issuer's name, and everybody compares names byte by byte.
    let name = field(&authority.facts().der, Field::Subject)?;
    if field(made.der(), Field::Issuer)? == name {
        return Ok(made.der().to_vec());
    }
    signed_again(made.der(), [(Field::Issuer, name)], key)
}

/// How rcgen names the key of the authority: by the identifier that its certificate has.
fn key_id_method(authority: &CertificateFacts) -> KeyIdMethod {
    authority.key_identifier().map_or(KeyIdMethod::Sha256, KeyIdMethod::PreSpecified)
}

/// Has one authority sign another one's name and key, so that who trusts the first alone also trusts what the second
/// signs. `None` where the first may not sign authorities, or its owner signs outside.
///
/// # Errors
/// If the certificate can't be made.
pub fn cross_sign(subject: &Authority, issuer: &Authority, not_before: Timestamp) -> Result<Option<String>, PkiError> {
    if issuer.key().is_none() || issuer.facts().path_length == Some(0) || issuer.facts().not_after <= not_before {
        return Ok(None);
    }
    let (path_length, end) = (subject.facts().path_length, subject.facts().not_after.min(issuer.facts().not_after));
    let mut params = parameters(&Subject::user(subject.name()), not_before, end)?;
    let constraint = path_length.and_then(|length| u8::try_from(length).ok());
    params.is_ca = IsCa::Ca(constraint.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    params.use_authority_key_identifier_extension = true;
    // Certificates of the subject name its key by the identifier that it gives it.
    params.key_identifier_method = key_id_method(subject.facts());
    let cross = sign(issuer, &params, subject.signing_key()?)?;
    let name = field(&subject.facts().der, Field::Subject)?;
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
    if !authority.facts().is_self_signed() {
        return Err(PkiError::NotSelfSigned { authority: authority.name().to_owned() });
    }
    let key = authority.signing_key()?;
    let failed = |source| PkiError::Crypto { what: "signing an authority", source };
    let like = parameters(&Subject::user(authority.name()), not_before, not_after)?;
    let like = like.self_signed(key.signing_key()).map_err(failed)?;
    let changes = [Field::SerialNumber, Field::Algorithm, Field::Validity]
        .into_iter()
        .map(|name| Ok((name, field(like.der(), name)?)))
        .collect::<Result<Vec<_>, PkiError>>()?;
    let certificate = signed_again(&authority.facts().der, changes, key)?;
    Authority::load(authority.name(), &to_pem("CERTIFICATE", &certificate), key.pem())
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
    self_signed(common_name, algorithm, not_before, not_after, BasicConstraints::Unconstrained)
}

fn self_signed(
    common_name: &str,
    algorithm: KeyAlgorithm,
    not_before: Timestamp,
    not_after: Timestamp,
    constraints: BasicConstraints,
) -> Result<Authority, PkiError> {
    let key = generate(algorithm)?;
    let subject = Subject::user(common_name);
    let mut params = parameters(&subject, not_before, not_after)?;
    params.is_ca = IsCa::Ca(constraints);
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

    use keyplane_core::pki::{CertificateOrder, ExtendedUsage, first_certificate};

    use super::super::issue;
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
            let key = generate(KeyAlgorithm::EcdsaP256).unwrap();
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
        let mint = |constraints| {
            self_signed("kubernetes", KeyAlgorithm::EcdsaP256, at(1_000), at(9_000), constraints).unwrap()
        };
        let (old, new) = (mint(BasicConstraints::Unconstrained), mint(BasicConstraints::Unconstrained));
        assert!(cross_sign(&new, &old, at(2_000)).unwrap().is_some());
        assert_eq!(cross_sign(&new, &old, at(9_000)).unwrap(), None);
        assert_eq!(cross_sign(&new, &mint(BasicConstraints::Constrained(0)), at(2_000)).unwrap(), None);
        assert!(cross_sign(&new, &mint(BasicConstraints::Constrained(1)), at(2_000)).unwrap().is_some());
    }
}
