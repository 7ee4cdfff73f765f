//! What a person sees. It is the same with and without a terminal.

use std::io::{Write, stdout};
use std::time::Instant;

/// Writes a line to standard output. That nobody reads any more (a closed pipe) is no reason to leave a lab behind.
pub(crate) fn say(line: &str) {
    let mut out = stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Tells the steps of something that takes its time, each with the time at which it began.
pub(crate) struct Progress(Instant);

impl Progress {
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn step(&self, what: &str) {
        say(&format!("[{:5.1} s] {what}", self.0.elapsed().as_secs_f32()));
    }
}
