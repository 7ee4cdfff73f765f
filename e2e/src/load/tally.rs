//! What the load counts: requests and failures by phase and by client.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// How many failures of each client are told in words; all are counted.
const TOLD: usize = 40;

/// The counts, which all clients share.
#[derive(Clone, Debug)]
pub struct Tally {
    state: Arc<Mutex<State>>,
    /// Goes up with each phase, so that a client sees cheaply that it has to connect anew.
    generation: Arc<AtomicU64>,
}

#[derive(Debug)]
struct State {
    phases: Vec<PhaseCounts>,
    failures: Vec<Failure>,
}

#[derive(Debug)]
struct PhaseCounts {
    name: String,
    began: Instant,
    took: Option<Duration>,
    clients: BTreeMap<&'static str, Count>,
}

/// What one client did in a phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests that were answered, or failed.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
    /// How often a request was sent again, as the client's kind does by itself (see [`crate::load`]).
    pub again: u64,
    /// How long the slowest answer took, for clients that measure that: with all that was done again.
    pub slowest: Duration,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.again += other.again;
        self.slowest = self.slowest.max(other.slowest);
    }

    /// What came after `before`; the slowest answer is that of all time.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests - before.requests,
            failed: self.failed - before.failed,
            again: self.again - before.again,
            slowest: self.slowest,
        }
    }

    fn cells(&self) -> String {
        let Self { requests, failed, again, slowest } = self;
        let slowest = if slowest.is_zero() { "-".to_owned() } else { format!("{:.1} s", slowest.as_secs_f64()) };
        format!("{requests:>8}  {failed:>6}  {again:>6}  {slowest:>7}")
    }
}

/// A request that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// In which phase.
    pub phase: String,
    /// Whose it was.
    pub client: &'static str,
    /// What it was, and what went wrong.
    pub text: String,
}

impl Tally {
    /// Counts from zero, in this phase.
    #[must_use]
    pub fn begin(phase: &str) -> Self {
        let state = State { phases: vec![PhaseCounts::begin(phase)], failures: vec![] };
        Self { state: Arc::new(Mutex::new(state)), generation: Arc::default() }
    }

