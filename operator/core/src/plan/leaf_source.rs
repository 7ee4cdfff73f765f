//! Decides the source of a leaf certificate: kept, or issued for a reason.

use k8s_openapi::api::core::v1::Secret as SecretObject;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::{KeySource, Pair, Source};
use crate::model::{Cluster, Window};
use crate::pki::{CertificateFacts, CertificateTemplate, LeafTerms, PrivateKey, first_certificate, renewal};

/// Inputs of the decision to renew a certificate that is still usable.
pub(crate) struct RenewalInputs<'a> {
    now: Timestamp,
    window: Option<&'a Window>,
    requested: bool,
}

impl<'a> RenewalInputs<'a> {
    pub(crate) fn of(cluster: &'a Cluster, found: Option<&SecretObject>, now: Timestamp) -> Self {
        let requested = found.is_some_and(|secret| cluster.rotate.certificates().are_open(secret.annotations()));
        Self { now, window: cluster.policy.maintenance_window.as_ref(), requested }
    }

    /// Returns the same inputs without a maintenance window.
    pub(crate) fn at_any_time(&self) -> Self {
        Self { window: None, ..*self }
    }

    /// Returns whether changes that can wait are allowed now.
    pub(crate) fn may_change(&self) -> bool {
        self.window.is_none_or(|window| window.is_open(self.now))
    }

    /// Returns the reason to reissue a usable certificate, if there is one.
    fn reason(&self, facts: &CertificateFacts, key: &PrivateKey, terms: LeafTerms) -> Option<renewal::Reason> {
        if self.requested {
            return Some(renewal::Reason::Requested);
        }
        if key.algorithm() != Some(terms.key_algorithm) {
            return Some(renewal::Reason::KeyAlgorithmChanged);
        }
        let is_time = match renewal::urgency(facts, terms, self.now) {
            renewal::Urgency::NotDue => false,
            renewal::Urgency::Due => self.window.is_none_or(|window| window.is_open(self.now)),
            renewal::Urgency::Urgent => true,
        };
        is_time.then_some(renewal::Reason::RenewalDue)
    }
}

/// Returns the stored certificate if it matches the template, or the certificate to issue instead. A readable key is
/// kept unless a rotation of the keys is requested.
pub(crate) fn source_of(
    certificate: &str,
    order: CertificateTemplate,
    terms: LeafTerms,
    stored: Option<Pair>,
    issuer: &CertificateFacts,
    inputs: &RenewalInputs<'_>,
) -> Source {
    let algorithm = terms.key_algorithm;
    let Some(pair) = stored else {
        return Source::Issue { order, key: KeySource::New(algorithm), reason: renewal::Reason::Missing };
    };
    let Ok(key) = PrivateKey::from_pem(certificate, &pair.key.0) else {
        return Source::Issue { order, key: KeySource::New(algorithm), reason: renewal::Reason::Unreadable };
    };
    let reason = match first_certificate(certificate, &pair.certificate) {
        Err(_) => Some(renewal::Reason::Unreadable),
        Ok(facts) => {
            // A certificate never outlives its CA, and none begins after the CA has expired.
            let lives_longer =
                order.not_before < issuer.not_after && order.not_after.min(issuer.not_after) > facts.not_after;
            let reason = renewal::check(&facts, &key, &order, issuer).or_else(|| inputs.reason(&facts, &key, terms));
            reason.filter(|reason| *reason != renewal::Reason::RenewalDue || lives_longer)
        }
    };
    let Some(reason) = reason else { return Source::Keep(pair) };
    let stays = !inputs.requested && key.algorithm() == Some(algorithm);
    let key = if stays { KeySource::Keep(pair.key) } else { KeySource::New(algorithm) };
    Source::Issue { order, key, reason }
}
