//! What the status says of rotations.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{RevocationStatus, RotationPhase, RotationStatus, reasons};

use super::asked::{NotBegun, not_begun};
use super::revocation;
use super::rotation::{self, Progress};
use super::status::Outcome;
use crate::authorities::Authorities;
use crate::encryption;
use crate::model::Cluster;
use crate::observed::Observed;
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
    pub(super) revocation: Option<RevocationStatus>,
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
    let not_begun = not_begun(cluster, authorities, observed, rollout, now);
    let outcome = outcome(&progress, &not_begun, now);
    let rotations = progress.into_iter().map(|progress| row(progress, observed, now)).collect();
    // Somebody has asked for it in an emergency: that comes before all else.
    match revocation::report(cluster, authorities, observed, now) {
        Some((revocation, outcome)) => Report { rotations, outcome: Some(outcome), revocation: Some(revocation) },
        None => Report { rotations, outcome, revocation: None },
    }
}

fn row(progress: Progress, observed: &Observed, now: Timestamp) -> RotationStatus {
    let Progress { subject, state, mut waits, is_held } = progress;
    let before = observed.status.rotations.iter().find(|before| before.name == subject.name());
    let held_before = before
        .filter(|before| before.last_transition_time.0 == state.since)
        .and_then(|before| before.nodes_updated_time.clone());
    let more = waits.len().saturating_sub(LISTED);
    waits.truncate(LISTED);
    waits.extend((more > 0).then(|| format!("and {more} more")));
    RotationStatus {
        name: subject.name().to_owned(),
        requested: state.requested.clone(),
        phase: state.phase(),
        stage: state.stage.map(|stage| stage.name().to_owned()),
        rolling_back: state.rolling_back,
        start_time: Time(state.started),
        last_transition_time: Time(state.since),
        // Another rotation's files that are on their way change nothing about these.
        nodes_updated_time: held_before.or_else(|| is_held.then_some(Time(now))),
        waiting_for: waits,
    }
}

/// What the column Rotation shows, for example `ca Preparing`.
pub(super) fn summary(rotations: &[RotationStatus]) -> Option<String> {
    let under_way = rotations.iter().filter(|rotation| rotation.phase != RotationPhase::Completed);
    let words: Vec<_> = under_way.map(|rotation| format!("{} {}", rotation.name, rotation.phase.name())).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// Whether a rotation has made no step for too long. Two stages may take longer: at the gate a person is waited for, and
/// how long it takes to write everything anew that is encrypted depends on how much that is.
#[must_use]
pub fn is_stuck(rotation: &RotationStatus, now: Timestamp) -> bool {
    let patient = [Stage::Gate.name(), encryption::Stage::Reencrypt.name()];
    rotation.stage.as_deref().is_some_and(|stage| !patient.contains(&stage))
        && is_late(rotation.last_transition_time.0, now)
}

/// Whether a stage that began then has taken too long.
pub(super) fn is_late(since: Timestamp, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(since)).is_ok_and(|taken| taken > STUCK)
}

