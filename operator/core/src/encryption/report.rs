//! What is told of a change.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keyplane_crds::{RotationPhase, RotationStatus, reasons};

use super::proof::lack;
use super::{Facts, Stage, State, Surroundings, Writer};

/// The name of what is rotated, in `status.rotations`.
pub const ROTATION: &str = "encryption-key";
/// So many machines are told; there are nine at most.
const TOLD: usize = 4;

/// The reason of the Event about what is remembered from now on; nothing where that is only how far a stage is.
#[must_use]
pub fn news(before: Option<&State>, after: &State) -> Option<&'static str> {
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

/// The last rotation, if there was one.
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

/// What the stage waits for, each with what it is about; `secret` names the Secret of a node.
#[must_use]
pub fn waits(state: &State, around: &Surroundings<'_>, secret: impl Fn(&str) -> String) -> Vec<String> {
    let Some(change) = &state.change else { return vec![] };
    match change.stage {
        Stage::Publish | Stage::Write | Stage::Drop => {
            let lacking = around.nodes.iter().filter_map(|node| Some((node, lack(node, around.file, around.facts)?)));
            let words = lacking.map(|(node, why)| {
                format!("{node}: {why}; it needs what Secret {} has, and reads it within a minute", secret(node))
            });
            words.take(TOLD).collect()
        }
        Stage::Reencrypt => vec![rewriting(state, around.facts)],
        Stage::Settle => {
            let until = change.since + around.delays.history;
            vec![format!("etcd: until {until} somebody may read what was there before")]
        }
    }
}

fn rewriting(state: &State, facts: Option<&Facts>) -> String {
    let Some(change) = &state.change else { return String::new() };
    let seen = facts.and_then(|facts| facts.rewriting.as_ref()).filter(|seen| seen.since == change.since);
    let progress = seen.map_or(&change.progress, |seen| &seen.progress);
    let moved = state.moved();
    let (left, of) = (moved.difference(&progress.done).cloned().collect::<Vec<_>>(), moved.len());
    let trouble = seen.and_then(|seen| seen.trouble.as_ref()).map(|trouble| format!("; {trouble}"));
    format!(
        "{}: written anew are {} objects, and {} of {of} resources entirely{}",
        left.join(", "),
        progress.objects,
        of - left.len(),
        trouble.unwrap_or_default()
    )
}

/// What there is, in words: `secrets with key-2 (secretbox)`.
#[must_use]
pub fn describe(state: &State) -> String {
    if let Some(change) = &state.change {
        let to = match state.key() {
            Some(key) => format!("{} ({})", key.name, key.provider.name()),
            None => "no encryption".to_owned(),
        };
        let what = match change.stage {
            Stage::Publish => "becomes known to every API server",
            Stage::Write => "is written with by every API server",
            Stage::Reencrypt => "is for everything: objects are written anew",
            Stage::Settle => "is for everything, and the former is kept until nobody reads what was there before",
            Stage::Drop => "is the only one: the former is taken away from every API server",
        };
        let moved = state.moved();
        let moved = if moved.is_empty() { change.to.keys().cloned().collect() } else { moved };
        let moved: Vec<_> = moved.into_iter().collect();
        let back = if change.rolling_back { ", taking back what was begun" } else { "" };
        return format!("{}: {to} {what}{back}", moved.join(", "));
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
