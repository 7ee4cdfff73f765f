//! Events and log lines of a session.

use keyplane_crds::reasons;

use super::SessionSpec;
use super::addons::Done;
use super::bootstrap::Prepared;
use super::session::Session;

impl Session {
    /// Records the changes of the bootstrap of a target cluster, and foreign objects that conflict with the policy.
    pub(super) async fn record_prepared(&self, spec: &SessionSpec, prepared: Prepared) {
        self.target_status.update(|facts| facts.configured_ahead = prepared.configured_ahead);
        if !prepared.granted.is_empty() {
            let note = format!(
                "granted permissions in the target cluster with the super-admin credential: applied {}",
                prepared.granted.join(", ")
            );
            tracing::info!(cluster = %self.target_status.object, note, "target bootstrapped");
            self.events.normal(&spec.reference, reasons::TARGET_BOOTSTRAPPED, "Prepare", &note).await;
        }
        if !prepared.removed.is_empty() {
            let note = format!(
                "removed with the super-admin credential, because Keyplane approves kubelets' client certificates: {}",
                prepared.removed.join(", ")
            );
            tracing::info!(cluster = %self.target_status.object, note, "target bootstrapped");
            self.events.normal(&spec.reference, reasons::TARGET_BOOTSTRAPPED, "Remove", &note).await;
        }
        if !prepared.foreign.is_empty() {
            let note = format!(
                "the controller-manager approves kubelets' client certificates without Keyplane's rules: delete {}",
                prepared.foreign.join(", ")
            );
            self.events.warning(&spec.reference, reasons::APPROVED_BY_OTHERS, "Prepare", &note).await;
        }
        if !prepared.repaired.is_empty() {
            let note = format!("repaired in the target cluster: {}", prepared.repaired.join(", "));
            tracing::info!(cluster = %self.target_status.object, note, "target objects repaired");
            self.events.normal(&spec.reference, reasons::TARGET_OBJECTS_REPAIRED, "Repair", &note).await;
        }
    }

    /// Records the changes of add-ons.
    pub(super) async fn record_addons(&self, spec: &SessionSpec, done: Done) {
        for (objects, reason, action, what) in [
            (done.applied, reasons::ADDONS_APPLIED, "Apply", "applied add-ons in the target cluster"),
            (done.removed, reasons::ADDONS_REMOVED, "Remove", "removed add-ons from the target cluster"),
        ] {
            if !objects.is_empty() {
                let note = format!("{what}: {}", objects.join(", "));
                tracing::info!(cluster = %self.target_status.object, note, "add-ons");
                self.events.normal(&spec.reference, reason, action, &note).await;
            }
        }
    }
}
