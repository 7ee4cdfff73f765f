//! Messages and status about a change of encryption.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keyplane_crds::{RotationPhase, RotationStatus, reasons};

use super::proof::problem;
use super::{EncryptionInputs, Facts, Stage, State, Writer};

/// The name in `status.rotations`.
pub const ROTATION: &str = "encryption-key";
/// The number of nodes that a message names; a control plane has nine at most.
const MAX_NAMED: usize = 4;

/// Returns the reason of the Event about the new state; `None` if only the progress within a stage changed.
#[must_use]
pub fn event_reason(before: Option<&State>, after: &State) -> Option<&'static str> {
    let stage = |state: &State| state.change.as_ref().map(|change| (change.stage, change.since, change.rolling_back));
    if before.is_some_and(|before| before.made == after.made && stage(before) == stage(after)) {
        return None;
    }
    Some(match &after.change {
        None if after.completed.is_none() => reasons::ENCRYPTION_KEY_CREATED,
        None => reasons::ENCRYPTION_COMPLETED,
        Some(change) => match change.stage {
            Stage::Publish => reasons::ENCRYPTION_PUBLISH,
            Stage::Write => reasons::ENCRYPTION_WRITE,
            Stage::Reencrypt => reasons::ENCRYPTION_REENCRYPT,
            Stage::Settle => reasons::ENCRYPTION_SETTLE,
            Stage::Drop => reasons::ENCRYPTION_DROP,
        },
    })
}

/// Returns the entry in `status.rotations`; `None` before the first change.
#[must_use]
pub fn rotation(state: &State, waits: Vec<String>) -> Option<RotationStatus> {
    if let Some(change) = &state.change {
        return Some(RotationStatus {
            name: ROTATION.to_owned(),
            requested: change.requested.clone(),
            phase: match change.stage {
                Stage::Publish | Stage::Write | Stage::Reencrypt => RotationPhase::Preparing,
                Stage::Settle => RotationPhase::Prepared,
                Stage::Drop => RotationPhase::Completing,
            },
            stage: Some(change.stage.name().to_owned()),
            rolling_back: change.rolling_back,
            start_time: Time(change.started),
            last_transition_time: Time(change.since),
            nodes_updated_time: None,
            waiting_for: waits,
        });
    }
    let completed = state.completed.as_ref()?;
    Some(RotationStatus {
        name: ROTATION.to_owned(),
        requested: completed.requested.clone(),
        phase: RotationPhase::Completed,
        stage: None,
        rolling_back: completed.rolled_back,
        start_time: Time(completed.started),
        last_transition_time: Time(completed.ended),
        nodes_updated_time: None,
        waiting_for: vec![],
    })
}

/// Returns the conditions that the stage waits for. `secret` returns the name of a node's Secret.
#[must_use]
pub fn waits(state: &State, inputs: &EncryptionInputs<'_>, secret: impl Fn(&str) -> String) -> Vec<String> {
    let Some(change) = &state.change else { return vec![] };
    match change.stage {
        Stage::Publish | Stage::Write | Stage::Drop => {
            let lacking =
                inputs.nodes.iter().filter_map(|node| Some((node, problem(node, inputs.file, inputs.facts)?)));
            let words = lacking.map(|(node, why)| {
                format!(
                    "{node}: {why}; the API server reloads the file from Secret {} within a minute after it is applied",
                    secret(node)
                )
            });
            words.take(MAX_NAMED).collect()
        }
        Stage::Reencrypt => vec![reencryption(state, inputs.facts)],
        Stage::Settle => {
            let until = change.since + inputs.delays.history;
            vec![format!("etcd: lists and watches may read older revisions until {until}")]
        }
    }
}

fn reencryption(state: &State, facts: Option<&Facts>) -> String {
    let Some(change) = &state.change else { return String::new() };
    let seen = facts.and_then(|facts| facts.reencryption.as_ref()).filter(|seen| seen.since == change.since);
    let progress = seen.map_or(&change.progress, |seen| &seen.progress);
    let changed_resources = state.changed_resources();
    let (left, of) =
        (changed_resources.difference(&progress.done).cloned().collect::<Vec<_>>(), changed_resources.len());
    let trouble = seen.and_then(|seen| seen.trouble.as_ref()).map(|trouble| format!("; {trouble}"));
    format!(
        "{}: re-encrypted {} objects, and {} of {of} resources completely{}",
        left.join(", "),
        progress.objects,
        of - left.len(),
        trouble.unwrap_or_default()
    )
}

/// Describes the state, for example `secrets are encrypted with key-2 (secretbox)`.
#[must_use]
pub fn describe(state: &State) -> String {
    if let Some(change) = &state.change {
        let to = match state.key() {
            Some(key) => format!("{} ({})", key.name, key.provider.name()),
            None => "no encryption".to_owned(),
        };
        let what = match change.stage {
            Stage::Publish => "is added to every API server",
            Stage::Write => "becomes the write key of every API server",
            Stage::Reencrypt => "is the write key: existing objects are re-encrypted",
            Stage::Settle => "has encrypted every object: the old key stays until older revisions are compacted",
            Stage::Drop => "has encrypted every object: the old key is removed from every API server",
        };
        let changed_resources = state.changed_resources();
        let changed_resources =
            if changed_resources.is_empty() { change.to.keys().cloned().collect() } else { changed_resources };
        let changed_resources: Vec<_> = changed_resources.into_iter().collect();
        let back = if change.rolling_back { ", rolling back" } else { "" };
        return format!("{}: {to} {what}{back}", changed_resources.join(", "));
    }
    let encrypted: Vec<_> = state
        .resources
        .iter()
        .filter(|(_, writer)| **writer != Writer::Identity)
        .map(|(name, _)| name.as_str())
        .collect();
    match state.key() {
        Some(key) => format!("{} are encrypted with {} ({})", encrypted.join(", "), key.name, key.provider.name()),
        None => "nothing is encrypted".to_owned(),
    }
}
