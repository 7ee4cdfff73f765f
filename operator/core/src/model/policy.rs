//! Lifetimes and keys of a cluster's certificates.

use std::time::Duration;

use keyplane_crds::{CertificatePolicySpec, KeyAlgorithm, RenewBefore, RotationCompletion, parse_duration};

use super::{FieldError, Window};
use crate::approval::Terms;
use crate::pki::LeafTerms;

/// A `CertificatePolicy`, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long an authority is valid.
    pub authority_validity: Duration,
    /// An authority's key.
    pub authority_key_algorithm: KeyAlgorithm,
    /// What holds for kubelets' requests.
    pub requests: Terms,
    /// When work that can wait is done; nothing means at once.
    pub maintenance_window: Option<Window>,
    /// Whether rotations take the old authority or key away as soon as nothing that can be seen depends on it.
    pub completes_rotations: bool,
    leaf: LeafTerms,
    overrides: Vec<(String, LeafTerms)>,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// The first field that makes no sense.
    pub fn parse(spec: &CertificatePolicySpec) -> Result<Self, FieldError> {
        let authority_validity = duration("spec.authority.validity", &spec.authority.validity)?;
        let leaf = LeafTerms {
            validity: duration("spec.leaf.validity", &spec.leaf.validity)?,
            renew_before: renew_before("spec.leaf.renewBefore", &spec.leaf.renew_before)?,
            key_algorithm: spec.leaf.key_algorithm,
        };
        check_terms("spec.leaf", leaf, authority_validity)?;
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
            check_terms(&field, terms, authority_validity)?;
            overrides.push((written.certificate.clone(), terms));
        }
        Ok(Self {
            authority_validity,
            authority_key_algorithm: spec.authority.key_algorithm,
            requests: Terms::parse(spec).map_err(|error| FieldError::new(error.field, error.message))?,
            maintenance_window: spec.maintenance_window.as_ref().map(Window::parse).transpose()?,
            completes_rotations: spec.authority.completion == RotationCompletion::Automatic,
            leaf,
            overrides,
        })
    }

    /// The terms of the certificate of that name.
    #[must_use]
    pub fn leaf(&self, certificate: &str) -> LeafTerms {
        self.overrides.iter().find(|(name, _)| name == certificate).map_or(self.leaf, |(_, terms)| *terms)
    }

    /// The terms of certificates without terms of their own.
    #[must_use]
    pub fn default_leaf(&self) -> LeafTerms {
        self.leaf
    }
}

impl Default for Policy {
    /// kubeadm's lifetimes and keys (`CACertificateValidityPeriod`, `CertificateValidityPeriod` in its constants), and
    /// renewal at 70 % of the life, as the default of the API has it.
    fn default() -> Self {
        Self {
            authority_validity: Duration::from_hours(87600),
            authority_key_algorithm: KeyAlgorithm::Rsa2048,
            requests: Terms::default(),
            maintenance_window: None,
            completes_rotations: false,
            leaf: LeafTerms {
                validity: Duration::from_hours(8760),
                renew_before: RenewBefore::Percentage(30),
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

fn check_terms(field: &str, terms: LeafTerms, authority_validity: Duration) -> Result<(), FieldError> {
    if terms.validity > authority_validity {
        return Err(FieldError::new(
            format!("{field}.validity"),
            "is longer than spec.authority.validity: no certificate outlives its authority",
        ));
    }
    if terms.renew_before.of(terms.validity) >= terms.validity {
        return Err(FieldError::new(
            format!("{field}.renewBefore"),
            "must be shorter than the validity: a certificate would be due before it begins",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_the_api_and_of_a_cluster_without_a_policy_are_the_same() {
        assert_eq!(Policy::parse(&CertificatePolicySpec::default()).unwrap(), Policy::default());
    }

    #[test]
    fn an_override_holds_for_its_certificate_only() {
        let spec: CertificatePolicySpec =
            serde_saphyr::from_str("{overrides: [{certificate: apiserver, validity: 720h, keyAlgorithm: ECDSA-P256}]}")
                .unwrap();
        let policy = Policy::parse(&spec).unwrap();
        assert_eq!(policy.leaf("apiserver").validity, Duration::from_hours(720));
        assert_eq!(policy.leaf("apiserver").key_algorithm, KeyAlgorithm::EcdsaP256);
        assert_eq!(policy.leaf("etcd-peer"), Policy::default().default_leaf());
    }

    #[test]
    fn refuses_a_leaf_that_outlives_its_authority() {
        let spec: CertificatePolicySpec =
            serde_saphyr::from_str("{authority: {validity: 100h}, leaf: {validity: 101h}}").unwrap();
        assert_eq!(Policy::parse(&spec).unwrap_err().field, "spec.leaf.validity");
    }
}
