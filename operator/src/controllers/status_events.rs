//! Events about transitions in a ClusterSpec's status.

use keyplane_crds::{ClusterCondition, ClusterSpec, ClusterSpecStatus, Condition, condition_of, reasons};

use super::{Context, unversioned};

/// Conditions that block nothing, but lead to a Warning Event with any reason.
const WARNINGS: [ClusterCondition; 2] = [ClusterCondition::NodesInSync, ClusterCondition::KubeletVersionsMatch];

/// The reason of a revocation that waits for approval.
const NOT_CONFIRMED: &str = reasons::REVOCATION_NOT_CONFIRMED;

/// Reasons of other conditions that lead to a Warning Event.
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

/// The reason of a rejected certificate of an external signer. Each new message leads to an Event.
const REFUSED: &str = reasons::CERTIFICATE_REFUSED;

/// Records Events for the differences between the previous and the new status.
pub(super) async fn record_transitions(found: &ClusterSpec, status: &ClusterSpecStatus, context: &Context) {
    let before = found.status.clone().unwrap_or_default();
    let about = unversioned(found);
    if is_true(&status.conditions, ClusterCondition::Ready) && !is_true(&before.conditions, ClusterCondition::Ready) {
        context.events.normal(&about, reasons::READY, "Report", "the cluster is Ready").await;
    }
    if let (Some(old), Some(new)) = (&before.kubernetes_version, &status.kubernetes_version)
        && old != new
    {
        let note = format!("the control plane runs {new} on every node, upgraded from {old}");
        context.events.normal(&about, reasons::UPGRADED, "Report", &note).await;
    }
    for condition in warnings(&before.conditions, &status.conditions) {
        context.events.warning(&about, &condition.reason, "Compare", &condition.message).await;
    }
}

/// Returns the conditions that need a Warning Event and had none before. The message of a stuck rotation changes with
/// every node that makes progress, so a stuck rotation is reported only once.
fn warnings<'a>(before: &[Condition], now: &'a [Condition]) -> Vec<&'a Condition> {
    let differing = WARNINGS.into_iter().filter_map(|condition| {
        let found = complaint(now, condition)?;
        let reported = complaint(before, condition).is_some_and(|old| old.message == found.message);
        (!reported).then_some(found)
    });
    let reasons = REASONS.into_iter().filter_map(|(condition, reason)| {
        let found = condition_of(now, condition.name()).filter(|found| found.reason == reason)?;
        // A new confirmation value of a revocation, or a new problem of a certificate, is reported each time.
        let is_same = |old: &&Condition| ![NOT_CONFIRMED, REFUSED].contains(&reason) || old.message == found.message;
        let reported = condition_of(before, condition.name()).filter(is_same).is_some_and(|old| old.reason == reason);
        (!reported).then_some(found)
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

    fn with_condition(
        condition: ClusterCondition,
        status: ConditionStatus,
        reason: &str,
        message: &str,
    ) -> Vec<Condition> {
        let mut conditions = vec![];
        set_condition(&mut conditions, condition.name(), status, reason, message, None, Timestamp::UNIX_EPOCH);
        conditions
    }

    #[test]
    fn warns_once_of_stuck_rotation_and_expiring_ca() {
        let settled = ClusterCondition::RotationsCompleted;
        let in_progress = with_condition(settled, ConditionStatus::False, "RotationInProgress", "ca waits for cp1");
        let stuck = |on: &str| with_condition(settled, ConditionStatus::False, "RotationStuck", on);
        assert!(warnings(&[], &in_progress).is_empty());
        assert_eq!(warnings(&in_progress, &stuck("cp1"))[0].reason, "RotationStuck");
        assert!(warnings(&stuck("cp1"), &stuck("cp2")).is_empty());
        let ending = with_condition(ClusterCondition::CertificatesValid, ConditionStatus::True, "CAExpiresSoon", "ca");
        assert_eq!(warnings(&[], &ending)[0].message, "ca");
        assert!(warnings(&ending, &ending).is_empty());
    }

    #[test]
    fn warns_again_of_node_that_differs_in_another_way() {
        let differs = |message: &str| {
            with_condition(ClusterCondition::NodesInSync, ConditionStatus::False, "ManifestDiffers", message)
        };
        assert_eq!(warnings(&differs("cp1"), &differs("cp2")).len(), 1);
        assert!(warnings(&differs("cp1"), &differs("cp1")).is_empty());
    }
}