    /// From now on it is another phase; nothing happens if it is that phase already.
    pub fn phase(&self, name: &str) {
        let mut state = self.state();
        if state.phases.last().is_some_and(|phase| phase.name == name) {
            return;
        }
        if let Some(last) = state.phases.last_mut() {
            last.took = Some(last.began.elapsed());
        }
        state.phases.push(PhaseCounts::begin(name));
        drop(state);
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// The last phase is over: what its clients still count belongs to it, but not the time that they take to end.
    pub fn end(&self) {
        if let Some(last) = self.state().phases.last_mut() {
            last.took = Some(last.began.elapsed());
        }
    }

    /// Changes with each phase.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// A request of this client was answered.
    pub fn answered(&self, client: &'static str) {
        self.add(client, Count { requests: 1, ..Count::default() });
    }

    /// A request of this client was answered after so long.
    pub fn answered_after(&self, client: &'static str, slowest: Duration) {
        self.add(client, Count { requests: 1, slowest, ..Count::default() });
    }

    /// A request was sent again, as the client's kind does.
    pub fn again(&self, client: &'static str) {
        self.add(client, Count { again: 1, ..Count::default() });
    }

    /// A request of this client failed.
    pub fn failed(&self, client: &'static str, text: &str) {
        self.add(client, Count { requests: 1, failed: 1, ..Count::default() });
        self.tell(client, text);
    }

    /// Counts that a client has made by itself.
    pub fn add(&self, client: &'static str, count: Count) {
        if let Some(phase) = self.state().phases.last_mut() {
            phase.clients.entry(client).or_default().add(count);
        }
    }

    /// Puts a failure into words that is already counted.
    pub fn tell(&self, client: &'static str, text: &str) {
        let mut state = self.state();
        let phase = state.phases.last().map(|phase| phase.name.clone()).unwrap_or_default();
        if state.failures.iter().filter(|failure| failure.client == client).count() < TOLD {
            let failure = Failure { at: Timestamp::now(), phase, client, text: text.to_owned() };
            state.failures.push(failure);
        }
    }

    /// Everything so far.
    #[must_use]
    pub fn total(&self) -> Count {
        let mut total = Count::default();
        for count in self.state().phases.iter().flat_map(|phase| phase.clients.values()) {
            total.add(*count);
        }
        total
    }

    /// What this client did so far.
    #[must_use]
    pub fn total_of(&self, client: &str) -> Count {
        let mut total = Count::default();
        for count in self.state().phases.iter().filter_map(|phase| phase.clients.get(client)) {
            total.add(*count);
        }
        total
    }

    /// The failures in words, the first ones of many.
    #[must_use]
    pub fn failures(&self) -> Vec<Failure> {
        self.state().failures.clone()
    }

    /// A line for each phase: how long it took, requests, failures.
    #[must_use]
    pub fn table(&self) -> String {
        let state = self.state();
        let width = state.phases.iter().map(|phase| phase.name.chars().count()).chain([5]).max().unwrap_or(5);
        let head = format!("{:>8}  {:>6}  {:>6}  {:>7}", "REQUESTS", "FAILED", "AGAIN", "SLOWEST");
        let mut text = format!("{:width$}  {:>8}  {head}\n", "PHASE", "WAIT");
        let mut clients: BTreeMap<&str, Count> = BTreeMap::new();
        for phase in &state.phases {
            let mut sum = Count::default();
            for (client, count) in &phase.clients {
                sum.add(*count);
                clients.entry(client).or_default().add(*count);
            }
            let took = phase.took.unwrap_or_else(|| phase.began.elapsed());
            let wait = format!("{:.0} s", took.as_secs_f64());
            let _ = writeln!(text, "{:width$}  {wait:>8}  {}", phase.name, sum.cells());
        }
        let width = clients.keys().map(|client| client.len()).chain([width]).max().unwrap_or(width);
        let _ = writeln!(text, "\n{:width$}  {:>8}  {head}", "CLIENT", "");
        for (client, count) in clients {
            let _ = writeln!(text, "{client:width$}  {:>8}  {}", "", count.cells());
        }
        text
    }

    /// The failures, a line for each.
    #[must_use]
    pub fn told_failures(&self) -> String {
        let mut text = String::new();
        for Failure { at, phase, client, text: words } in self.failures() {
            let _ = writeln!(text, "{at:.3}  {phase}  {client}: {}", words.trim().replace('\n', " | "));
        }
        text
    }

    /// The last line: `N requests, N failed`.
    #[must_use]
    pub fn summary(&self) -> String {
        let Count { requests, failed, .. } = self.total();
        format!("{requests} requests, {failed} failed")
    }

    /// A client that panicked has counted what it has counted.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PhaseCounts {
    fn begin(name: &str) -> Self {
        Self { name: name.to_owned(), began: Instant::now(), took: None, clients: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_count_for_the_phase_in_which_they_end() {
        let tally = Tally::begin("before");
        tally.answered("watch");
        tally.phase("ca: Preparing");
        tally.answered_after("watch", Duration::from_millis(1500));
        tally.failed("exec", "no route\nto host");
        tally.again("exec");
        let table = tally.table();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["before", "0", "s", "1", "0", "0", "-"]);
        assert_eq!(lines[2], ["ca:", "Preparing", "0", "s", "2", "1", "1", "1.5", "s"]);
        assert_eq!(lines[5], ["exec", "1", "1", "1", "-"]);
        assert_eq!(tally.summary(), "3 requests, 1 failed");
        assert!(tally.told_failures().ends_with("  ca: Preparing  exec: no route | to host\n"));
    }

    #[test]
    fn the_same_phase_again_is_no_other_one() {
        let tally = Tally::begin("a");
        tally.phase("a");
        assert_eq!(tally.generation(), 0);
        tally.phase("b");
        assert_eq!(tally.generation(), 1);
    }
}
