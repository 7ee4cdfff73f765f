//! Executes the issuance steps of a plan: generates keys, issues certificates, and creates their Secrets.

mod issue;
mod successor;
pub mod x509;

pub use issue::{IssuanceError, build_secret};
