//! Generates, renews and cross-signs CAs, and signs certificates with them.

use k8s_openapi::jiff::Timestamp;
use keyplane_core::pki::{
    AlternativeName, CertificateAuthority, CertificateFacts, PkiError, PrivateKey, Subject, to_pem,
};
use keyplane_crds::KeyAlgorithm;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose};

use super::fields::{Field, field, replace_fields};
use super::generate;
use super::parameters::{alternative_names, parameters};

/// Signs a certificate with the key of a CA.
pub(super) fn sign(
    ca: &CertificateAuthority,
    params: &CertificateParams,
    subject_key: &PrivateKey,
) -> Result<Vec<u8>, PkiError> {
    let failed = |source| PkiError::Crypto { what: "signing a certificate", source };
    let certificate = ca.facts().der.as_slice().into();
    let key = ca.signing_key()?;
    let issuer = Issuer::from_ca_cert_der(&certificate, key.signing_key()).or_else(|_| {
        // rcgen can't parse some subject names of user-provided CAs.
        let mut params = CertificateParams::default();
        params.key_identifier_method = key_id_method(ca.facts());
        Ok(Issuer::new(params, key.signing_key()))
    });
    let signed = params.signed_by(subject_key.signing_key(), &issuer.map_err(failed)?).map_err(failed)?;
    // rcgen keeps only one attribute of each type in the issuer name, but clients compare names byte by byte.
    let name = field(&ca.facts().der, Field::Subject)?;
    if field(signed.der(), Field::Issuer)? == name {
        return Ok(signed.der().to_vec());
    }
    replace_fields(signed.der(), [(Field::Issuer, name)], key)
}

/// Returns the key identifier method of rcgen that uses the subject key identifier of the CA certificate.
fn key_id_method(ca: &CertificateFacts) -> KeyIdMethod {
    ca.key_identifier().map_or(KeyIdMethod::Sha256, KeyIdMethod::PreSpecified)
}

