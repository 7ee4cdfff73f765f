//! A certificate request (PKCS #10).

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use super::inspect::{common_name_and_organizations, names_in};
use super::{AlternativeName, Subject};

/// The label of a PEM block with a certificate request.
pub const REQUEST_LABEL: &str = "CERTIFICATE REQUEST";

/// The content of a certificate request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFacts {
    /// The subject.
    pub subject: Subject,
    /// The subject alternative names, sorted.
    pub alternative_names: Vec<AlternativeName>,
    /// The public key as DER.
    pub subject_public_key_info: Vec<u8>,
}

impl RequestFacts {
    /// Parses a request. Returns `None` if the text is not a request, the signature is invalid, or the request has
    /// other extensions than subject alternative names.
    #[must_use]
    pub fn from_pem(pem: &str) -> Option<Self> {
        let block = ::pem::parse(pem).ok().filter(|block| block.tag() == REQUEST_LABEL)?;
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
