//! Checks whether a certificate has to be reissued. Each check has its own reason.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_crds::reasons;

use super::certificate::BACKDATE;
use super::{CertificateFacts, CertificateTemplate, PrivateKey};
use crate::pki::LeafTerms;

/// The reason why a certificate is reissued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No certificate exists.
    Missing,
    /// The certificate can't be parsed.
    Unreadable,
    /// The key does not match the certificate.
    KeyMismatch,
    /// The certificate is not signed by the current CA.
    IssuerChanged,
    /// The subject differs.
    SubjectChanged,
    /// The subject alternative names differ.
    NamesChanged,
    /// The extended key usages differ.
    UsagesChanged,
    /// The policy has another key algorithm.
    KeyAlgorithmChanged,
    /// A user requested a new certificate.
    Requested,
    /// The renewal time has passed.
    RenewalDue,
}

impl Reason {
    /// Returns the Event reason.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "Missing",
            Self::Unreadable => "Unreadable",
            Self::KeyMismatch => "KeyMismatch",
            Self::IssuerChanged => "IssuerChanged",
            Self::SubjectChanged => "SubjectChanged",
            Self::NamesChanged => "NamesChanged",
            Self::UsagesChanged => "UsagesChanged",
            Self::KeyAlgorithmChanged => "KeyAlgorithmChanged",
            Self::Requested => reasons::REQUESTED,
            Self::RenewalDue => reasons::RENEWAL_DUE,
        }
    }
}

/// Compares a certificate and its key with the template. Returns `None` if the certificate is valid.
#[must_use]
pub fn check(
    certificate: &CertificateFacts,
    key: &PrivateKey,
    template: &CertificateTemplate,
    ca: &CertificateFacts,
) -> Option<Reason> {
    let mut names = template.alternative_names.clone();
    names.sort();
    let mut usages = template.extended_usages.clone();
    usages.sort();
    let checks = [
        (certificate.subject_public_key_info == key.subject_public_key_info(), Reason::KeyMismatch),
        (certificate.is_signed_by(ca), Reason::IssuerChanged),
        (
            certificate.subject.as_ref().is_some_and(|subject| subject.is_same_user(&template.subject)),
            Reason::SubjectChanged,
        ),
        (certificate.alternative_names.as_ref() == Some(&names), Reason::NamesChanged),
        (certificate.extended_usages.as_ref() == Some(&usages), Reason::UsagesChanged),
    ];
    checks.into_iter().find(|(is_valid, _)| !is_valid).map(|(_, reason)| reason)
}

/// The minimum time between two issuances of a certificate, whatever the policy says.
const MIN_RENEWAL_INTERVAL: SignedDuration = SignedDuration::from_mins(1);

/// The urgency of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// The renewal is not due.
    NotDue,
    /// The renewal is due and may wait for a maintenance window.
    Due,
    /// Less than a third of the renewal period is left, so the renewal does not wait for a maintenance window.
    Urgent,
}

/// Returns the urgency of the renewal of a certificate.
#[must_use]
pub fn urgency(certificate: &CertificateFacts, terms: LeafTerms, now: Timestamp) -> Urgency {
    let last_third = terms.renew_before.of(lifetime(certificate)) / 3;
    if now >= before_end(certificate, last_third) {
        Urgency::Urgent
    } else if now >= leaf_renewal_time(certificate, terms) {
        Urgency::Due
    } else {
        Urgency::NotDue
    }
}

/// Returns the renewal time of a certificate: that of the policy, or up to a tenth of `renew_before` earlier. The
/// random serial number determines the offset, so that certificates issued in one hour do not all expire in one hour
/// again.
#[must_use]
pub fn leaf_renewal_time(certificate: &CertificateFacts, terms: LeafTerms) -> Timestamp {
    let lifetime = lifetime(certificate);
    let before = terms.renew_before.of(lifetime);
    // With a `renew_before` close to the lifetime, less time is available for the spread.
    let spread = before.min(lifetime.saturating_sub(before)) / 10;
    let due = before_end(certificate, before + spread.mul_f64(share(&certificate.serial)));
    due.max(issued_at(certificate).checked_add(MIN_RENEWAL_INTERVAL).unwrap_or(due))
}

