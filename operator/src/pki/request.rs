//! A request for a certificate (PKCS #10).

use rcgen::CertificateParams;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use super::certificate::alternative_names;
use super::fields::requested_by;
use super::inspect::{common_name_and_organizations, names_in};
use super::{AlternativeName, PkiError, PrivateKey, Subject, to_pem};

/// What a PEM block of a request is labelled.
const LABEL: &str = "CERTIFICATE REQUEST";

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
    if subject.organizations.len() < 2 {
        return Ok(to_pem(LABEL, request.der()));
    }
    Ok(to_pem(LABEL, &requested_by(subject.to_der(), request.der(), key)?))
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFacts {
    /// Whose certificate it is to be.
    pub subject: Subject,
    /// Its names, sorted.
    pub alternative_names: Vec<AlternativeName>,
    /// Its public key as DER.
    pub subject_public_key_info: Vec<u8>,
}

impl RequestFacts {
    /// Reads a request of [`request`]; nothing if it is none, asks for anything else, or its key did not sign it.
    #[must_use]
    pub fn from_pem(pem: &str) -> Option<Self> {
        let block = ::pem::parse(pem).ok().filter(|block| block.tag() == LABEL)?;
        let (_, parsed) = X509CertificationRequest::from_der(block.contents()).ok()?;
        parsed.verify_signature().ok()?;
        let mut names = vec![];
        for extension in parsed.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(value) = extension else { return None };
            names.extend(names_in(value)?);
        }
        names.sort();
        let info = parsed.certification_request_info;
        Some(Self {
            subject: common_name_and_organizations(&info.subject)?,
            alternative_names: names,
            subject_public_key_info: info.subject_pki.raw.to_vec(),
        })
    }
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
            let key = PrivateKey::generate(algorithm).unwrap();
            let organizations = ["auditors", "ops@example"].map(str::to_owned).to_vec();
            let subject = Subject { common_name: "jane".to_owned(), organizations };
            let facts = RequestFacts::from_pem(&request(&subject, &[], &key).unwrap()).unwrap();
            assert_eq!(facts.subject, subject, "{algorithm:?}");
        }
    }

    #[test]
    fn a_request_that_was_changed_afterwards_is_none() {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let pem = request(&Subject::user("jane"), &[], &key).unwrap();
        let mut der = ::pem::parse(&pem).unwrap().into_contents();
        let at = der.windows(4).position(|bytes| bytes == b"jane").unwrap();
        der[at] = b'k';
        assert_eq!(RequestFacts::from_pem(&to_pem(LABEL, &der)), None);
        assert_eq!(RequestFacts::from_pem("jane"), None);
    }
}
