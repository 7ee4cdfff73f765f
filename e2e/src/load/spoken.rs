//! A running kubectl whose lines are read as they come.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::kubectl::Kubectl;
use crate::process::MARK;

/// What was heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A line of its standard output.
    Line(String),
    /// Nothing within the time.
    Nothing,
    /// It has ended; what it said to standard error, and whether it calls that a success.
    End { success: bool, words: String },
}

/// kubectl, which is killed when this is dropped.
pub(super) struct Spoken {
    child: Child,
    lines: Receiver<String>,
    words: Receiver<String>,
}

impl Spoken {
    /// Starts it for the lab `lab`.
    pub(super) fn start(kubectl: &Kubectl, lab: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = kubectl.command(arguments);
        command.env(MARK, lab).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start kubectl")?;
        let (said, lines) = channel();
        let (told, words) = channel();
        if let Some(output) = child.stdout.take() {
            thread::spawn(move || for_each_line(output, &|line| said.send(line).is_ok()));
        }
        if let Some(output) = child.stderr.take() {
            thread::spawn(move || for_each_line(output, &|line| told.send(line).is_ok()));
        }
        Ok(Self { child, lines, words })
    }

    /// Its next line, for which it has so much time.
    pub(super) fn hear(&mut self, patience: Duration) -> Heard {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Heard::Line(line),
            Err(RecvTimeoutError::Timeout) => Heard::Nothing,
            Err(RecvTimeoutError::Disconnected) => {
                let success = self.child.wait().is_ok_and(|status| status.success());
                Heard::End { success, words: self.words.iter().collect::<Vec<_>>().join(" | ") }
            }
        }
    }
}

impl Drop for Spoken {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Until its end, or until nobody listens.
fn for_each_line(output: impl std::io::Read, hear: &dyn Fn(String) -> bool) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if !hear(line) {
            return;
        }
    }
}