/// Maps the last four hexadecimal digits of a serial number to a number from 0 to 1.
fn share(serial: &str) -> f64 {
    let digits = serial.get(serial.len().saturating_sub(4)..).unwrap_or_default();
    f64::from(u16::from_str_radix(digits, 16).unwrap_or_default()) / f64::from(u16::MAX)
}

/// Returns the time at which the rotation of a CA is due. From that time on, the CA expires before new leaf
/// certificates would. The time is never before 70 percent of the lifetime of the CA.
#[must_use]
pub fn ca_renewal_time(certificate: &CertificateFacts, leaf: LeafTerms) -> Timestamp {
    before_end(certificate, leaf.validity.min(lifetime(certificate).mul_f64(0.3)))
}

/// Returns the time from issuance to expiry.
fn lifetime(certificate: &CertificateFacts) -> Duration {
    Duration::try_from(certificate.not_after.duration_since(issued_at(certificate))).unwrap_or_default()
}

/// Returns the time of issuance, without the backdating of notBefore. Otherwise a short-lived certificate with an early
/// renewal would be due right after issuance.
fn issued_at(certificate: &CertificateFacts) -> Timestamp {
    certificate.not_before.checked_add(BACKDATE).unwrap_or(certificate.not_before)
}

fn before_end(certificate: &CertificateFacts, before: Duration) -> Timestamp {
    // Whole seconds, because certificates and conditions have no fractions.
    let before = SignedDuration::from_secs(i64::try_from(before.as_secs()).unwrap_or(i64::MAX));
    certificate.not_after.checked_sub(before).unwrap_or(certificate.not_before)
}

#[cfg(test)]
mod tests {
    use crate::x509::generate;
    use keyplane_crds::KeyAlgorithm;

    use super::super::{AlternativeName, CertificateAuthority, ExtendedUsage, Subject, first_certificate};
    use super::*;
    use crate::x509::{generate_ca, issue};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn ca(common_name: &str) -> CertificateAuthority {
        generate_ca(common_name, KeyAlgorithm::EcdsaP256, at(999_700), at(9_000_000)).unwrap()
    }

    fn template() -> CertificateTemplate {
        CertificateTemplate {
            subject: Subject::user("kube-apiserver"),
            alternative_names: vec![AlternativeName::parse("cp1"), AlternativeName::parse("10.0.0.1")],
            extended_usages: vec![ExtendedUsage::ServerAuth],
            not_before: at(999_700),
            not_after: at(2_000_000),
        }
    }

    #[test]
    fn keeps_certificate_that_matches_template() {
        let (ca, key) = (ca("a"), generate(KeyAlgorithm::EcdsaP256).unwrap());
        let facts = first_certificate("test", &issue(&template(), &key, &ca).unwrap()).unwrap();
        assert_eq!(check(&facts, &key, &template(), ca.facts()), None);
        assert_eq!((facts.not_before, facts.not_after), (at(999_700), at(2_000_000)));
    }

    #[test]
    fn reports_changed_subject_names_and_usages() {
        let (ca, key) = (ca("a"), generate(KeyAlgorithm::EcdsaP256).unwrap());
        let facts = first_certificate("test", &issue(&template(), &key, &ca).unwrap()).unwrap();
        let reason = |change: fn(&mut CertificateTemplate)| {
            let mut template = template();
            change(&mut template);
            check(&facts, &key, &template, ca.facts())
        };
        assert_eq!(reason(|template| template.subject.common_name.push('x')), Some(Reason::SubjectChanged));
        assert_eq!(reason(|template| template.subject.organizations.push("x".into())), Some(Reason::SubjectChanged));
        assert_eq!(reason(|template| _ = template.alternative_names.pop()), Some(Reason::NamesChanged));
        assert_eq!(reason(|template| template.extended_usages.clear()), Some(Reason::UsagesChanged));
        assert_eq!(reason(|template| template.alternative_names.reverse()), None);
    }

    #[test]
    fn ca_with_same_name_and_other_key_is_another_issuer() {
        let (old, new) = (ca("a"), ca("a"));
        let key = generate(KeyAlgorithm::EcdsaP256).unwrap();
        let facts = first_certificate("test", &issue(&template(), &key, &old).unwrap()).unwrap();
        assert_eq!(check(&facts, &key, &template(), new.facts()), Some(Reason::IssuerChanged));
    }

