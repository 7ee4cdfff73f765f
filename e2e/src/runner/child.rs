//! A lab test as a process of its own.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::Test;
use super::logs::tails;
use super::report::Outcome;
use crate::process::send;
use crate::{interrupt, sweep};

/// The variable that tells a process which test it is.
pub(super) const TEST: &str = "KEYPLANE_LAB_TEST";

/// Runs a test in this process.
pub(super) fn run(test: Option<&Test>) -> ExitCode {
    // The runner holds the other end: where it is gone, its tests end too, and the next lab removes theirs.
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut vec![]);
        process::exit(1);
    });
    let result = interrupt::listen().and_then(|()| (test.context("there is no such test")?.run)());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

/// A test that runs.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) test: Test,
    process: process::Child,
    began: Instant,
    /// What the test prints, and the logs of its labs.
    folder: PathBuf,
    is_success: bool,
    pub(super) was_killed: bool,
}

impl Child {
    /// Starts the test. Its output and the logs of its labs go to a folder of its own below `folder`, and its output to
    /// the terminal instead if `show` is set.
    pub(super) fn start(test: Test, folder: &Path, show: bool) -> Result<Self> {
        let folder = folder.join(test.name.replace("::", "-"));
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut command = Command::new(env::current_exe()?);
        command.env(TEST, test.name).env(sweep::LOGS, &folder).stdin(Stdio::piped());
        if !show {
            let output = File::create(output(&folder))?;
            command.stdout(output.try_clone()?).stderr(output);
        }
        // The terminal's Ctrl-C reaches the runner alone, which asks its tests to end.
        let process = command.process_group(0).spawn().with_context(|| format!("cannot start {}", test.name))?;
        Ok(Self { test, process, began: Instant::now(), folder, is_success: false, was_killed: false })
    }

    /// Whether the test has ended. One that takes longer than `timeout` is killed.
    pub(super) fn has_ended(&mut self, timeout: Duration) -> bool {
        match self.process.try_wait() {
            Ok(Some(status)) => self.is_success = status.success(),
            Ok(None) if self.began.elapsed() < timeout => return false,
            _ => self.kill(),
        }
        true
    }

    /// Asks the test to end, which removes its labs.
    pub(super) fn terminate(&self) {
        send(self.process.id(), Signal::TERM);
    }

    /// Kills the test.
    pub(super) fn kill(&mut self) {
        self.was_killed = true;
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// The outcome of a test that has ended. A test that has succeeded leaves nothing, unless logs are to be kept.
    pub(super) fn finish(self) -> Outcome {
        let took = self.began.elapsed();
        let details = (!self.is_success).then(|| {
            let text = fs::read(output(&self.folder)).unwrap_or_default();
            let killed = if self.was_killed { "the test took too long and was killed\n" } else { "" };
            format!("{}{killed}{}", String::from_utf8_lossy(&text), tails(&self.folder))
        });
        if self.is_success && !sweep::keeps_logs() {
            let _ = fs::remove_dir_all(&self.folder);
        }
        Outcome { name: self.test.name, took, details }
    }
}

fn output(folder: &Path) -> PathBuf {
    folder.join("output.txt")
}
