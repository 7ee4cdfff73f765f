//! Status of rotations.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{RevocationStatus, RotationPhase, RotationStatus, reasons};

use super::Outcome;
use crate::certificate_authorities::ClusterCas;
use crate::encryption;
use crate::model::Cluster;
use crate::observed::Observed;
use crate::plan::rotation::{self, Progress};
use crate::plan::rotation_requests::{NotStarted, not_started};
use crate::rotation::Stage;

/// The time after which a stage counts as stuck: three nodes with four restarts each take about ten minutes,
/// client-go's poll takes five.
const STAGE_TIMEOUT: Duration = Duration::from_mins(30);
/// The number of wait conditions that a status lists: the first ones are enough to find the cause.
const MAX_LISTED_WAITS: usize = 8;

/// The rotations, and the condition about them. There is no condition before the first rotation.
pub(super) struct Report {
    pub(super) rotations: Vec<RotationStatus>,
    pub(super) outcome: Option<Outcome>,
    pub(super) revocation: Option<RevocationStatus>,
}

/// Returns the status of the rotations. `rollout` is the condition that the rollout of static pods waits for.
pub(super) fn report(
    cluster: &Cluster,
    observed: &Observed,
    cas: &ClusterCas,
    rollout: Option<&str>,
    now: Timestamp,
) -> Report {
    let progress = rotation::progress(cluster, cas, observed, rollout, now);
    let not_started = not_started(cluster, cas, observed, rollout, now);
    let outcome = outcome(&progress, &not_started, now);
    let rotations = progress.into_iter().map(|progress| row(progress, observed, now)).collect();
    // A revocation is an emergency, so its condition comes first.
    match super::revocation::report(cluster, cas, observed, now) {
        Some((revocation, outcome)) => Report { rotations, outcome: Some(outcome), revocation: Some(revocation) },
        None => Report { rotations, outcome, revocation: None },
    }
}

fn row(progress: Progress, observed: &Observed, now: Timestamp) -> RotationStatus {
    let Progress { subject, state, mut waits, nodes_updated } = progress;
    let before = observed.status.rotations.iter().find(|before| before.name == subject.name());
    let updated_before = before
        .filter(|before| before.last_transition_time.0 == state.since)
        .and_then(|before| before.nodes_updated_time.clone());
    let more = waits.len().saturating_sub(MAX_LISTED_WAITS);
    waits.truncate(MAX_LISTED_WAITS);
    waits.extend((more > 0).then(|| format!("and {more} more")));
    RotationStatus {
        name: subject.name().to_owned(),
        requested: state.requested.clone(),
        phase: state.phase(),
        stage: state.stage.map(|stage| stage.name().to_owned()),
        rolling_back: state.rolling_back,
        start_time: Time(state.started),
        last_transition_time: Time(state.since),
        // Files of another rotation that are not applied yet do not reset this time.
        nodes_updated_time: updated_before.or_else(|| nodes_updated.then_some(Time(now))),
        waiting_for: waits,
    }
}

/// Returns the text of the printer column Rotation, for example `ca Preparing`.
pub(super) fn summary(rotations: &[RotationStatus]) -> Option<String> {
    let under_way = rotations.iter().filter(|rotation| rotation.phase != RotationPhase::Completed);
    let words: Vec<_> = under_way.map(|rotation| format!("{} {}", rotation.name, rotation.phase.name())).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// Returns whether a stage takes too long. Two stages may take any time: the approval gate waits for the user, and the
/// duration of the re-encryption depends on the number of objects.
#[must_use]
pub fn is_stuck(rotation: &RotationStatus, now: Timestamp) -> bool {
    let unlimited = [Stage::Gate.name(), encryption::Stage::Reencrypt.name()];
    rotation.stage.as_deref().is_some_and(|stage| !unlimited.contains(&stage))
        && is_late(rotation.last_transition_time.0, now)
}

/// Returns whether a stage with this start takes too long.
pub(super) fn is_late(since: Timestamp, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(since)).is_ok_and(|taken| taken > STAGE_TIMEOUT)
}

fn outcome(progress: &[Progress], not_started: &NotStarted, now: Timestamp) -> Option<Outcome> {
    let words = |progress: &&Progress| {
        let stage = progress.state.stage.map_or("none", Stage::name);
        let waits = progress.waits.iter().take(2).cloned().collect::<Vec<_>>().join("; ");
        let back = if progress.state.rolling_back { ", rolling back" } else { "" };
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
        let minutes = STAGE_TIMEOUT.as_secs() / 60;
        return Some(Outcome::bad(reasons::ROTATION_STUCK, format!("no progress for {minutes} minutes: {stuck}")));
    }
    if !gated.is_empty() && gated == all {
        return Some(Outcome::bad(reasons::WAITING_FOR_APPROVAL, gated));
    }
    if !all.is_empty() {
        return Some(Outcome::bad(reasons::ROTATION_IN_PROGRESS, all));
    }
    if let Some(waits) = &not_started.waits {
        return Some(Outcome::bad(reasons::WAITING_TO_START, waits.clone()));
    }
    if !not_started.rejected.is_empty() {
        return Some(Outcome::bad(reasons::REQUEST_REFUSED, not_started.rejected.join("; ")));
    }
    (!progress.is_empty()).then(|| Outcome::good(reasons::SETTLED, "no rotation is in progress"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::SignedDuration;

    use super::*;
    use crate::pki::CaName;
    use crate::rotation::{State, Subject};

    fn noon() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    fn progress(subject: Subject, stage: Option<Stage>) -> Progress {
        let state = State::begin(Some("2026".to_owned()), noon()).in_stage(stage, noon());
        Progress { subject, state, waits: vec!["etcd on cp2 to answer".to_owned()], nodes_updated: false }
    }

    fn reason(all: &[Progress], minutes: i64) -> Option<(String, String)> {
        let outcome = outcome(all, &NotStarted::default(), noon() + SignedDuration::from_secs(minutes * 60 + 1))?;
        Some((outcome.reason().to_owned(), outcome.message().to_owned()))
    }

    const ETCD: Subject = Subject::CertificateAuthority(CaName::Etcd);

    #[test]
    fn stage_is_stuck_after_30_minutes_except_at_the_gate() {
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
    fn condition_is_absent_before_and_true_after_a_rotation() {
        assert_eq!(reason(&[], 0), None);
        assert_eq!(reason(&[progress(ETCD, None)], 6000).unwrap().0, "Settled");
    }

    #[test]
    fn metric_and_condition_agree_on_stuck_rotations() {
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
    fn column_names_rotations_in_progress_and_status_truncates_waits() {
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