/// Cross-signs the name and key of one CA with another CA. Clients that trust only the issuer then also trust
/// certificates of the subject CA. Returns `None` if the issuer is expired, is an external CA, or has a path length of
/// zero.
///
/// # Errors
/// If signing fails.
pub fn cross_sign(
    subject: &CertificateAuthority,
    issuer: &CertificateAuthority,
    not_before: Timestamp,
) -> Result<Option<String>, PkiError> {
    if issuer.key().is_none() || issuer.facts().path_length == Some(0) || issuer.facts().not_after <= not_before {
        return Ok(None);
    }
    let (path_length, end) = (subject.facts().path_length, subject.facts().not_after.min(issuer.facts().not_after));
    let mut params = parameters(&Subject::user(subject.name()), not_before, end)?;
    let constraint = path_length.and_then(|length| u8::try_from(length).ok());
    params.is_ca = IsCa::Ca(constraint.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    params.use_authority_key_identifier_extension = true;
    // Leaf certificates of the subject CA refer to this key identifier.
    params.key_identifier_method = key_id_method(subject.facts());
    let cross = sign(issuer, &params, subject.signing_key()?)?;
    let name = field(&subject.facts().der, Field::Subject)?;
    Ok(Some(to_pem("CERTIFICATE", &replace_fields(&cross, [(Field::Subject, name)], issuer.signing_key()?)?)))
}

/// Renews the certificate of a self-signed CA with the same key, name, key identifier and extensions. Leaf certificates
/// stay valid with the old and the new CA certificate.
///
/// # Errors
/// If another CA signed the CA certificate.
pub fn renew_ca(
    ca: &CertificateAuthority,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateAuthority, PkiError> {
    if !ca.facts().is_self_signed() {
        return Err(PkiError::NotSelfSigned { ca: ca.name().to_owned() });
    }
    let key = ca.signing_key()?;
    let failed = |source| PkiError::Crypto { what: "signing a CA certificate", source };
    let like = parameters(&Subject::user(ca.name()), not_before, not_after)?;
    let like = like.self_signed(key.signing_key()).map_err(failed)?;
    let changes = [Field::SerialNumber, Field::Algorithm, Field::Validity]
        .into_iter()
        .map(|name| Ok((name, field(like.der(), name)?)))
        .collect::<Result<Vec<_>, PkiError>>()?;
    let certificate = replace_fields(&ca.facts().der, changes, key)?;
    CertificateAuthority::load(ca.name(), &to_pem("CERTIFICATE", &certificate), key.pem())
}

/// Generates a self-signed CA with the fields of kubeadm: the common name also as a DNS name, the key usages digital
/// signature, key encipherment and certificate sign, and no authority key identifier.
///
/// # Errors
/// If the key generation fails.
pub fn generate_ca(
    common_name: &str,
    algorithm: KeyAlgorithm,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateAuthority, PkiError> {
    self_signed(common_name, algorithm, not_before, not_after, BasicConstraints::Unconstrained)
}

fn self_signed(
    common_name: &str,
    algorithm: KeyAlgorithm,
    not_before: Timestamp,
    not_after: Timestamp,
    constraints: BasicConstraints,
) -> Result<CertificateAuthority, PkiError> {
    let key = generate(algorithm)?;
    let subject = Subject::user(common_name);
    let mut params = parameters(&subject, not_before, not_after)?;
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    params.subject_alt_names = alternative_names(&[AlternativeName::Dns(common_name.to_owned())])?;
    let certificate = params
        .self_signed(key.signing_key())
        .map_err(|source| PkiError::Crypto { what: "signing a CA certificate", source })?;
    CertificateAuthority::load(common_name, &to_pem("CERTIFICATE", certificate.der()), key.pem())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use keyplane_core::pki::{CertificateTemplate, ExtendedUsage, first_certificate};

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
    fn openssl_verifies_leaf_of_new_ca_via_cross_signed_ca() {
        let now = Timestamp::now().as_second();
        let ages = [(KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256), (KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048)];
        for (before, after) in ages {
            // Both CAs have the same name, as kubeadm's CAs before and after a rotation.
            let old = generate_ca("kubernetes", before, at(now - 90), at(now + 1_000)).unwrap();
            let new = generate_ca("kubernetes", after, at(now - 90), at(now + 9_000)).unwrap();
            let cross = cross_sign(&new, &old, at(now - 60)).unwrap().unwrap();
            let template = CertificateTemplate {
                subject: Subject::user("kube-apiserver"),
                alternative_names: vec![AlternativeName::parse("api.example")],
                extended_usages: vec![ExtendedUsage::ServerAuth],
                not_before: at(now - 60),
                not_after: at(now + 500),
            };
            let key = generate(KeyAlgorithm::EcdsaP256).unwrap();
            let leaf = issue(&template, &key, &new).unwrap();
            assert!(openssl_verifies(old.certificate_pem(), &cross, &leaf), "{before:?} {after:?}");
            assert!(openssl_verifies(new.certificate_pem(), &cross, &leaf), "{before:?} {after:?}");
            assert!(
                !openssl_verifies(old.certificate_pem(), new.certificate_pem(), &leaf),
                "not without the cross-signed CA"
            );
            let facts = first_certificate("cross", &cross).unwrap();
            assert_eq!(facts.not_after, at(now + 1_000), "expires with its issuer");
            assert_eq!(facts.subject_public_key_info, new.facts().subject_public_key_info);
        }
    }

    #[test]
    fn expired_or_path_length_zero_ca_does_not_cross_sign() {
        let new_ca = |constraints| {
            self_signed("kubernetes", KeyAlgorithm::EcdsaP256, at(1_000), at(9_000), constraints).unwrap()
        };
        let (old, new) = (new_ca(BasicConstraints::Unconstrained), new_ca(BasicConstraints::Unconstrained));
        assert!(cross_sign(&new, &old, at(2_000)).unwrap().is_some());
        assert_eq!(cross_sign(&new, &old, at(9_000)).unwrap(), None);
        assert_eq!(cross_sign(&new, &new_ca(BasicConstraints::Constrained(0)), at(2_000)).unwrap(), None);
        assert!(cross_sign(&new, &new_ca(BasicConstraints::Constrained(1)), at(2_000)).unwrap().is_some());
    }
}
