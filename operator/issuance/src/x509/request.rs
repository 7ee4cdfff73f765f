//! Generates certificate requests (PKCS #10).

use keyplane_core::pki::{AlternativeName, PkiError, PrivateKey, REQUEST_LABEL, Subject, to_pem};
use rcgen::CertificateParams;

use super::fields::replace_subject;
use super::parameters::alternative_names;
use super::subject::{distinguished_name, subject_der};

/// Returns a certificate request for a subject and subject alternative names, as PEM. The request has no other
/// extension, because the ConfigMap passes the usages to the signer.
///
/// # Errors
/// If a name is not valid in a certificate.
pub fn request(subject: &Subject, names: &[AlternativeName], key: &PrivateKey) -> Result<String, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(subject)?;
    params.subject_alt_names = alternative_names(names)?;
    let request = params.serialize_request(key.signing_key());
    let request = request.map_err(|source| PkiError::Crypto { what: "creating a certificate request", source })?;
    if subject.organizations.len() < 2 {
        return Ok(to_pem(REQUEST_LABEL, request.der()));
    }
    Ok(to_pem(REQUEST_LABEL, &replace_subject(subject_der(subject), request.der(), key)?))
}

#[cfg(test)]
mod tests {
    use keyplane_core::pki::RequestFacts;
    use keyplane_crds::KeyAlgorithm;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer;

    use super::super::generate;
    use super::*;

    #[test]
    fn request_has_subject_names_and_valid_signature() {
        let key = generate(KeyAlgorithm::EcdsaP256).unwrap();
        let subject =
            Subject { common_name: "system:node:w1".to_owned(), organizations: vec!["system:nodes".to_owned()] };
        let names = [AlternativeName::parse("w1"), AlternativeName::parse("10.0.0.9")];
        let pem = request(&subject, &names, &key).unwrap();
        assert!(!pem.contains('\r'));
        let pem = ::pem::parse(pem).unwrap();
        let (_, parsed) = X509CertificationRequest::from_der(pem.contents()).unwrap();
        parsed.verify_signature().unwrap();
        assert_eq!(parsed.certification_request_info.subject.to_string(), "O=system:nodes, CN=system:node:w1");
        assert_eq!(parsed.requested_extensions().unwrap().count(), 1);
        let facts = RequestFacts::from_pem(&request(&subject, &names, &key).unwrap()).unwrap();
        assert_eq!((&facts.subject, facts.alternative_names.as_slice()), (&subject, &names[..]));
        assert_eq!(facts.subject_public_key_info, key.subject_public_key_info());
        // A request for a client certificate has no extension.
        let pem = ::pem::parse(request(&subject, &[], &key).unwrap()).unwrap();
        let (_, parsed) = X509CertificationRequest::from_der(pem.contents()).unwrap();
        assert_eq!(parsed.requested_extensions().into_iter().flatten().count(), 0);
    }

    #[test]
    fn request_contains_all_groups_of_a_user() {
        for algorithm in [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384] {
            let key = generate(algorithm).unwrap();
            let organizations = ["auditors", "ops@example"].map(str::to_owned).to_vec();
            let subject = Subject { common_name: "jane".to_owned(), organizations };
            let facts = RequestFacts::from_pem(&request(&subject, &[], &key).unwrap()).unwrap();
            assert_eq!(facts.subject, subject, "{algorithm:?}");
        }
    }

    #[test]
    fn rejects_request_that_was_changed_after_signing() {
        let key = generate(KeyAlgorithm::EcdsaP256).unwrap();
        let pem = request(&Subject::user("jane"), &[], &key).unwrap();
        let mut der = ::pem::parse(&pem).unwrap().into_contents();
        let at = der.windows(4).position(|bytes| bytes == b"jane").unwrap();
        der[at] = b'k';
        assert_eq!(RequestFacts::from_pem(&to_pem(REQUEST_LABEL, &der)), None);
        assert_eq!(RequestFacts::from_pem("jane"), None);
    }
}
