//! What is known of the add-ons, and what the condition `AddonsReady` says of it.

use std::collections::BTreeMap;

use keyplane_crds::reasons;
use serde_json::Value;

use super::Addon;
use crate::model::Cluster;

/// What is known of an add-on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddonFacts {
    /// It is applied.
    Applied {
        /// How far its Pods are, once its workload was seen.
        rollout: Option<Rollout>,
        /// Objects that the user has taken over.
        left: Vec<String>,
    },
    /// Objects of somebody else have names of its objects: nothing of it is applied.
    Foreign(Vec<String>),
    /// It could not be applied, or not be taken away.
    Failed(String),
}

/// How far a workload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollout {
    /// Pods that there are to be.
    pub wanted: i64,
    /// Of them, those that are available.
    pub available: i64,
    /// Whether all are of the newest kind, and available.
    pub complete: bool,
}

impl Rollout {
    /// Reads a Deployment or DaemonSet.
    #[must_use]
    pub fn of(kind: &str, workload: &Value, generation: Option<i64>) -> Self {
        let number = |pointer: &str| workload.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
        let (wanted, updated, available) = if kind == "Deployment" {
            ("/spec/replicas", "/status/updatedReplicas", "/status/availableReplicas")
        } else {
            ("/status/desiredNumberScheduled", "/status/updatedNumberScheduled", "/status/numberAvailable")
        };
        let (wanted, updated, available) = (number(wanted), number(updated), number(available));
        let observed = number("/status/observedGeneration") >= generation.unwrap_or_default();
        Self {
            wanted,
            available: available.min(wanted),
            complete: observed && updated >= wanted && available >= wanted,
        }
    }
}

/// What the condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether all is well.
    pub good: bool,
    /// The reason.
    pub reason: &'static str,
    /// What there is, or what to do.
    pub message: String,
}

/// What the condition says of all add-ons; `facts` are missing while the target does not answer.
#[must_use]
pub fn health(cluster: &Cluster, facts: Option<&BTreeMap<Addon, AddonFacts>>) -> Health {
    let health = |good, reason, message: String| Health { good, reason, message };
    let Some(facts) = facts else {
        return health(
            false,
            reasons::NOT_CONTACTED,
            "the add-ons have not been looked at: the target has not answered".to_owned(),
        );
    };
    let (mut failed, mut foreign, mut under_way, mut running, mut left) = (vec![], vec![], vec![], vec![], vec![]);
    for addon in Addon::ALL {
        let name = addon.name();
        match facts.get(&addon) {
            Some(AddonFacts::Failed(problem)) => failed.push(format!("{name}: {problem}")),
            Some(AddonFacts::Foreign(objects)) => foreign.push(format!("{name}: {}", objects.join(", "))),
            Some(AddonFacts::Applied { rollout, left: theirs }) => {
                left.extend(theirs.iter().cloned());
                match rollout {
                    Some(Rollout { wanted, available, complete: true }) => {
                        running.push(format!("{name} {available}/{wanted}"));
                    }
                    Some(Rollout { wanted, available, .. }) => {
                        under_way.push(format!("{name}: {available} of {wanted} Pods are available"));
                    }
                    None => under_way.push(format!("{name}: its Pods have not been seen yet")),
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
            "{}: not Keyplane's, left alone; label them app.kubernetes.io/managed-by=keyplane to hand them over, delete \
             them, or switch the add-on off in spec.addons",
            foreign.join("; ")
        );
        return health(false, reasons::FOREIGN_OBJECT, message);
    }
    if !under_way.is_empty() {
        return health(false, reasons::ROLLING_OUT, under_way.join("; "));
    }
    if running.is_empty() {
        return health(true, reasons::NOT_REQUIRED, "no add-on is switched on".to_owned());
    }
    let mut message = format!("Pods available: {}", running.join(", "));
    if !left.is_empty() {
        message = format!("{message}; left to the user: {}", left.join(", "));
    }
    health(true, reasons::INSTALLED, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rollout_is_complete_only_when_its_newest_generation_is() {
        let deployment = |observed: i64, updated: i64, available: i64| {
            let value = json!({"spec": {"replicas": 2}, "status":
                {"observedGeneration": observed, "updatedReplicas": updated, "availableReplicas": available}});
            Rollout::of("Deployment", &value, Some(5)).complete
        };
        assert!(deployment(5, 2, 2));
        assert!(!deployment(4, 2, 2) && !deployment(5, 1, 2) && !deployment(5, 2, 1));
        let daemon_set = json!({"status":
            {"observedGeneration": 1, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 2}});
        let rollout = Rollout::of("DaemonSet", &daemon_set, Some(1));
        assert_eq!((rollout.wanted, rollout.available, rollout.complete), (3, 2, false));
    }
}
