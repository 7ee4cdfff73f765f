//! Makes what a plan says: keys, certificates, and the Secrets around them.

mod issue;
mod successor;
pub mod x509;

pub use issue::{IssuanceError, fulfil};
