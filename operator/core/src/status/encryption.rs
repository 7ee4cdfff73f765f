//! Status of encryption at rest.

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{RotationStatus, reasons};

use super::{Outcome, rotations};
use crate::encryption::{self, Stage};
use crate::model::Cluster;
use crate::names;
use crate::observed::Observed;
use crate::plan::encryption_keys::{NOT_ENCRYPTED, NOT_RENDERED, StoredKeys, encryption_inputs, load, nodes};

/// Returns the entry in `status.rotations`.
pub(super) fn rotation(cluster: &Cluster, observed: &Observed, now: Timestamp) -> Option<RotationStatus> {
    let Ok(Some(kept)) = load(cluster, observed) else {
        // A blocked rotation keeps its entry.
        return observed.status.rotations.iter().find(|row| row.name == encryption::ROTATION).cloned();
    };
    encryption::rotation(&kept.state, waits(cluster, observed, &kept, now))
}

fn waits(cluster: &Cluster, observed: &Observed, kept: &StoredKeys, now: Timestamp) -> Vec<String> {
    let (nodes, file) = (nodes(cluster), kept.configuration().unwrap_or_default());
    let inputs = encryption_inputs(cluster, observed, &nodes, &file, now);
    encryption::waits(&kept.state, &inputs, |node| names::node_secret(&cluster.name, node))
}

/// Returns the condition; `None` if nothing is encrypted and encryption is not requested.
pub(super) fn outcome(cluster: &Cluster, observed: &Observed, now: Timestamp) -> Option<Outcome> {
    let kept = match load(cluster, observed) {
        Err(blocker) => return Some(Outcome::bad(blocker.reason, blocker.message)),
        Ok(None) => {
            return cluster
                .encryption
                .as_ref()
                .map(|_| Outcome::bad(NOT_RENDERED, "the encryption key is not generated yet"));
        }
        Ok(Some(kept)) => kept,
    };
    let words = encryption::describe(&kept.state);
    match &kept.state.change {
        None if kept.state.is_in_use() => Some(Outcome::good(reasons::ENCRYPTED, words)),
        None => cluster.encryption.as_ref().map(|_| Outcome::bad(NOT_ENCRYPTED, words)),
        Some(change) => {
            let waits = waits(cluster, observed, &kept, now);
            let message = format!("{words}; waits for {}", waits.join("; "));
            // The re-encryption of many objects may take long.
            let is_late = change.stage != Stage::Reencrypt && rotations::is_late(change.since, now);
            Some(Outcome::bad(if is_late { reasons::ENCRYPTION_STUCK } else { change.stage.name() }, message))
        }
    }
}
