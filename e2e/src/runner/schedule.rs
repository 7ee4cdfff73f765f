//! Which test starts when.

use std::cmp::Reverse;
use std::{env, fs, thread};

use anyhow::{Context, Result};

use super::Test;

/// The variable that sets the budget by hand.
const BUDGET: &str = "KEYPLANE_LAB_BUDGET";

/// How much weight a core carries. With 8, the clusters of three nodes missed their waits of three minutes on two cores: an
/// etcd that takes seconds for a read loses its leader, and an operator its Lease.
const WEIGHT_PER_CORE: u64 = 4;

/// How much memory a unit of weight needs, its processes and their page cache.
const KIB_PER_WEIGHT: u64 = 512 * 1024;

/// How much weight this host carries at once: as its cores and its memory allow, or as `KEYPLANE_LAB_BUDGET` says.
///
/// # Errors
/// When the variable is no number, or the memory can't be read.
pub(super) fn budget() -> Result<u32> {
    if let Ok(text) = env::var(BUDGET) {
        return text.parse().with_context(|| format!("{BUDGET}={text} is no number"));
    }
    let cores = thread::available_parallelism()?.get();
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next());
    let kib: u64 = memory.context("/proc/meminfo has no MemAvailable")?.parse()?;
    let carried = (WEIGHT_PER_CORE * u64::try_from(cores)?).min(kib / KIB_PER_WEIGHT);
    Ok(u32::try_from(carried)?.max(1))
}

/// The tests that have not started yet, the longest first, and the budget that is left.
#[derive(Debug)]
pub(super) struct Schedule {
    waiting: Vec<Test>,
    budget: u32,
    used: u32,
    most: usize,
    running: usize,
}

impl Schedule {
    /// Nothing runs yet. At most `most` tests run at once, and not more than `budget` by weight.
    pub(super) fn new(tests: &[Test], budget: u32, most: usize) -> Self {
        let mut waiting = tests.to_vec();
        waiting.sort_by_key(|test| Reverse(test.expected));
        Self { waiting, budget, used: 0, most, running: 0 }
    }

    /// A test that is to start now, if one fits beside those that run.
    pub(super) fn next(&mut self) -> Option<Test> {
        if self.running >= self.most {
            return None;
        }
        let left = self.budget - self.used;
        let place = self.waiting.iter().position(|test| self.cost(test) <= left)?;
        let test = self.waiting.remove(place);
        self.used += self.cost(&test);
        self.running += 1;
        Some(test)
    }

    /// This test, which was started, runs no more.
    pub(super) fn finished(&mut self, test: &Test) {
        self.used -= self.cost(test);
        self.running -= 1;
    }

    /// Whether all tests were started.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A test that is heavier than the budget runs alone.
    fn cost(&self, test: &Test) -> u32 {
        test.weight.clamp(1, self.budget)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn test(name: &'static str, weight: u32, seconds: u64) -> Test {
        Test { name, run: || Ok(()), weight, expected: Duration::from_secs(seconds) }
    }

    fn started(schedule: &mut Schedule) -> Vec<&'static str> {
        std::iter::from_fn(|| schedule.next()).map(|test| test.name).collect()
    }

    #[test]
    fn starts_the_longest_first_and_fills_the_budget() {
        let tests = [test("short", 1, 1), test("long", 3, 9), test("middle", 2, 5), test("other", 1, 2)];
        let mut schedule = Schedule::new(&tests, 4, usize::MAX);
        assert_eq!(started(&mut schedule), ["long", "other"]);
        schedule.finished(&tests[1]);
        assert_eq!(started(&mut schedule), ["middle", "short"]);
        assert!(schedule.is_empty());
    }

    #[test]
    fn a_test_heavier_than_the_budget_runs_alone() {
        let tests = [test("heavy", 9, 9), test("light", 1, 1)];
        let mut schedule = Schedule::new(&tests, 4, usize::MAX);
        assert_eq!(started(&mut schedule), ["heavy"]);
        schedule.finished(&tests[0]);
        assert_eq!(started(&mut schedule), ["light"]);
    }

    #[test]
    fn never_runs_more_than_the_command_line_allows() {
        let tests = [test("a", 1, 3), test("b", 1, 2), test("c", 1, 1)];
        assert_eq!(started(&mut Schedule::new(&tests, 9, 2)), ["a", "b"]);
    }
}
