//! The approvers that are measured, and what a process has used so far.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::cluster::NAMESPACE;
use crate::network::free_port;
use crate::operator;

/// The unit of times in `/proc/PID/stat`: `USER_HZ`, which Linux has fixed at 100 for programs to see.
const TICK: Duration = Duration::from_millis(10);

/// One that takes part.
#[derive(Clone, Debug)]
pub(super) enum Approver {
    /// `keyplane run --mode approver`
    Keyplane,
    /// The lab's own program, which approves without looking: nothing can be faster.
    Raw,
    /// A program in Go.
    Go(PathBuf),
}

impl Approver {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Keyplane => "keyplane",
            Self::Raw => "raw",
            Self::Go(_) => "go",
        }
    }

    pub(super) fn command(&self, kubeconfig: &Path, round: u16) -> Result<Command> {
        let mut command = match self {
            Self::Keyplane => {
                let mut keyplane = Command::new(operator::binary()?);
                keyplane
                    .args(["run", "--mode", "approver", "--lease-namespace", NAMESPACE])
                    // A lease of its own each time: none has to run out first.
                    .args(["--lease-name", &format!("round-{round}"), "--identity", "bench"])
                    .args(["--listen", &format!("127.0.0.1:{}", free_port()?)]);
                keyplane
            }
            Self::Raw => {
                let mut raw = Command::new(env::current_exe().context("cannot tell where this program is")?);
                raw.arg("approve-everything");
                raw
            }
            Self::Go(program) => Command::new(program),
        };
        command.env("KUBECONFIG", kubeconfig);
        Ok(command)
    }
}

/// What a process has used since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Processor time of all its threads, its own and the kernel's for it.
    pub(super) cpu: Duration,
    /// The most memory that it has had at once, in KiB.
    pub(super) peak_kib: u64,
}

pub(super) fn usage(pid: u32) -> Result<Usage> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    parse(&read("stat")?, &read("status")?).with_context(|| format!("/proc/{pid} has another form than expected"))
}

fn parse(stat: &str, status: &str) -> Option<Usage> {
    // The name in parentheses may hold anything; after it come the state, ten more fields, and utime and stime.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(Usage { cpu: TICK * ticks, peak_kib: peak.trim().strip_suffix(" kB")?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_strange_name_is_read_too() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 25 0 0 20 0 1 0 1 1 1";
        let usage = parse(stat, "Name:\ta) b\nVmPeak:\t 9999 kB\nVmHWM:\t    2048 kB\n").unwrap();
        assert_eq!(usage, Usage { cpu: Duration::from_millis(1750), peak_kib: 2048 });
    }

    #[test]
    fn this_process_has_used_something() {
        assert!(usage(std::process::id()).unwrap().peak_kib > 0);
    }
}
