//! What the status says of rotations.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{RotationPhase, RotationStatus};

use super::rotation::{self, Progress};
use super::status::Outcome;
use super::{Authorities, Observed};
use crate::cluster::Cluster;
use crate::rotation::Stage;

/// How long a stage may take before somebody should look at it: three nodes with four restarts each take about ten
/// minutes, client-go's poll five.
const STUCK: Duration = Duration::from_mins(30);
/// A status lists no more of what a stage waits for: the first ones are enough to go on with.
const LISTED: usize = 8;

/// The rotations, and the condition about them; no condition where nothing was ever rotated.
pub(super) struct Report {
    pub(super) rotations: Vec<RotationStatus>,
    pub(super) outcome: Option<Outcome>,
}

/// What to say. `rollout` is what the rollout of static pods waits for.
pub(super) fn report(
    cluster: &Cluster,
    observed: &Observed,
    authorities: &Authorities,
    rollout: Option<&str>,
    now: Timestamp,
) -> Report {
    let progress = rotation::progress(cluster, authorities, observed, rollout, now);
    let outcome = outcome(&progress, rotation::not_begun(cluster, observed, rollout, now), now);
    Report { rotations: progress.into_iter().map(|progress| row(progress, observed, now)).collect(), outcome }
}

fn row(progress: Progress, observed: &Observed, now: Timestamp) -> RotationStatus {
    let Progress { subject, state, mut waits, is_held } = progress;
    let before = observed.status.rotations.iter().find(|before| before.name == subject.name());
    let held_before =
        before.filter(|before| before.since.0 == state.since).and_then(|before| before.held_since.clone());
    let more = waits.len().saturating_sub(LISTED);
    waits.truncate(LISTED);
    waits.extend((more > 0).then(|| format!("and {more} more")));
    RotationStatus {
        name: subject.name().to_owned(),
        requested: state.requested.clone(),
        phase: state.phase(),
        stage: state.stage.map(|stage| stage.name().to_owned()),
        rolling_back: state.rolling_back,
        started: Time(state.started),
        since: Time(state.since),
        // Another rotation's files that are on their way change nothing about these.
        held_since: held_before.or_else(|| is_held.then_some(Time(now))),
        waiting_for: waits,
    }
}

/// What the column Rotation shows, for example `ca Preparing`.
pub(super) fn summary(rotations: &[RotationStatus]) -> Option<String> {
    let under_way = rotations.iter().filter(|rotation| rotation.phase != RotationPhase::Completed);
    let words: Vec<_> = under_way.map(|rotation| format!("{} {}", rotation.name, rotation.phase.name())).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn outcome(progress: &[Progress], not_begun: Option<(Vec<&str>, Vec<String>)>, now: Timestamp) -> Option<Outcome> {
    let words = |progress: &&Progress| {
        let stage = progress.state.stage.map_or("none", Stage::name);
        let waits = progress.waits.iter().take(2).cloned().collect::<Vec<_>>().join("; ");
        let back = if progress.state.rolling_back { ", going back" } else { "" };
        format!("{} ({stage}{back}) waits for {waits}", progress.subject.name())
    };
    let list = |which: &dyn Fn(&Progress) -> bool| {
        let under_way = progress.iter().filter(|progress| progress.state.stage.is_some() && which(progress));
        under_way.collect::<Vec<_>>().iter().map(words).collect::<Vec<_>>().join("; ")
    };
    let is_late = |progress: &Progress| {
        progress.state.stage != Some(Stage::Gate)
            && Duration::try_from(now.duration_since(progress.state.since)).is_ok_and(|taken| taken > STUCK)
    };
    let (stuck, gated) = (list(&is_late), list(&|progress| progress.state.stage == Some(Stage::Gate)));
    let all = list(&|_| true);
    if !stuck.is_empty() {
        let minutes = STUCK.as_secs() / 60;
        return Some(Outcome::bad("RotationStuck", format!("no step for {minutes} minutes: {stuck}")));
    }
    if !gated.is_empty() && gated == all {
        return Some(Outcome::bad("WaitsForCompletion", gated));
    }
    if !all.is_empty() {
        return Some(Outcome::bad("RotationUnderWay", all));
    }
    match not_begun {
        Some((names, waits)) if !waits.is_empty() => Some(Outcome::bad(
            "WaitsToBegin",
            format!("the rotation of {} waits for {}", names.join(", "), waits.join("; ")),
        )),
        _ => (!progress.is_empty()).then(|| Outcome::good("Settled", "no rotation is under way")),
    }
}
