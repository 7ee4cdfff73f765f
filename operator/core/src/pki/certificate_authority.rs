//! A certificate authority that is loaded from PEM texts.

use super::{CertificateFacts, PkiError, PrivateKey, first_certificate};

/// A CA with its key, or an external CA without a key.
#[derive(Debug)]
pub struct CertificateAuthority {
    name: String,
    certificate_pem: String,
    facts: CertificateFacts,
    // `None` for an external CA.
    key: Option<PrivateKey>,
    intermediates: String,
    root: Option<String>,
}

impl CertificateAuthority {
    /// Loads a CA from the PEM texts of its certificate and key. `name` is for messages.
    ///
    /// # Errors
    /// If the texts can't be parsed, don't match, or the certificate is not a CA certificate.
    pub fn load(name: &str, certificate_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let facts = first_certificate(name, certificate_pem)?;
        let key = PrivateKey::from_pem(name, key_pem)?;
        if facts.subject_public_key_info != key.subject_public_key_info() {
            return Err(PkiError::KeyMismatch { what: name.to_owned() });
        }
        Self::from_parts(name, certificate_pem, facts, Some(key))
    }

    /// Loads an external CA from its certificate.
    ///
    /// # Errors
    /// If the text can't be parsed, or the certificate is not a CA certificate.
    pub fn external(name: &str, certificate_pem: &str) -> Result<Self, PkiError> {
        Self::from_parts(name, certificate_pem, first_certificate(name, certificate_pem)?, None)
    }

    fn from_parts(
        name: &str,
        certificate_pem: &str,
        facts: CertificateFacts,
        key: Option<PrivateKey>,
    ) -> Result<Self, PkiError> {
        if !facts.may_sign_certificates {
            return Err(PkiError::NotACa { what: name.to_owned() });
        }
        let (name, certificate_pem) = (name.to_owned(), certificate_pem.to_owned());
        Ok(Self { name, certificate_pem, facts, key, intermediates: String::new(), root: None })
    }

    /// Adds the PEM certificates of the issuers: the intermediate CAs between this CA and the root, and the root.
    #[must_use]
    pub fn with_chain(self, intermediates: String, root: Option<String>) -> Self {
        Self { intermediates, root, ..self }
    }

    /// Returns the name for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the CA certificate, or the bundle that begins with the CA certificate, as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Returns the intermediate CAs between this CA and the root as PEM, beginning with the issuer of this CA. They are
    /// never trusted, because each of them may have signed other CAs.
    #[must_use]
    pub fn intermediates(&self) -> &str {
        &self.intermediates
    }

    /// Returns the root CA as PEM, if known and different from this CA.
    #[must_use]
    pub fn root(&self) -> Option<&str> {
        self.root.as_deref()
    }

    /// Returns the chain that a server presents after its own certificate, for clients that trust only the root. The
    /// chain of a root CA is empty.
    #[must_use]
    pub fn chain(&self) -> String {
        if self.facts.is_self_signed() {
            String::new()
        } else {
            format!("{}{}", self.certificate_pem, self.intermediates)
        }
    }

    /// Returns whether both have the same certificate, intermediate CAs and root.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.facts.der == other.facts.der && self.intermediates == other.intermediates && self.root == other.root
    }

    /// Returns the private key, or `None` for an external CA.
    #[must_use]
    pub fn key(&self) -> Option<&PrivateKey> {
        self.key.as_ref()
    }

    /// Returns the private key for signing.
    ///
    /// # Errors
    /// If this is an external CA.
    pub fn signing_key(&self) -> Result<&PrivateKey, PkiError> {
        self.key.as_ref().ok_or_else(|| PkiError::ExternalCa { ca: self.name.clone() })
    }

    /// Returns the content of the CA certificate.
    #[must_use]
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }
}
