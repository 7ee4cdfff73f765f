//! How fast tests may start. The weights say how many tests a host carries once their clusters are up. To boot a cluster
//! takes far more CPU than to keep one, and the host may have other work: a test starts only while the CPUs keep up.

use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result};

/// How many processes may wait for each CPU, on average, when a test starts.
const RUNNABLE_PER_CPU: f64 = 4.0;

/// The time over which the average is taken.
const MEMORY: Duration = Duration::from_secs(10);

/// The shortest pause between two starts: the first processes of a test show in the average only then.
const SHORTEST_PAUSE: Duration = Duration::from_secs(4);

/// The longest pause, whatever else the host does.
const LONGEST_PAUSE: Duration = Duration::from_secs(45);

/// The pace at which tests start.
#[derive(Debug)]
pub(super) struct Pace {
    cpus: f64,
    /// The processes that run or wait for a CPU, on average.
    runnable: f64,
    looked: Instant,
    started: Option<Instant>,
}

impl Pace {
    /// The pace of this host.
    pub(super) fn new() -> Result<Self> {
        let cpus = u32::try_from(thread::available_parallelism()?.get())?;
        Ok(Self { cpus: cpus.into(), runnable: 0.0, looked: Instant::now(), started: None })
    }

    /// Looks at the host again.
    pub(super) fn look(&mut self) -> Result<()> {
        let runnable = runnable(&fs::read_to_string("/proc/stat")?)?;
        let weight = (self.looked.elapsed().as_secs_f64() / MEMORY.as_secs_f64()).min(1.0);
        self.runnable += (f64::from(runnable) - self.runnable) * weight;
        self.looked = Instant::now();
        Ok(())
    }

    /// Whether another test may start now. The first one always may.
    pub(super) fn allows_start(&self) -> bool {
        let Some(started) = self.started else { return true };
        let pause = started.elapsed();
        pause >= LONGEST_PAUSE || (pause >= SHORTEST_PAUSE && self.runnable <= RUNNABLE_PER_CPU * self.cpus)
    }

    /// A test was started.
    pub(super) fn has_started(&mut self) {
        self.started = Some(Instant::now());
    }

    /// No test runs any more: the next one is a first one.
    pub(super) fn is_idle(&mut self) {
        self.started = None;
    }
}

/// The number of processes that run or wait for a CPU, in the text of `/proc/stat`.
fn runnable(stat: &str) -> Result<u32> {
    let line = stat.lines().find_map(|line| line.strip_prefix("procs_running "));
    Ok(line.context("/proc/stat does not say how many processes run")?.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_host_starts_tests_slowly() {
        let mut pace = Pace { cpus: 2.0, runnable: 9.0, looked: Instant::now(), started: None };
        assert!(pace.allows_start());
        pace.started = Instant::now().checked_sub(SHORTEST_PAUSE);
        assert!(!pace.allows_start());
        pace.runnable = 7.0;
        assert!(pace.allows_start());
        pace.runnable = 9.0;
        pace.started = Instant::now().checked_sub(LONGEST_PAUSE);
        assert!(pace.allows_start());
        pace.has_started();
        assert!(!pace.allows_start());
        pace.is_idle();
        assert!(pace.allows_start());
    }

    #[test]
    fn the_kernel_counts_what_runs() {
        assert_eq!(runnable("cpu 1 2\nprocs_running 5\nprocs_blocked 0\n").unwrap(), 5);
    }
}
