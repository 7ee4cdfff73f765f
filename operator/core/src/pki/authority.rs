//! A certificate authority as it is loaded.

use super::{CertificateFacts, PkiError, PrivateKey, first_certificate};

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
    ///
    /// # Errors
    /// If its owner signs outside.
    pub fn signing_key(&self) -> Result<&PrivateKey, PkiError> {
        self.key.as_ref().ok_or_else(|| PkiError::SignedOutside { authority: self.name.clone() })
    }

    /// What the certificate says.
    #[must_use]
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }
}
