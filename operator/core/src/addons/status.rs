//! The observed state of the add-ons, and the condition `AddonsReady`.

use std::collections::BTreeMap;

use keyplane_crds::reasons;
use serde_json::Value;

use super::Addon;
use crate::model::Cluster;

/// The observed state of an add-on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddonState {
    /// All objects are applied.
    Applied {
        /// The rollout of the Pods, once the workload was observed.
        rollout: Option<WorkloadRollout>,
        /// The objects that the user manages.
        unmanaged: Vec<String>,
    },
    /// Objects with these names exist that Keyplane does not manage: nothing is applied.
    Foreign(Vec<String>),
    /// Applying or deleting the add-on failed.
    Failed(String),
}

/// The rollout status of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkloadRollout {
    /// The desired number of Pods.
    pub desired: i64,
    /// The number of available Pods.
    pub available: i64,
    /// Whether all Pods are updated and available.
    pub complete: bool,
}

impl WorkloadRollout {
    /// Reads a Deployment or DaemonSet.
    #[must_use]
    pub fn of(kind: &str, workload: &Value, generation: Option<i64>) -> Self {
        let number = |pointer: &str| workload.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
        let (desired, updated, available) = if kind == "Deployment" {
            ("/spec/replicas", "/status/updatedReplicas", "/status/availableReplicas")
        } else {
            ("/status/desiredNumberScheduled", "/status/updatedNumberScheduled", "/status/numberAvailable")
        };
        let (desired, updated, available) = (number(desired), number(updated), number(available));
        let observed = number("/status/observedGeneration") >= generation.unwrap_or_default();
        Self {
            desired,
            available: available.min(desired),
            complete: observed && updated >= desired && available >= desired,
        }
    }
}

/// The condition `AddonsReady`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether all add-ons are ready.
    pub ready: bool,
    /// The reason.
    pub reason: &'static str,
    /// The message.
    pub message: String,
}

/// Returns the condition for all add-ons. `facts` is `None` while the target cluster does not answer.
#[must_use]
pub fn health(cluster: &Cluster, facts: Option<&BTreeMap<Addon, AddonState>>) -> Health {
    let health = |ready, reason, message: String| Health { ready, reason, message };
    let Some(facts) = facts else {
        return health(
            false,
            reasons::NOT_CONTACTED,
            "the state of the add-ons is unknown: the target cluster has not answered".to_owned(),
        );
    };
    let (mut failed, mut foreign, mut under_way, mut running, mut unmanaged) = (vec![], vec![], vec![], vec![], vec![]);
    for addon in Addon::ALL {
        let name = addon.name();
        match facts.get(&addon) {
            Some(AddonState::Failed(problem)) => failed.push(format!("{name}: {problem}")),
            Some(AddonState::Foreign(objects)) => foreign.push(format!("{name}: {}", objects.join(", "))),
            Some(AddonState::Applied { rollout, unmanaged: names }) => {
                unmanaged.extend(names.iter().cloned());
                match rollout {
                    Some(WorkloadRollout { desired, available, complete: true }) => {
                        running.push(format!("{name} {available}/{desired}"));
                    }
                    Some(WorkloadRollout { desired, available, .. }) => {
                        under_way.push(format!("{name}: {available} of {desired} Pods are available"));
                    }
                    None => under_way.push(format!("{name}: its Pods have not been observed yet")),
                }
            }
            None if addon.is_enabled(cluster) => under_way.push(format!("{name} is not applied yet")),
            None => {}
        }
    }
    if !failed.is_empty() {
        return health(false, reasons::APPLY_FAILED, failed.join("; "));
    }
    if !foreign.is_empty() {
        let message = format!(
            "{}: not managed by Keyplane, so unchanged; label them app.kubernetes.io/managed-by=keyplane to hand them \
             over, delete them, or disable the add-on in spec.addons",
            foreign.join("; ")
        );
        return health(false, reasons::FOREIGN_OBJECT, message);
    }
    if !under_way.is_empty() {
        return health(false, reasons::ROLLING_OUT, under_way.join("; "));
    }
    if running.is_empty() {
        return health(true, reasons::NOT_REQUIRED, "no add-on is enabled".to_owned());
    }
    let mut message = format!("Pods available: {}", running.join(", "));
    if !unmanaged.is_empty() {
        message = format!("{message}; left to the user: {}", unmanaged.join(", "));
    }
    health(true, reasons::INSTALLED, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rollout_is_complete_only_for_observed_generation() {
        let deployment = |observed: i64, updated: i64, available: i64| {
            let value = json!({"spec": {"replicas": 2}, "status":
                {"observedGeneration": observed, "updatedReplicas": updated, "availableReplicas": available}});
            WorkloadRollout::of("Deployment", &value, Some(5)).complete
        };
        assert!(deployment(5, 2, 2));
        assert!(!deployment(4, 2, 2) && !deployment(5, 1, 2) && !deployment(5, 2, 1));
        let daemon_set = json!({"status":
            {"observedGeneration": 1, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 2}});
        let rollout = WorkloadRollout::of("DaemonSet", &daemon_set, Some(1));
        assert_eq!((rollout.desired, rollout.available, rollout.complete), (3, 2, false));
    }
}
