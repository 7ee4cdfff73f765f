//! A request for a certificate (PKCS #10).

use rcgen::CertificateParams;

use super::certificate::alternative_names;
use super::{AlternativeName, PkiError, PrivateKey, Subject};

/// Asks for a certificate with this subject and these names, as PEM. What it shall be used for is told to the signer
/// beside it, so that the request has no other extension.
///
/// # Errors
/// If a name can't be in a certificate.
pub fn request(subject: &Subject, names: &[AlternativeName], key: &PrivateKey) -> Result<String, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject.distinguished_name()?;
    params.subject_alt_names = alternative_names(names)?;
    let request = params.serialize_request(key.signing_key());
    let request = request.map_err(|source| PkiError::Crypto { what: "making a request for a certificate", source })?;
    let pem =
        request.pem().map_err(|source| PkiError::Crypto { what: "writing a request for a certificate", source })?;
    // rcgen writes lines with CRLF; Go and openssl write LF.
    Ok(pem.replace("\r\n", "\n"))
}

#[cfg(test)]
mod tests {
    use keyplane_crds::KeyAlgorithm;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer;

    use super::*;

    #[test]
    fn a_request_says_who_and_for_which_names_and_is_signed() {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
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
        // A client's has no extension at all.
        let pem = ::pem::parse(request(&subject, &[], &key).unwrap()).unwrap();
        let (_, parsed) = X509CertificationRequest::from_der(pem.contents()).unwrap();
        assert_eq!(parsed.requested_extensions().into_iter().flatten().count(), 0);
    }
}
