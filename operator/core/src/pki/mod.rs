//! Keys, certificates and CAs: types, parsing, and the checks whether a certificate needs replacement.
//!
//! [`inventory`](crate::inventory) lists all certificates of a cluster in one table. Files, Secrets, kubeconfigs,
//! manifests and the expiry table derive from that table. This module does not use the Kubernetes API, a clock, the
//! network or random numbers. The crate `keyplane-issuance` generates keys and signs certificates.

mod ca_name;
mod certificate;
mod certificate_authority;
mod inspect;
mod key;
pub mod places;
mod profile;
pub mod renewal;
mod request;
mod secret_text;
mod subject;
mod terms;
mod user_provided_ca;

pub use ca_name::CaName;
pub use certificate::{AlternativeName, CertificateTemplate, ExtendedUsage, to_pem, valid_for};
pub use certificate_authority::CertificateAuthority;
pub use inspect::{CertificateFacts, authority_key_id, certificates_in, first_block, first_certificate};
pub use key::PrivateKey;
pub use profile::Profile;
pub use request::{REQUEST_LABEL, RequestFacts};
pub use secret_text::SecretText;
pub use subject::Subject;
pub use terms::LeafTerms;
pub use user_provided_ca::{UserProvidedCaError, user_provided_ca};

/// An error of an operation on keys or certificates. No variant contains key material.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The text is not a PEM certificate.
    #[error("{what} is not a certificate in PEM form")]
    NoCertificate {
        /// The name of the text.
        what: String,
    },
    /// The text is not a PEM private key, or has an algorithm that Kubernetes components do not support.
    #[error("{what} is not an RSA or ECDSA private key in PEM form")]
    NoPrivateKey {
        /// The name of the text.
        what: String,
    },
    /// The public key of the certificate is not that of the private key.
    #[error("the certificate and the private key of {what} don't match")]
    KeyMismatch {
        /// The name of the key pair.
        what: String,
    },
    /// The certificate is not a CA certificate.
    #[error("the certificate of {what} is not a CA certificate: CA:TRUE or the key usage Certificate Sign is missing")]
    NotACa {
        /// The name of the certificate.
        what: String,
    },
    /// The CA is expired.
    #[error("the CA {ca} has expired and can't issue certificates; rotate the CA")]
    CaExpired {
        /// The name of the CA.
        ca: String,
    },
    /// Keyplane does not have the key of the CA.
    #[error("Keyplane can't sign with the external CA {ca}: Keyplane does not have its key")]
    ExternalCa {
        /// The name of the CA.
        ca: String,
    },
    /// Only the issuer of the CA certificate can renew the CA certificate.
    #[error("Keyplane can't renew the certificate of the CA {ca}: another CA signed it; renew it there")]
    NotSelfSigned {
        /// The name of the CA.
        ca: String,
    },
    /// The text can't be used as a name in a certificate.
    #[error("{value:?} is not valid as a name in a certificate")]
    Name {
        /// The text.
        value: String,
    },
    /// The cryptographic library returned an error.
    #[error("{what} failed: {source}")]
    Crypto {
        /// The operation.
        what: &'static str,
        /// The error of the library.
        source: rcgen::Error,
    },
    /// The random number generator failed.
    #[error("the random number generator of the system failed")]
    Random,
}
