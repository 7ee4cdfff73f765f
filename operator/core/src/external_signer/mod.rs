//! Certificates that a signer outside of the cluster makes, since no key of the authority is here.
//!
//! Keyplane keeps each private key and publishes a request: a ConfigMap, as nothing in it is secret, in which the signer
//! puts the certificate ([`request`]). An answer is held against what was asked for before it is used ([`check`]), and
//! [`decide`] says what is next. Until then the certificate before it stays in use.

mod answer;
mod decision;
pub mod kubelet;
pub mod request;

pub use answer::{Asked, Refusal, check};
pub use decision::{Circumstances, Decision, Pending, decide};
