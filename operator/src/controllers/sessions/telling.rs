//! What a session tells people of its work, as Events and in the log.

use keyplane_crds::reasons;

use super::Brief;
use super::addons::Done;
use super::preparation::Prepared;
use super::session::Session;

impl Session {
    /// What was done to prepare the target, and what stands in the way of its rules.
    pub(super) async fn tell(&self, brief: &Brief, prepared: Prepared) {
        self.findings.learn(|facts| facts.configured_ahead = prepared.configured_ahead);
        if !prepared.granted.is_empty() {
            let note = format!(
                "granted rights in the target with the super-admin's credential, applied {}",
                prepared.granted.join(", ")
            );
            tracing::info!(cluster = %self.findings.object, note, "target prepared");
            self.events.normal(&brief.reference, reasons::TARGET_BOOTSTRAPPED, "Prepare", &note).await;
        }
        if !prepared.removed.is_empty() {
            let note = format!(
                "Keyplane judges kubelets' client certificates: took away with the super-admin's credential {}",
                prepared.removed.join(", ")
            );
            tracing::info!(cluster = %self.findings.object, note, "target prepared");
            self.events.normal(&brief.reference, reasons::TARGET_BOOTSTRAPPED, "Remove", &note).await;
        }
        if !prepared.foreign.is_empty() {
            let note = format!(
                "the controller-manager approves kubelets' client certificates unseen, beside Keyplane: delete {}",
                prepared.foreign.join(", ")
            );
            self.events.warning(&brief.reference, reasons::APPROVED_BY_OTHERS, "Prepare", &note).await;
        }
        if !prepared.mended.is_empty() {
            let note = format!("put right in the target: {}", prepared.mended.join(", "));
            tracing::info!(cluster = %self.findings.object, note, "target mended");
            self.events.normal(&brief.reference, reasons::TARGET_OBJECTS_REPAIRED, "Repair", &note).await;
        }
    }

    /// What was done about its add-ons.
    pub(super) async fn tell_addons(&self, brief: &Brief, done: Done) {
        for (objects, reason, action, what) in [
            (done.applied, reasons::ADDONS_APPLIED, "Apply", "applied add-ons in the target"),
            (done.removed, reasons::ADDONS_REMOVED, "Remove", "took add-ons out of the target"),
        ] {
            if !objects.is_empty() {
                let note = format!("{what}: {}", objects.join(", "));
                tracing::info!(cluster = %self.findings.object, note, "add-ons");
                self.events.normal(&brief.reference, reason, action, &note).await;
            }
        }
    }
}
