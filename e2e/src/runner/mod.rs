//! The runner of the lab tests, in place of libtest.
//!
//! Each test is a process of its own, so that its output is captured and a crash is its own. The runner starts the
//! longest test first and runs as many at once as fit by weight: a lab test mostly waits, so that two cores carry far
//! more than two tests. The command line and the output are those of libtest as far as `cargo test` and people use them.

mod arguments;
mod child;
mod logs;
mod pace;
mod report;
mod schedule;

use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, Result};
use clap::Parser;

use self::arguments::Arguments;
use self::child::Child;
use self::pace::Pace;
use self::report::Report;
use self::schedule::{Schedule, budget};
use crate::{interrupt, sweep};

/// How often the runner looks at its tests.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How long tests may take to remove their labs after the runner was interrupted.
const CLEANUP_TIMEOUT: Duration = Duration::from_mins(1);

/// No lab test takes this long. One that does hangs, and is killed.
const TEST_TIMEOUT: Duration = Duration::from_mins(40);

/// The exit status of libtest when a test fails.
const FAILED: u8 = 101;

/// A lab test.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// The name, `module::function`.
    pub name: &'static str,
    /// The test itself.
    pub run: fn() -> Result<()>,
    /// How many control planes, workers and loads run at once at its peak, the management cluster included.
    pub weight: u32,
    /// About how long it takes, for the order of the tests.
    pub expected: Duration,
}

/// Does what the command line says with these tests.
#[must_use]
pub fn main(tests: &[Test]) -> ExitCode {
    if let Some(name) = env::var_os(child::TEST) {
        return child::run(tests.iter().find(|test| name == test.name));
    }
    let arguments = Arguments::parse();
    let chosen: Vec<_> = tests.iter().filter(|test| arguments.chooses(test.name)).copied().collect();
    if arguments.list {
        report::list(&chosen, arguments.format.as_deref());
        return ExitCode::SUCCESS;
    }
    let filtered = tests.len() - chosen.len();
    let result = if arguments.ignored {
        run(&arguments, &chosen, filtered)
    } else {
        Ok(Report::all_ignored(chosen.len(), filtered))
    };
    match result {
        Ok(report) => {
            report.print();
            if report.is_success() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
        }
        Err(error) => {
            eprintln!("lab tests: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(arguments: &Arguments, tests: &[Test], filtered: usize) -> Result<Report> {
    interrupt::listen()?;
    let folder = sweep::root().join("failed-tests");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut schedule = Schedule::new(tests, budget()?, arguments.most_at_once());
    let mut report = Report::begin(tests.len(), filtered);
    let mut running: Vec<Child> = vec![];
    let mut pace = Pace::new()?;
    let mut was_killed = false;
    while !interrupt::requested() {
        pace.look()?;
        if running.is_empty() {
            pace.is_idle();
        }
        if pace.allows_start()
            && let Some(test) = schedule.next()
        {
            running.push(Child::start(test, &folder, arguments.no_capture)?);
            pace.has_started();
        }
        for child in running.extract_if(.., |child| child.has_ended(TEST_TIMEOUT)) {
            schedule.finished(&child.test);
            was_killed |= child.was_killed;
            report.finished(child.finish());
        }
        if running.is_empty() && schedule.is_empty() {
            break;
        }
        thread::sleep(POLL_INTERVAL);
    }
    was_killed |= stop(&mut running);
    if was_killed {
        // A killed test can't remove its lab.
        let _lock = sweep::lock()?;
        sweep::sweep(sweep::Which::Dead)?;
    }
    interrupt::check()?;
    Ok(report)
}

/// Asks tests that still run to end, and kills those that do not. Returns whether one was killed.
fn stop(running: &mut Vec<Child>) -> bool {
    running.iter().for_each(Child::terminate);
    let began = Instant::now();
    while began.elapsed() < CLEANUP_TIMEOUT && !running.is_empty() {
        running.retain_mut(|child| !child.has_ended(TEST_TIMEOUT));
        thread::sleep(POLL_INTERVAL);
    }
    running.iter_mut().for_each(Child::kill);
    !running.is_empty()
}
