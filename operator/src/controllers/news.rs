//! Events about what is new in a status.

use keyplane_crds::{ClusterCondition, ClusterSpec, ClusterSpecStatus, Condition, condition_of, reasons};

use super::Context;
use super::cluster_spec::unversioned;

/// Conditions that do not stop anything, and that somebody should hear of whatever their reason is.
const WARNINGS: [ClusterCondition; 2] = [ClusterCondition::NodesInSync, ClusterCondition::KubeletVersionsMatch];

/// A revocation waits for a person.
const NOT_CONFIRMED: &str = reasons::REVOCATION_NOT_CONFIRMED;

/// Reasons of other conditions that somebody should hear of.
const REASONS: [(ClusterCondition, &str); 12] = [
    (ClusterCondition::CertificatesValid, reasons::CA_EXPIRES_SOON),
    (ClusterCondition::CertificatesValid, reasons::RENEWAL_DUE),
    (ClusterCondition::CertificatesValid, reasons::EXPIRED),
    (ClusterCondition::RotationsCompleted, reasons::ROTATION_STUCK),
    (ClusterCondition::RotationsCompleted, NOT_CONFIRMED),
    (ClusterCondition::RotationsCompleted, reasons::REQUEST_REFUSED),
    (ClusterCondition::CertificateAuthoritiesInSync, reasons::SECRET_NOT_FOUND),
    (ClusterCondition::CertificateAuthoritiesInSync, reasons::SECRET_UNUSABLE),
    (ClusterCondition::EncryptedAtRest, reasons::ENCRYPTION_STUCK),
    (ClusterCondition::CertificatesSigned, reasons::WAITING_FOR_SIGNER),
    (ClusterCondition::CertificatesSigned, reasons::SIGNER_OVERDUE),
    (ClusterCondition::CertificatesSigned, REFUSED),
];

/// What is wrong with an answer is told whenever it is something else.
const REFUSED: &str = reasons::CERTIFICATE_REFUSED;

/// Tells what the new status says and the one before did not.
pub(super) async fn tell(found: &ClusterSpec, status: &ClusterSpecStatus, context: &Context) {
    let before = found.status.clone().unwrap_or_default();
    let about = unversioned(found);
    if is_true(&status.conditions, ClusterCondition::Ready) && !is_true(&before.conditions, ClusterCondition::Ready) {
        context.events.normal(&about, reasons::READY, "Report", "the cluster is Ready").await;
    }
    if let (Some(old), Some(new)) = (&before.kubernetes_version, &status.kubernetes_version)
        && old != new
    {
        let note = format!("the control plane runs {new} on every node; it ran {old}");
        context.events.normal(&about, reasons::UPGRADED, "Report", &note).await;
    }
    for condition in warnings(&before.conditions, &status.conditions) {
        context.events.warning(&about, &condition.reason, "Compare", &condition.message).await;
    }
}

/// What somebody should hear of, and has not yet. What a stuck rotation waits for changes with every machine that does its
/// part: that it is stuck is told once.
fn warnings<'a>(before: &[Condition], now: &'a [Condition]) -> Vec<&'a Condition> {
    let differing = WARNINGS.into_iter().filter_map(|condition| {
        let found = complaint(now, condition)?;
        let told = complaint(before, condition).is_some_and(|old| old.message == found.message);
        (!told).then_some(found)
    });
    let reasons = REASONS.into_iter().filter_map(|(condition, reason)| {
        let found = condition_of(now, condition.name()).filter(|found| found.reason == reason)?;
        // What confirms a revocation, or what is wrong with an answer, has to be heard of each time that it is another.
        let is_same = |old: &&Condition| ![NOT_CONFIRMED, REFUSED].contains(&reason) || old.message == found.message;
        let told = condition_of(before, condition.name()).filter(is_same).is_some_and(|old| old.reason == reason);
        (!told).then_some(found)
    });
    differing.chain(reasons).collect()
}

fn is_true(conditions: &[Condition], condition: ClusterCondition) -> bool {
    condition_of(conditions, condition.name()).is_some_and(|condition| condition.status == "True")
}

fn complaint(conditions: &[Condition], condition: ClusterCondition) -> Option<&Condition> {
    condition_of(conditions, condition.name()).filter(|condition| condition.status == "False")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use keyplane_crds::{ConditionStatus, set_condition};

    use super::*;

    fn saying(condition: ClusterCondition, status: ConditionStatus, reason: &str, message: &str) -> Vec<Condition> {
        let mut conditions = vec![];
        set_condition(&mut conditions, condition.name(), status, reason, message, None, Timestamp::UNIX_EPOCH);
        conditions
    }

    #[test]
    fn a_rotation_that_is_stuck_and_an_authority_that_ends_are_warned_of_once() {
        let settled = ClusterCondition::RotationsCompleted;
        let under_way = saying(settled, ConditionStatus::False, "RotationInProgress", "ca waits for cp1");
        let stuck = |on: &str| saying(settled, ConditionStatus::False, "RotationStuck", on);
        assert!(warnings(&[], &under_way).is_empty());
        assert_eq!(warnings(&under_way, &stuck("cp1"))[0].reason, "RotationStuck");
        assert!(warnings(&stuck("cp1"), &stuck("cp2")).is_empty());
        let ending = saying(ClusterCondition::CertificatesValid, ConditionStatus::True, "CAExpiresSoon", "ca");
        assert_eq!(warnings(&[], &ending)[0].message, "ca");
        assert!(warnings(&ending, &ending).is_empty());
    }

    #[test]
    fn a_machine_that_differs_otherwise_than_before_is_warned_of_again() {
        let differs =
            |message: &str| saying(ClusterCondition::NodesInSync, ConditionStatus::False, "ManifestDiffers", message);
        assert_eq!(warnings(&differs("cp1"), &differs("cp2")).len(), 1);
        assert!(warnings(&differs("cp1"), &differs("cp1")).is_empty());
    }
}
