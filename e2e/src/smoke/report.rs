//! What the smoke test prints.

use std::time::Instant;

use anyhow::Result;

/// The steps so far.
#[derive(Debug)]
pub struct Report {
    began: Instant,
    passed: u32,
    failures: Vec<String>,
}

impl Report {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), passed: 0, failures: vec![] }
    }

    /// Takes a step and prints what it saw, or why it failed.
    pub(super) fn step(&mut self, what: &str, step: impl FnOnce() -> Result<String>) {
        let result = step();
        let word = if result.is_ok() { "ok    " } else { "FAILED" };
        let saw = match result {
            Ok(saw) => {
                self.passed += 1;
                saw
            }
            Err(error) => {
                self.failures.push(what.to_owned());
                format!("{error:#}")
            }
        };
        self.line(&format!("{word}  {what}"));
        for line in saw.trim().lines() {
            self.line(&format!("          {line}"));
        }
    }

    /// Takes what was brought up, and counts it as a step.
    pub(super) fn keep<T>(&mut self, what: &str, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => {
                self.step(what, || Ok(String::new()));
                Some(value)
            }
            Err(error) => {
                self.step(what, || Err(error));
                None
            }
        }
    }

    /// Prints what is being done.
    pub(super) fn tell(&self, what: &str) {
        self.line(&format!("        {what}"));
    }

    /// The steps that failed.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// The last line.
    #[must_use]
    pub fn summary(&self) -> String {
        format!("{} passed, {} failed", self.passed, self.failures.len())
    }

    fn line(&self, text: &str) {
        eprintln!("{:6.1} s  {text}", self.began.elapsed().as_secs_f32());
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn a_step_that_fails_is_counted_and_the_next_one_is_taken() {
        let mut report = Report::begin();
        report.step("pods run", || Ok("two of two".to_owned()));
        report.step("names resolve", || bail!("no answer"));
        report.step("logs can be read", || Ok(String::new()));
        assert_eq!(report.summary(), "2 passed, 1 failed");
        assert_eq!(report.failures(), ["names resolve"]);
    }
}
