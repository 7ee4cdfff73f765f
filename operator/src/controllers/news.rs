//! Events about what is new in a status.

use keyplane_crds::{ClusterCondition, ClusterSpec, ClusterSpecStatus, Condition, condition_of};

use super::Context;
use super::cluster_spec::unversioned;

/// Conditions that do not stop anything, and that somebody should hear of.
const WARNINGS: [ClusterCondition; 2] = [ClusterCondition::MachinesInSync, ClusterCondition::KubeletsCurrent];

/// Tells what the new status says and the one before did not.
pub(super) async fn tell(found: &ClusterSpec, status: &ClusterSpecStatus, context: &Context) {
    let before = found.status.clone().unwrap_or_default();
    let about = unversioned(found);
    if is_true(&status.conditions, ClusterCondition::Ready) && !is_true(&before.conditions, ClusterCondition::Ready) {
        context.events.normal(&about, "Ready", "Report", "the cluster is Ready").await;
    }
    if let (Some(old), Some(new)) = (&before.kubernetes_version, &status.kubernetes_version)
        && old != new
    {
        let note = format!("the control plane runs {new} on every node; it ran {old}");
        context.events.normal(&about, "Upgraded", "Report", &note).await;
    }
    for condition in WARNINGS {
        if let Some(complaint) = complaint(&status.conditions, condition)
            && self::complaint(&before.conditions, condition).is_none_or(|old| old.message != complaint.message)
        {
            context.events.warning(&about, &complaint.reason, "Compare", &complaint.message).await;
        }
    }
}

fn is_true(conditions: &[Condition], condition: ClusterCondition) -> bool {
    condition_of(conditions, condition.name()).is_some_and(|condition| condition.status == "True")
}

fn complaint(conditions: &[Condition], condition: ClusterCondition) -> Option<&Condition> {
    condition_of(conditions, condition.name()).filter(|condition| condition.status == "False")
}
