//! Certificates that an external signer issues, because Keyplane does not hold the key of the CA.
//!
//! Keyplane keeps each private key and publishes a certificate request in a ConfigMap, because the request holds
//! nothing secret. The signer writes the certificate into the same ConfigMap ([`request`]). Keyplane compares the
//! certificate with the expected one before use ([`check`]); [`next_action`] returns the next step. Until then the
//! previous certificate stays in use.

mod answer;
mod decision;
pub mod kubelet;
pub mod request;

pub use answer::{ExpectedCertificate, Rejection, check};
pub use decision::{PublishedRequest, SigningAction, SigningState, next_action};