    #[test]
    fn detects_key_of_another_certificate() {
        let (ca, key) = (ca("a"), generate(KeyAlgorithm::EcdsaP256).unwrap());
        let facts = first_certificate("test", &issue(&template(), &key, &ca).unwrap()).unwrap();
        let other = generate(KeyAlgorithm::EcdsaP256).unwrap();
        assert_eq!(check(&facts, &other, &template(), ca.facts()), Some(Reason::KeyMismatch));
    }

    #[test]
    fn certificate_expires_no_later_than_its_ca() {
        let (ca, key) = (ca("a"), generate(KeyAlgorithm::EcdsaP256).unwrap());
        let template = CertificateTemplate { not_after: at(99_000_000), ..template() };
        let facts = first_certificate("test", &issue(&template, &key, &ca).unwrap()).unwrap();
        assert_eq!(facts.not_after, at(9_000_000));
        let late = CertificateTemplate { not_before: at(9_000_000), ..template };
        assert!(issue(&late, &key, &ca).is_err());
    }

    #[test]
    fn serial_numbers_are_unique() {
        let (ca, key) = (ca("a"), generate(KeyAlgorithm::EcdsaP256).unwrap());
        let serial = || first_certificate("test", &issue(&template(), &key, &ca).unwrap()).unwrap().serial;
        assert_ne!(serial(), serial());
    }

    #[test]
    fn serial_number_spreads_renewal_over_a_tenth_of_the_period() {
        let (ca, key) = (ca("a"), generate(KeyAlgorithm::EcdsaP256).unwrap());
        let mut facts = first_certificate("test", &issue(&template(), &key, &ca).unwrap()).unwrap();
        let mut due = |serial: &str, percentage| {
            facts.serial = serial.to_owned();
            let terms = LeafTerms {
                renew_before: keyplane_crds::RenewBefore::Percentage(percentage),
                ..crate::model::Policy::default().default_leaf()
            };
            leaf_renewal_time(&facts, terms)
        };
        assert_eq!(due("AB0000", 30), at(1_700_000));
        assert_eq!(due("ABFFFF", 30), at(1_670_000));
        assert_eq!(due("", 30), at(1_700_000));
        assert_eq!(due("FFFF", 99), at(1_009_000));
    }

    #[test]
    fn ten_minute_certificate_is_not_due_at_issuance() {
        let (ca, key) = (ca("a"), generate(KeyAlgorithm::EcdsaP256).unwrap());
        // Valid for ten minutes from one million on, and backdated by five minutes.
        let template = CertificateTemplate { not_after: at(1_000_600), ..template() };
        let facts = first_certificate("test", &issue(&template, &key, &ca).unwrap()).unwrap();
        let due = |renew_before| {
            let terms = LeafTerms { renew_before, ..crate::model::Policy::default().default_leaf() };
            leaf_renewal_time(&facts, terms)
        };
        // With 80 percent, the spread is a tenth of the remaining two minutes.
        assert!((at(1_000_108)..=at(1_000_120)).contains(&due(keyplane_crds::RenewBefore::Percentage(80))));
        assert_eq!(due(keyplane_crds::RenewBefore::Percentage(99)), at(1_000_060));
        assert_eq!(due(keyplane_crds::RenewBefore::Duration(Duration::from_secs(599))), at(1_000_060));
    }

    #[test]
    fn renewal_is_due_at_percentage_of_lifetime() {
        let (ca, key) = (ca("a"), generate(KeyAlgorithm::EcdsaP256).unwrap());
        let facts = first_certificate("test", &issue(&template(), &key, &ca).unwrap()).unwrap();
        let terms = crate::model::Policy::default().default_leaf();
        // Of a million seconds, 30 percent are left, and up to a tenth of these more.
        let due = leaf_renewal_time(&facts, terms);
        assert!((at(1_670_000)..=at(1_700_000)).contains(&due), "{due}");
        assert_eq!(urgency(&facts, terms, due - SignedDuration::from_secs(1)), Urgency::NotDue);
        assert_eq!(urgency(&facts, terms, due), Urgency::Due);
        assert_eq!(urgency(&facts, terms, at(1_899_999)), Urgency::Due);
        assert_eq!(urgency(&facts, terms, at(1_900_000)), Urgency::Urgent);
        assert_eq!(ca_renewal_time(ca.facts(), terms), at(6_600_000));
    }
}
