//! What a policy says of a certificate.

use std::time::Duration;

use keyplane_crds::{KeyAlgorithm, RenewBefore};

/// How long a certificate is valid, when it is due, and what key it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafTerms {
    /// From now to its end.
    pub validity: Duration,
    /// How long before its end it is due for renewal.
    pub renew_before: RenewBefore,
    /// Its key.
    pub key_algorithm: KeyAlgorithm,
}
