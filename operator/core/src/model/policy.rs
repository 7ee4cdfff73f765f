//! The parsed `CertificatePolicy`: lifetimes and key algorithms of certificates.

use std::time::Duration;

use keyplane_crds::{CertificatePolicySpec, KeyAlgorithm, RenewBefore, RotationCompletion, parse_duration};

use super::{FieldError, Window};
use crate::approval::Terms;
use crate::pki::LeafTerms;

/// A `CertificatePolicy`, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The validity of a CA certificate.
    pub ca_validity: Duration,
    /// The key algorithm of CAs.
    pub ca_key_algorithm: KeyAlgorithm,
    /// The approval settings for CSRs of kubelets.
    pub requests: Terms,
    /// The window for work that can be deferred. `None` means at once.
    pub maintenance_window: Option<Window>,
    /// Whether rotations complete automatically: they remove the old CA or key once no observed dependency remains.
    pub completes_rotations: bool,
    leaf: LeafTerms,
    overrides: Vec<(String, LeafTerms)>,
}

impl Policy {
    /// Parses a policy.
    ///
    /// # Errors
    /// Returns the first invalid field.
    pub fn parse(spec: &CertificatePolicySpec) -> Result<Self, FieldError> {
        let ca_validity = duration("spec.authority.validity", &spec.authority.validity)?;
        let leaf = LeafTerms {
            validity: duration("spec.leaf.validity", &spec.leaf.validity)?,
            renew_before: renew_before("spec.leaf.renewBefore", &spec.leaf.renew_before)?,
            key_algorithm: spec.leaf.key_algorithm,
        };
        check_terms("spec.leaf", leaf, ca_validity)?;
        let mut overrides = vec![];
        for written in &spec.overrides {
            let field = format!("spec.overrides[{}]", written.certificate);
            let terms = LeafTerms {
                validity: match &written.validity {
                    Some(text) => duration(&format!("{field}.validity"), text)?,
                    None => leaf.validity,
                },
                renew_before: match &written.renew_before {
                    Some(text) => renew_before(&format!("{field}.renewBefore"), text)?,
                    None => leaf.renew_before,
                },
                key_algorithm: written.key_algorithm.unwrap_or(leaf.key_algorithm),
            };
            check_terms(&field, terms, ca_validity)?;
            overrides.push((written.certificate.clone(), terms));
        }
        Ok(Self {
            ca_validity,
            ca_key_algorithm: spec.authority.key_algorithm,
            requests: Terms::parse(spec).map_err(|error| FieldError::new(error.field, error.message))?,
            maintenance_window: spec.maintenance_window.as_ref().map(Window::parse).transpose()?,
            completes_rotations: spec.authority.completion == RotationCompletion::Automatic,
            leaf,
            overrides,
        })
    }

    /// The terms of the certificate with this name.
    #[must_use]
    pub fn leaf(&self, certificate: &str) -> LeafTerms {
        self.overrides.iter().find(|(name, _)| name == certificate).map_or(self.leaf, |(_, terms)| *terms)
    }

    /// The terms of certificates without an override.
    #[must_use]
    pub fn default_leaf(&self) -> LeafTerms {
        self.leaf
    }
}

impl Default for Policy {
    /// The lifetimes and key algorithms of kubeadm (`CACertificateValidityPeriod`, `CertificateValidityPeriod` in its
    /// constants), and renewal after 70 % of the lifetime, the default of the API.
    fn default() -> Self {
        Self {
            ca_validity: Duration::from_hours(87600),
            ca_key_algorithm: KeyAlgorithm::Rsa2048,
            requests: Terms::default(),
            maintenance_window: None,
            completes_rotations: false,
            leaf: LeafTerms {
                validity: Duration::from_hours(8760),
                renew_before: RenewBefore::default(),
                key_algorithm: KeyAlgorithm::Rsa2048,
            },
            overrides: vec![],
        }
    }
}

fn duration(field: &str, text: &str) -> Result<Duration, FieldError> {
    parse_duration(text).map_err(|error| FieldError::new(field, error.to_string()))
}

fn renew_before(field: &str, text: &str) -> Result<RenewBefore, FieldError> {
    RenewBefore::parse(text).map_err(|error| FieldError::new(field, error.to_string()))
}

fn check_terms(field: &str, terms: LeafTerms, ca_validity: Duration) -> Result<(), FieldError> {
    if terms.validity > ca_validity {
        return Err(FieldError::new(
            format!("{field}.validity"),
            "is longer than spec.authority.validity: no certificate outlives its CA",
        ));
    }
    if terms.renew_before.of(terms.validity) >= terms.validity {
        return Err(FieldError::new(
            format!("{field}.renewBefore"),
            "must be shorter than the validity: a certificate would be due for renewal before it is valid",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_policy_equals_api_defaults() {
        assert_eq!(Policy::parse(&CertificatePolicySpec::default()).unwrap(), Policy::default());
    }

    #[test]
    fn override_applies_to_its_certificate_only() {
        let spec: CertificatePolicySpec =
            serde_saphyr::from_str("{overrides: [{certificate: apiserver, validity: 720h, keyAlgorithm: ECDSA-P256}]}")
                .unwrap();
        let policy = Policy::parse(&spec).unwrap();
        assert_eq!(policy.leaf("apiserver").validity, Duration::from_hours(720));
        assert_eq!(policy.leaf("apiserver").key_algorithm, KeyAlgorithm::EcdsaP256);
        assert_eq!(policy.leaf("etcd-peer"), Policy::default().default_leaf());
    }

    #[test]
    fn refuses_leaf_validity_longer_than_ca_validity() {
        let spec: CertificatePolicySpec =
            serde_saphyr::from_str("{authority: {validity: 100h}, leaf: {validity: 101h}}").unwrap();
        assert_eq!(Policy::parse(&spec).unwrap_err().field, "spec.leaf.validity");
    }
}
