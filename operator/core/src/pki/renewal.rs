//! Whether a certificate still serves: a chain of checks, each with its reason.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_crds::reasons;

use super::certificate::BACKDATE;
use super::{CertificateFacts, CertificateOrder, PrivateKey};
use crate::pki::LeafTerms;

/// Why a certificate is issued anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There is none.
    Missing,
    /// What is there can't be read.
    Unreadable,
    /// The key is another certificate's.
    KeyMismatch,
    /// The authority did not sign it.
    IssuerChanged,
    /// It is somebody else's.
    SubjectChanged,
    /// Its DNS names or addresses are not those that it should have.
    NamesChanged,
    /// It is for something else.
    UsagesChanged,
    /// The policy asks for another kind of key.
    KeyAlgorithmChanged,
    /// Somebody asked for a new one.
    Requested,
    /// Its renewal time has come.
    RenewalDue,
}

impl Reason {
    /// The reason in an Event.
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

/// Holds a certificate and its key against what should be there. Nothing means that it serves.
#[must_use]
pub fn check(
    certificate: &CertificateFacts,
    key: &PrivateKey,
    order: &CertificateOrder,
    authority: &CertificateFacts,
) -> Option<Reason> {
    let mut names = order.alternative_names.clone();
    names.sort();
    let mut usages = order.extended_usages.clone();
    usages.sort();
    let checks = [
        (certificate.subject_public_key_info == key.subject_public_key_info(), Reason::KeyMismatch),
        (certificate.is_signed_by(authority), Reason::IssuerChanged),
        (
            certificate.subject.as_ref().is_some_and(|subject| subject.is_same_user(&order.subject)),
            Reason::SubjectChanged,
        ),
        (certificate.alternative_names.as_ref() == Some(&names), Reason::NamesChanged),
        (certificate.extended_usages.as_ref() == Some(&usages), Reason::UsagesChanged),
    ];
    checks.into_iter().find(|(serves, _)| !serves).map(|(_, reason)| reason)
}

/// However early a policy has certificates renewed: none is issued twice a minute.
const SHORTEST_WAIT: SignedDuration = SignedDuration::from_mins(1);

/// How long a renewal has come and gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// It has not come.
    NotDue,
    /// It has; it can wait for a maintenance window.
    Due,
    /// Less than a third is left of the time that there was for it: it waits for nothing.
    Urgent,
}

/// Whether a certificate is due for renewal.
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

/// When a certificate is due for renewal: at the policy's time, or up to a tenth of the policy's time sooner. Its serial
/// number, which is random, says how much, so that certificates of one hour do not all end in one hour again.
#[must_use]
pub fn leaf_renewal_time(certificate: &CertificateFacts, terms: LeafTerms) -> Timestamp {
    let lifetime = lifetime(certificate);
    let before = terms.renew_before.of(lifetime);
    // Where most of the life lies before the end there is less to spread over.
    let spread = before.min(lifetime.saturating_sub(before)) / 10;
    let due = before_end(certificate, before + spread.mul_f64(share(&certificate.serial)));
    due.max(issued_at(certificate).checked_add(SHORTEST_WAIT).unwrap_or(due))
}

/// A number from 0 to 1 that the last four hexadecimal digits of a serial number make.
fn share(serial: &str) -> f64 {
    let digits = serial.get(serial.len().saturating_sub(4)..).unwrap_or_default();
    f64::from(u16::from_str_radix(digits, 16).unwrap_or_default()) / f64::from(u16::MAX)
}

/// When an authority is due for rotation: once what it signs could no longer live out its full term, but not before
/// seven tenths of its own life are over.
#[must_use]
pub fn authority_renewal_time(certificate: &CertificateFacts, leaf: LeafTerms) -> Timestamp {
    before_end(certificate, leaf.validity.min(lifetime(certificate).mul_f64(0.3)))
}

/// From when it was issued to its end.
fn lifetime(certificate: &CertificateFacts) -> Duration {
    Duration::try_from(certificate.not_after.duration_since(issued_at(certificate))).unwrap_or_default()
}

/// What Keyplane issues is valid from some minutes earlier on: counted in, a short-lived certificate with an early renewal
/// would be due as soon as it is there.
fn issued_at(certificate: &CertificateFacts) -> Timestamp {
    certificate.not_before.checked_add(BACKDATE).unwrap_or(certificate.not_before)
}

fn before_end(certificate: &CertificateFacts, before: Duration) -> Timestamp {
    // Whole seconds, as certificates and conditions have them.
    let before = SignedDuration::from_secs(i64::try_from(before.as_secs()).unwrap_or(i64::MAX));
    certificate.not_after.checked_sub(before).unwrap_or(certificate.not_before)
}

#[cfg(test)]
mod tests {
    use crate::x509::generate;
    use keyplane_crds::KeyAlgorithm;

    use super::super::{AlternativeName, Authority, ExtendedUsage, Subject, first_certificate};
    use super::*;
    use crate::x509::{issue, mint_authority};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn authority(common_name: &str) -> Authority {
        mint_authority(common_name, KeyAlgorithm::EcdsaP256, at(999_700), at(9_000_000)).unwrap()
    }

    fn order() -> CertificateOrder {
        CertificateOrder {
            subject: Subject::user("kube-apiserver"),
            alternative_names: vec![AlternativeName::parse("cp1"), AlternativeName::parse("10.0.0.1")],
            extended_usages: vec![ExtendedUsage::ServerAuth],
            not_before: at(999_700),
            not_after: at(2_000_000),
        }
    }

