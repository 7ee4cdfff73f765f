//! What the runner prints.

use std::fmt::Write as _;
use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use super::Test;

/// How a test went.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) name: &'static str,
    pub(super) took: Duration,
    /// The output and the logs of a test that has failed.
    pub(super) details: Option<String>,
}

/// How all tests went.
#[derive(Debug)]
pub(super) struct Report {
    began: Instant,
    outcomes: Vec<Outcome>,
    ignored: usize,
    filtered: usize,
}

impl Report {
    /// So many tests are about to run.
    pub(super) fn begin(count: usize, filtered: usize) -> Self {
        say(&format!("\nrunning {count} tests"));
        Self { began: Instant::now(), outcomes: vec![], ignored: 0, filtered }
    }

    /// No test runs.
    pub(super) fn all_ignored(ignored: usize, filtered: usize) -> Self {
        Self { ignored, ..Self::begin(ignored, filtered) }
    }

    /// Prints at once how a test went.
    pub(super) fn finished(&mut self, outcome: Outcome) {
        let word = if outcome.details.is_some() { "FAILED" } else { "ok" };
        say(&format!("test {} ... {word} <{:.1}s>", outcome.name, outcome.took.as_secs_f32()));
        if let Some(details) = &outcome.details {
            say(&format!("\n---- {} ----\n{}\n", outcome.name, details.trim_end()));
        }
        self.outcomes.push(outcome);
    }

    fn failed(&self) -> Vec<&str> {
        self.outcomes.iter().filter(|outcome| outcome.details.is_some()).map(|outcome| outcome.name).collect()
    }

    /// Whether no test has failed.
    pub(super) fn is_success(&self) -> bool {
        self.failed().is_empty()
    }

    /// Prints the times, the failures and the result.
    pub(super) fn print(&self) {
        say(&self.text());
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if !self.outcomes.is_empty() {
            let mut slowest: Vec<_> = self.outcomes.iter().map(|outcome| (outcome.took, outcome.name)).collect();
            slowest.sort_unstable_by(|one, other| other.cmp(one));
            text += "\ntimes, slowest first:\n";
            text.extend(slowest.iter().map(|(took, name)| format!("  {:7.1} s  {name}\n", took.as_secs_f32())));
        }
        let failed = self.failed();
        if !failed.is_empty() {
            text += "\nfailures:\n";
            text.extend(failed.iter().map(|name| format!("    {name}\n")));
        }
        let word = if failed.is_empty() { "ok" } else { "FAILED" };
        let _ = writeln!(
            text,
            "\ntest result: {word}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s",
            self.outcomes.len() - failed.len(),
            failed.len(),
            self.ignored,
            self.filtered,
            self.began.elapsed().as_secs_f32()
        );
        text
    }
}

/// Lists tests as libtest does.
pub(super) fn list(tests: &[Test], format: Option<&str>) {
    for test in tests {
        say(&format!("{}: test", test.name));
    }
    if format != Some("terse") {
        say(&format!("\n{} tests, 0 benchmarks", tests.len()));
    }
}

/// A closed pipe is no reason to end.
fn say(line: &str) {
    let mut out = stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_test_comes_first_and_the_result_is_that_of_libtest() {
        let outcomes = vec![
            Outcome { name: "a::quick", took: Duration::from_secs(1), details: None },
            Outcome { name: "a::slow", took: Duration::from_secs(90), details: Some("why".to_owned()) },
        ];
        let report = Report { began: Instant::now(), outcomes, ignored: 0, filtered: 3 };
        let text = report.text();
        assert!(!report.is_success());
        assert!(text.contains("first:\n     90.0 s  a::slow\n      1.0 s  a::quick\n"), "{text}");
        assert!(text.contains("failures:\n    a::slow\n"), "{text}");
        let result = "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished in ";
        assert!(text.contains(result), "{text}");
    }
}