fn outcome(progress: &[Progress], not_begun: &NotBegun, now: Timestamp) -> Option<Outcome> {
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
    let is_late =
        |progress: &Progress| progress.state.stage != Some(Stage::Gate) && self::is_late(progress.state.since, now);
    let (stuck, gated) = (list(&is_late), list(&|progress| progress.state.stage == Some(Stage::Gate)));
    let all = list(&|_| true);
    if !stuck.is_empty() {
        let minutes = STUCK.as_secs() / 60;
        return Some(Outcome::bad(reasons::ROTATION_STUCK, format!("no step for {minutes} minutes: {stuck}")));
    }
    if !gated.is_empty() && gated == all {
        return Some(Outcome::bad(reasons::WAITING_FOR_APPROVAL, gated));
    }
    if !all.is_empty() {
        return Some(Outcome::bad(reasons::ROTATION_IN_PROGRESS, all));
    }
    if let Some(waits) = &not_begun.waits {
        return Some(Outcome::bad(reasons::WAITING_TO_START, waits.clone()));
    }
    if !not_begun.refused.is_empty() {
        return Some(Outcome::bad(reasons::REQUEST_REFUSED, not_begun.refused.join("; ")));
    }
    (!progress.is_empty()).then(|| Outcome::good(reasons::SETTLED, "no rotation is under way"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::SignedDuration;

    use super::*;
    use crate::pki::AuthorityName;
    use crate::rotation::{State, Subject};

    fn noon() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    fn progress(subject: Subject, stage: Option<Stage>) -> Progress {
        let state = State::begin(Some("2026".to_owned()), noon()).in_stage(stage, noon());
        Progress { subject, state, waits: vec!["etcd on cp2 to answer".to_owned()], is_held: false }
    }

    fn reason(all: &[Progress], minutes: i64) -> Option<(String, String)> {
        let outcome = outcome(all, &NotBegun::default(), noon() + SignedDuration::from_secs(minutes * 60 + 1))?;
        Some((outcome.reason().to_owned(), outcome.message().to_owned()))
    }

    const ETCD: Subject = Subject::Authority(AuthorityName::Etcd);

    #[test]
    fn a_stage_is_stuck_after_half_an_hour_unless_it_waits_for_a_person() {
        for stage in [Stage::Trust, Stage::Clients, Stage::Signing, Stage::Kubelets, Stage::Servers, Stage::Drop] {
            let (early, late) =
                (reason(&[progress(ETCD, Some(stage))], 29), reason(&[progress(ETCD, Some(stage))], 30));
            assert_eq!(early.unwrap().0, "RotationInProgress", "{stage:?}");
            let (reason, message) = late.unwrap();
            assert_eq!(reason, "RotationStuck", "{stage:?}");
            assert!(message.contains("etcd-ca") && message.contains("etcd on cp2"), "{message}");
        }
        let gate = || progress(ETCD, Some(Stage::Gate));
        assert_eq!(reason(&[gate()], 6000).unwrap().0, "WaitingForApproval");
        let both = [gate(), progress(Subject::ServiceAccountKey, Some(Stage::Trust))];
        assert_eq!(reason(&both, 29).unwrap().0, "RotationInProgress");
        let (reason, message) = reason(&both, 30).unwrap();
        assert_eq!(reason, "RotationStuck");
        assert!(!message.contains("etcd-ca"), "only what is stuck: {message}");
    }

    #[test]
    fn nothing_is_said_where_nothing_was_ever_rotated_and_all_is_well_after_a_rotation() {
        assert_eq!(reason(&[], 0), None);
        assert_eq!(reason(&[progress(ETCD, None)], 6000).unwrap().0, "Settled");
    }

    #[test]
    fn the_metric_and_the_condition_agree_on_what_is_stuck() {
        let late = noon() + SignedDuration::from_mins(31);
        let stuck = |stage| is_stuck(&row(progress(ETCD, stage), &Observed::default(), noon()), late);
        assert!(stuck(Some(Stage::Trust)) && stuck(Some(Stage::Drop)));
        assert!(!stuck(Some(Stage::Gate)) && !stuck(None));
        let mut encryption = row(progress(ETCD, Some(Stage::Trust)), &Observed::default(), noon());
        assert!(!is_stuck(&encryption, noon() + SignedDuration::from_mins(30)));
        encryption.stage = Some("Reencrypt".to_owned());
        assert!(!is_stuck(&encryption, late), "how long that takes depends on how much there is");
    }

    #[test]
    fn the_column_names_what_is_under_way_and_a_status_lists_the_first_of_many() {
        let all = [(ETCD, Some(Stage::Kubelets)), (Subject::ServiceAccountKey, Some(Stage::Gate)), (ETCD, None)];
        let rows = all.map(|(subject, stage)| row(progress(subject, stage), &Observed::default(), noon()));
        assert_eq!(summary(&rows).as_deref(), Some("etcd-ca Preparing, service-account-key Prepared"));
        assert_eq!(summary(&rows[2..]), None);
        let mut many = progress(ETCD, Some(Stage::Trust));
        many.waits = (1..=10).map(|number| format!("worker{number}")).collect();
        let listed = row(many, &Observed::default(), noon()).waiting_for;
        assert_eq!((listed.len(), listed[8].as_str()), (9, "and 2 more"));
    }
}
