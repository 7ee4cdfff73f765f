//! The certificate parameters of a policy.

use std::time::Duration;

use keyplane_crds::{KeyAlgorithm, RenewBefore};

/// The validity, renewal time and key algorithm of a leaf certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafTerms {
    /// The time from issuance to expiry.
    pub validity: Duration,
    /// The time before expiry at which the renewal is due.
    pub renew_before: RenewBefore,
    /// The key algorithm.
    pub key_algorithm: KeyAlgorithm,
}
