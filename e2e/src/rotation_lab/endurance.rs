//! A cluster that nobody attends to, through many lifetimes of everything in it: certificates are renewed by the clock,
//! authorities and keys are rotated when half of their time is over, and a load runs all the while.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use serde_json::json;

use super::faults::Faults;
use super::rotations::{Rotation, rotate};
use crate::load::Load;
use crate::load::tally::{Count, Tally};
use crate::scene::{Scene, Size};
use crate::wait::pass;

/// Leaves live 30 minutes and are renewed ten minutes before their end: components look at their files every five
/// minutes (client-go), and a certificate of ten minutes is the shortest that anybody signs.
const LEAF: &str = "30m";
const LEAF_RENEWED_BEFORE: &str = "10m";

/// Authorities live two hours; a rotation takes a good part of one.
const AUTHORITY: &str = "2h";

/// How long after a rotation was begun the same is asked for again: half of an authority's life, so that a rotation that
/// waits has as long again.
const EVERY: Duration = Duration::from_hours(1);

/// What is rotated in a round, all at the same time: one after the other they would not fit into [`EVERY`].
const TOGETHER: [Rotation; 3] = [Rotation::EncryptionKey, Rotation::ServiceAccountKey, Rotation::Authorities];

/// One rotation of everything, or the time between two.
#[derive(Debug)]
struct Round {
    what: String,
    began: Timestamp,
    took: Duration,
    count: Count,
    restarts: u64,
    error: Option<String>,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    rounds: Vec<Round>,
    /// All counts.
    pub tally: Tally,
}

impl Report {
    /// Whether no request failed and every rotation got to its end.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.tally.total().failed == 0 && self.rounds.iter().all(|round| round.error.is_none())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rounds.iter().map(|round| round.what.len()).max().unwrap_or_default();
        let head = ["BEGAN", "TOOK", "REQUESTS", "FAILED", "RESTARTS"];
        writeln!(
            f,
            "{:width$}  {:20}  {:>8}  {:>9}  {:>6}  {:>8}",
            "ROUND", head[0], head[1], head[2], head[3], head[4]
        )?;
        for Round { what, began, took, count, restarts, error } in &self.rounds {
            let (began, took) = (format!("{began:.0}"), format!("{} min", took.as_secs() / 60));
            let Count { requests, failed, .. } = count;
            writeln!(f, "{what:width$}  {began:20}  {took:>8}  {requests:>9}  {failed:>6}  {restarts:>8}")?;
            if let Some(error) = error {
                writeln!(f, "    {error}")?;
            }
        }
        Ok(())
    }
}

/// Runs for so long, telling each step, and ends earlier only where somebody presses Ctrl-C or a rotation is stuck. With
/// `faults` things go wrong in every round, as [`Faults`] says.
///
/// # Errors
/// When the cluster does not come up.
pub fn endure(time: Duration, faults: bool, tell: &dyn Fn(&str)) -> Result<Report> {
    let mut scene = Scene::set_up(&size(), tell)?;
    let load = Load::start(&scene, "at rest")?;
    tell("the load runs");
    let began = Instant::now();
    let mut rounds: Vec<Round> = vec![];
    for times in 1.. {
        let asked = Instant::now();
        let mut going_wrong = Faults::new(faults);
        let mut at_each_stage =
            |scene: &mut Scene, load: &Load, stage: &str| going_wrong.strike(scene, load, stage, tell);
        let name = format!("rotations {times}");
        rounds.push(round(&name, &load, tell, || rotate(&mut scene, &load, &TOGETHER, &mut at_each_stage, tell)));
        if rounds.last().is_some_and(|round| round.error.is_some()) {
            break;
        }
        let rest = EVERY.saturating_sub(asked.elapsed()).min(time.saturating_sub(began.elapsed()));
        load.phase("at rest");
        rounds.push(round("at rest", &load, tell, || pass(rest)));
        if began.elapsed() >= time || rounds.last().is_some_and(|round| round.error.is_some()) {
            break;
        }
    }
    Ok(Report { rounds, tally: load.stop() })
}

fn round(what: &str, load: &Load, tell: &dyn Fn(&str), work: impl FnOnce() -> Result<()>) -> Round {
    let (began, clock) = (Timestamp::now(), Instant::now());
    let (before, pods) = (load.tally().total(), load.restarts());
    let error = work().err().map(|error| format!("{error:#}"));
    let count = load.tally().total().since(before);
    let restarts = load.restarts() - pods;
    let round = Round { what: what.to_owned(), began, took: clock.elapsed(), count, restarts, error };
    let Count { requests, failed, .. } = round.count;
    tell(&format!(
        "{what}: {} min, {requests} requests, {failed} failed, {restarts} restarts",
        round.took.as_secs() / 60
    ));
    round
}

/// The whole cluster with short lives. Kubelets' certificates are signed by the controller-manager, for as long as its
/// own flag says.
fn size() -> Size {
    let short = json!([{"name": "cluster-signing-duration", "value": LEAF}]);
    Size {
        policy: Some(json!({
            "leaf": {"validity": LEAF, "renewBefore": LEAF_RENEWED_BEFORE},
            "authority": {"validity": AUTHORITY},
        })),
        patch: json!({"controlPlane": {"controllerManager": {"extraArgs": short}}}),
        ..Size::whole()
    }
    .with_encryption_at_rest()
}
