//! The kubelet's process, as `/proc` shows it.

use std::fs;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// The unit of times in `/proc`: every Linux shows hundredths of a second.
const TICKS: i64 = 100;

/// A process. Its number may be given again, so its start is a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    number: u32,
    ticks: i64,
}

/// The kubelet that runs here, if one does.
#[must_use]
pub fn kubelet() -> Option<Process> {
    let entries = fs::read_dir("/proc").ok()?;
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).find_map(|number: u32| {
        let name = fs::read_to_string(format!("/proc/{number}/comm")).ok()?;
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        (name.trim() == "kubelet").then_some(Process { number, ticks: start(&stat)? })
    })
}

impl Process {
    /// When it started. The time of the boot moves a little with the clock, so whoever compares asks once.
    #[must_use]
    pub fn started(self) -> Option<Timestamp> {
        let boot = boot(&fs::read_to_string("/proc/stat").ok()?)?;
        Timestamp::from_second(boot).ok()?.checked_add(SignedDuration::from_secs(self.ticks / TICKS)).ok()
    }
}

/// The start of a process after the boot, from its `stat`. The name before may have blanks and brackets.
fn start(stat: &str) -> Option<i64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The time of the boot, in seconds since 1970, from `/proc/stat`.
fn boot(stat: &str) -> Option<i64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_process_is_found_behind_any_name() {
        let stat = "12 (a) b (c)) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 1";
        assert_eq!(start(stat), Some(98765));
        assert_eq!((start("12"), boot("cpu 1\nbtime 1700000000\n"), boot("")), (None, Some(1_700_000_000), None));
    }
}
