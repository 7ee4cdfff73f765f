//! What certificates exist, how they are issued, and whether they still serve.
//!
//! [`inventory`] is the whole PKI as one table. Everything else that has to know which certificates there are derives
//! it from there: files, Secrets, kubeconfigs, manifests, the expiry table. X.509 is written and read in this room and
//! nowhere else. Nothing here knows Kubernetes' API, a clock or the network; random numbers are used for keys and
//! serial numbers, when something is issued, and never in a decision.

mod authority;
mod authority_name;
mod certificate;
mod given;
mod inspect;
mod key;
pub mod places;
mod profile;
pub mod renewal;
mod request;
mod secret_text;
mod subject;
mod terms;

pub use authority::Authority;
pub use authority_name::AuthorityName;
pub use certificate::{AlternativeName, CertificateOrder, ExtendedUsage, to_pem, valid_for};
pub use given::{Unfit, given_authority};
pub use inspect::{CertificateFacts, authority_key_id, certificates_in, first_block, first_certificate};
pub use key::PrivateKey;
pub use profile::Profile;
pub use request::{REQUEST_LABEL, RequestFacts};
pub use secret_text::SecretText;
pub use subject::Subject;
pub use terms::LeafTerms;

/// Why something about keys and certificates could not be done. No variant carries key material.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The text is no PEM certificate.
    #[error("{what} is no certificate in PEM form")]
    NoCertificate {
        /// What was read.
        what: String,
    },
    /// The text is no PEM private key, or of a kind that Kubernetes' components can't use.
    #[error("{what} is no RSA or ECDSA private key in PEM form")]
    NoPrivateKey {
        /// What was read.
        what: String,
    },
    /// A certificate and a key that should belong together don't.
    #[error("the certificate and the private key of {what} don't belong together")]
    KeyMismatch {
        /// What was read.
        what: String,
    },
    /// A certificate that should be an authority's is not.
    #[error(
        "the certificate of {what} is not one of an authority: it lacks CA:TRUE, or has key usages without Certificate Sign"
    )]
    NoAuthority {
        /// What was read.
        what: String,
    },
    /// A certificate would have to outlive its issuer, or its issuer has ended.
    #[error("the authority {authority} has ended: nothing can be issued from it")]
    AuthorityEnded {
        /// The authority.
        authority: String,
    },
    /// Nothing is signed here with an authority whose key its owner keeps.
    #[error("the key of the authority {authority} is not here: its owner signs outside")]
    SignedOutside {
        /// The authority.
        authority: String,
    },
    /// An authority's certificate can be renewed only by who has signed it.
    #[error("the certificate of the authority {authority} is signed by another one, which alone can renew it")]
    NotSelfSigned {
        /// The authority.
        authority: String,
    },
    /// A name that can't be put into a certificate.
    #[error("{value:?} can't be a name in a certificate")]
    Name {
        /// The name.
        value: String,
    },
    /// The cryptographic library refused.
    #[error("{what} failed: {source}")]
    Crypto {
        /// What was tried.
        what: &'static str,
        /// The library's words.
        source: rcgen::Error,
    },
    /// No random numbers could be had.
    #[error("the system gave no random numbers")]
    Random,
}
