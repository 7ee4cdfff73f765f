//! Processes of Kubernetes components on this host, from `/proc`.

use std::fs;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// Ticks per second of times in `/proc`: hundredths of a second on every Linux.
const TICKS: i64 = 100;

/// A process, identified by PID and start time, because the kernel reuses PIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    number: u32,
    ticks: i64,
}

/// Finds the kubelet of this host.
#[must_use]
pub fn kubelet() -> Option<Process> {
    processes().find(|process| process.is_called("kubelet"))
}

/// Finds the process of a static pod on this host by its name, this argument, and the host's network namespace. Other
/// pods may run programs of the same name.
#[must_use]
pub fn of_static_pod(name: &str, argument: &str) -> Option<Process> {
    let network = fs::read_link("/proc/self/ns/net").ok()?;
    let matches = |process: &Process| {
        process.is_called(name)
            && process.arguments().iter().any(|one| one == argument)
            && fs::read_link(format!("/proc/{}/ns/net", process.number)).is_ok_and(|found| found == network)
    };
    processes().find(matches)
}

fn processes() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter_map(Process::of)
}

impl Process {
    fn of(number: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        Some(Self { number, ticks: start(&stat)? })
    }

    fn is_called(&self, name: &str) -> bool {
        fs::read_to_string(format!("/proc/{}/comm", self.number)).is_ok_and(|found| found.trim() == name)
    }

    /// Reads the command line of the process.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let text = fs::read(format!("/proc/{}/cmdline", self.number)).unwrap_or_default();
        text.split(|byte| *byte == 0).map(|one| String::from_utf8_lossy(one).into_owned()).collect()
    }

    /// Returns whether the process still runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        Self::of(self.number).as_ref() == Some(self)
    }

    /// Sends SIGTERM to the process.
    ///
    /// # Errors
    /// The signal can't be sent. A process that has already exited is no error.
    pub fn terminate(&self) -> Result<(), String> {
        let signal_error = |error: rustix::io::Errno| format!("sending SIGTERM to process {}: {error}", self.number);
        let Some(number) = i32::try_from(self.number).ok().and_then(Pid::from_raw) else { return Ok(()) };
        let held = match pidfd_open(number, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            held => held.map_err(signal_error)?,
        };
        // The pidfd holds the process, so the PID can't be reused between this check and the signal.
        if !self.runs() {
            return Ok(());
        }
        match pidfd_send_signal(held, Signal::TERM) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            sent => sent.map_err(signal_error),
        }
    }

    /// Returns the start time. The boot time moves a little with the clock, so two results for one process can differ.
    #[must_use]
    pub fn started(self) -> Option<Timestamp> {
        let boot = boot(&fs::read_to_string("/proc/stat").ok()?)?;
        Timestamp::from_second(boot).ok()?.checked_add(SignedDuration::from_secs(self.ticks / TICKS)).ok()
    }
}

/// Parses the start of a process in ticks after boot from its `stat`. The preceding name may have blanks and brackets.
fn start(stat: &str) -> Option<i64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Parses the boot time in seconds since 1970 from `/proc/stat`.
fn boot(stat: &str) -> Option<i64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminates_only_the_process_with_the_same_start_time() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        // A new process shows its name and arguments a moment later.
        let started = std::time::Instant::now();
        while of_static_pod("sleep", "1000").is_none() && started.elapsed() < std::time::Duration::from_secs(5) {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(process.runs() && process.is_called("sleep"));
        let other = Process { ticks: process.ticks + 1, ..process };
        assert!(!other.runs());
        assert_eq!(other.terminate(), Ok(()));
        assert_eq!(child.try_wait().unwrap(), None);
        assert_eq!(of_static_pod("sleep", "1000"), Some(process));
        assert_eq!(of_static_pod("sleep", "100"), None);
        assert_eq!(process.terminate(), Ok(()));
        assert!(!child.wait().unwrap().success());
        assert_eq!(process.terminate(), Ok(()));
    }

    #[test]
    fn parses_start_time_behind_any_process_name() {
        let stat = "12 (a) b (c)) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 1";
        assert_eq!(start(stat), Some(98765));
        assert_eq!((start("12"), boot("cpu 1\nbtime 1700000000\n"), boot("")), (None, Some(1_700_000_000), None));
    }
}