    #[test]
    fn keeps_what_is_as_ordered() {
        let (authority, key) = (authority("a"), generate(KeyAlgorithm::EcdsaP256).unwrap());
        let facts = first_certificate("test", &issue(&order(), &key, &authority).unwrap()).unwrap();
        assert_eq!(check(&facts, &key, &order(), authority.facts()), None);
        assert_eq!((facts.not_before, facts.not_after), (at(999_700), at(2_000_000)));
    }

    #[test]
    fn says_what_has_changed() {
        let (authority, key) = (authority("a"), generate(KeyAlgorithm::EcdsaP256).unwrap());
        let facts = first_certificate("test", &issue(&order(), &key, &authority).unwrap()).unwrap();
        let reason = |change: fn(&mut CertificateOrder)| {
            let mut order = order();
            change(&mut order);
            check(&facts, &key, &order, authority.facts())
        };
        assert_eq!(reason(|order| order.subject.common_name.push('x')), Some(Reason::SubjectChanged));
        assert_eq!(reason(|order| order.subject.organizations.push("x".into())), Some(Reason::SubjectChanged));
        assert_eq!(reason(|order| _ = order.alternative_names.pop()), Some(Reason::NamesChanged));
        assert_eq!(reason(|order| order.extended_usages.clear()), Some(Reason::UsagesChanged));
        assert_eq!(reason(|order| order.alternative_names.reverse()), None);
    }

    #[test]
    fn an_authority_of_the_same_name_is_another_issuer() {
        let (old, new) = (authority("a"), authority("a"));
        let key = generate(KeyAlgorithm::EcdsaP256).unwrap();
        let facts = first_certificate("test", &issue(&order(), &key, &old).unwrap()).unwrap();
        assert_eq!(check(&facts, &key, &order(), new.facts()), Some(Reason::IssuerChanged));
    }

    #[test]
    fn a_key_of_another_certificate_is_seen() {
        let (authority, key) = (authority("a"), generate(KeyAlgorithm::EcdsaP256).unwrap());
        let facts = first_certificate("test", &issue(&order(), &key, &authority).unwrap()).unwrap();
        let other = generate(KeyAlgorithm::EcdsaP256).unwrap();
        assert_eq!(check(&facts, &other, &order(), authority.facts()), Some(Reason::KeyMismatch));
    }

    #[test]
    fn no_certificate_outlives_its_authority() {
        let (authority, key) = (authority("a"), generate(KeyAlgorithm::EcdsaP256).unwrap());
        let order = CertificateOrder { not_after: at(99_000_000), ..order() };
        let facts = first_certificate("test", &issue(&order, &key, &authority).unwrap()).unwrap();
        assert_eq!(facts.not_after, at(9_000_000));
        let late = CertificateOrder { not_before: at(9_000_000), ..order };
        assert!(issue(&late, &key, &authority).is_err());
    }

    #[test]
    fn two_certificates_have_two_serial_numbers() {
        let (authority, key) = (authority("a"), generate(KeyAlgorithm::EcdsaP256).unwrap());
        let serial = || first_certificate("test", &issue(&order(), &key, &authority).unwrap()).unwrap().serial;
        assert_ne!(serial(), serial());
    }

    #[test]
    fn the_serial_number_spreads_renewals_over_a_tenth_of_the_time_and_never_before_the_beginning() {
        let (authority, key) = (authority("a"), generate(KeyAlgorithm::EcdsaP256).unwrap());
        let mut facts = first_certificate("test", &issue(&order(), &key, &authority).unwrap()).unwrap();
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
    fn a_certificate_of_minutes_is_not_due_as_soon_as_it_is_there() {
        let (authority, key) = (authority("a"), generate(KeyAlgorithm::EcdsaP256).unwrap());
        // Ten minutes from one million on, issued with the five minutes before.
        let order = CertificateOrder { not_after: at(1_000_600), ..order() };
        let facts = first_certificate("test", &issue(&order, &key, &authority).unwrap()).unwrap();
        let due = |renew_before| {
            let terms = LeafTerms { renew_before, ..crate::model::Policy::default().default_leaf() };
            leaf_renewal_time(&facts, terms)
        };
        // A tenth of the two minutes before it is what there is to spread over.
        assert!((at(1_000_108)..=at(1_000_120)).contains(&due(keyplane_crds::RenewBefore::Percentage(80))));
        assert_eq!(due(keyplane_crds::RenewBefore::Percentage(99)), at(1_000_060));
        assert_eq!(due(keyplane_crds::RenewBefore::Duration(Duration::from_secs(599))), at(1_000_060));
    }

    #[test]
    fn a_certificate_is_due_before_its_end_by_the_policys_share() {
        let (authority, key) = (authority("a"), generate(KeyAlgorithm::EcdsaP256).unwrap());
        let facts = first_certificate("test", &issue(&order(), &key, &authority).unwrap()).unwrap();
        let terms = crate::model::Policy::default().default_leaf();
        // A million seconds, of which three tenths are left, and up to a tenth of these more.
        let due = leaf_renewal_time(&facts, terms);
        assert!((at(1_670_000)..=at(1_700_000)).contains(&due), "{due}");
        assert_eq!(urgency(&facts, terms, due - SignedDuration::from_secs(1)), Urgency::NotDue);
        assert_eq!(urgency(&facts, terms, due), Urgency::Due);
        assert_eq!(urgency(&facts, terms, at(1_899_999)), Urgency::Due);
        assert_eq!(urgency(&facts, terms, at(1_900_000)), Urgency::Urgent);
        assert_eq!(authority_renewal_time(authority.facts(), terms), at(6_600_000));
    }
}
