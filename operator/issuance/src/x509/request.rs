//! Requests for certificates (PKCS #10).

use keyplane_core::pki::{AlternativeName, PkiError, PrivateKey, REQUEST_LABEL, Subject, to_pem};
use rcgen::CertificateParams;

use super::certificate::alternative_names;
use super::fields::requested_by;
use super::subject::{distinguished_name, subject_der};

/// Asks for a certificate with this subject and these names, as PEM. What it shall be used for is told to the signer
/// beside it, so that the request has no other extension.
///
/// # Errors
/// If a name can't be in a certificate.
pub fn request(subject: &Subject, names: &[AlternativeName], key: &PrivateKey) -> Result<String, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(subject)?;
    params.subject_alt_names = alternative_names(names)?;
    let request = params.serialize_request(key.signing_key());
    let request = request.map_err(|source| PkiError::Crypto { what: "making a request for a certificate", source })?;
    if subject.organizations.len() < 2 {
        return Ok(to_pem(REQUEST_LABEL, request.der()));
    }
    Ok(to_pem(REQUEST_LABEL, &requested_by(subject_der(subject), request.der(), key)?))
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
    fn a_request_says_who_and_for_which_names_and_is_signed() {
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
        // A client's has no extension at all.
        let pem = ::pem::parse(request(&subject, &[], &key).unwrap()).unwrap();
        let (_, parsed) = X509CertificationRequest::from_der(pem.contents()).unwrap();
        assert_eq!(parsed.requested_extensions().into_iter().flatten().count(), 0);
    }

    #[test]
    fn a_request_of_a_user_of_several_groups_names_all_of_them() {
        for algorithm in [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384] {
            let key = generate(algorithm).unwrap();
            let organizations = ["auditors", "ops@example"].map(str::to_owned).to_vec();
            let subject = Subject { common_name: "jane".to_owned(), organizations };
            let facts = RequestFacts::from_pem(&request(&subject, &[], &key).unwrap()).unwrap();
            assert_eq!(facts.subject, subject, "{algorithm:?}");
        }
    }

    #[test]
    fn a_request_that_was_changed_afterwards_is_none() {
        let key = generate(KeyAlgorithm::EcdsaP256).unwrap();
        let pem = request(&Subject::user("jane"), &[], &key).unwrap();
        let mut der = ::pem::parse(&pem).unwrap().into_contents();
        let at = der.windows(4).position(|bytes| bytes == b"jane").unwrap();
        der[at] = b'k';
        assert_eq!(RequestFacts::from_pem(&to_pem(REQUEST_LABEL, &der)), None);
        assert_eq!(RequestFacts::from_pem("jane"), None);
    }
}
