//! Long-running processes of a lab: each carries the lab's mark in its environment, so that it can be found again by
//! anyone at any time, also after the owner was killed between starting it and writing that down.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::command::tail;

/// The environment variable that marks a process as belonging to the lab it names.
pub const MARK: &str = "KEYPLANE_LAB";

/// How often a process is looked at while it is awaited.
const PAUSE: Duration = Duration::from_millis(20);

/// A started process with its log.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// The process that does the work: the child itself, or the child of the `nsenter` or `unshare` that was started.
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts `command` for the lab `lab` with both outputs going to `log`, in a process group of its own so that the
    /// terminal's Ctrl-C reaches only the owner.
    ///
    /// # Errors
    /// When the log can't be made or the program can't be started.
    pub fn start(name: &str, lab: &str, command: &mut Command, log: PathBuf) -> Result<Self> {
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot make the log {}", log.display()))?;
        let child = command
            .env(MARK, lab)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = child.id();
        Ok(Self { name: name.to_owned(), child, pid, log })
    }

    /// Like [`Process::start`] for a command that enters other namespaces and forks there: waits until the process
    /// inside exists and means that one from then on.
    ///
    /// # Errors
    /// As [`Process::start`], or when nothing appears inside.
    pub fn start_inside(name: &str, lab: &str, command: &mut Command, log: PathBuf) -> Result<Self> {
        let mut process = Self::start(name, lab, command, log)?;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) && process.is_running() {
            if let Some(pid) = children(process.pid).first() {
                process.pid = *pid;
                return Ok(process);
            }
            sleep(PAUSE);
        }
        // A oneshot may have done its work before anybody looked.
        if matches!(process.child.try_wait(), Ok(Some(status)) if status.success()) {
            return Ok(process);
        }
        bail!("{name} did not start; its log ends with:\n{}", process.log_tail())
    }

    /// The process's id on the host.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where its outputs go.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The end of its log, for an error message.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let content = fs::read(&self.log).unwrap_or_default();
        tail(&String::from_utf8_lossy(&content)).to_owned()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// For polling code: the error [`Ended`] once the process has.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        Err(Ended { name: self.name.clone(), log_tail: self.log_tail() }.into())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When its status is not 0: [`Ended`].
    pub fn wait_for_success(&mut self) -> Result<()> {
        if self.child.wait()?.success() {
            return Ok(());
        }
        Err(Ended { name: self.name.clone(), log_tail: self.log_tail() }.into())
    }

    /// Asks it to end (SIGTERM), and kills it if it has not after `patience`.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self, patience: Duration) -> Result<()> {
        send(self.pid, Signal::TERM);
        let start = Instant::now();
        while self.is_running() {
            if start.elapsed() > patience {
                self.kill();
                bail!("{} did not end within {} s of SIGTERM and was killed", self.name, patience.as_secs());
            }
            sleep(PAUSE);
        }
        Ok(())
    }

    /// Waits for the end of one that has been killed with its machine.
    pub fn await_end(&mut self) {
        let _ = self.child.wait();
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        send(self.pid, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A process that should run has ended: waiting any longer is of no use.
#[derive(Debug)]
pub struct Ended {
    /// What ended.
    pub name: String,
    /// Its last words.
    pub log_tail: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has ended; its log ends with:\n{}", self.name, self.log_tail)
    }
}

impl std::error::Error for Ended {}

/// The start time of a process, which with the pid names it for good; `None` when there is no such process.
#[must_use]
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; after it come the state and 18 more fields, then the start time.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The processes that carry the mark of the lab `lab`, seen from the host.
#[must_use]
pub fn marked(lab: &str) -> Vec<u32> {
    let mark = format!("{MARK}={lab}");
    let own = std::process::id();
    all().filter(|pid| *pid != own && environment_holds(*pid, &mark)).collect()
}

/// Kills every process of the lab `lab` and waits until none is left. Process 1 of a machine takes all others of that
/// machine with it, pods included.
///
/// # Errors
/// When some are still there after a while.
pub fn kill_marked(lab: &str) -> Result<()> {
    let start = Instant::now();
    let mut killed = HashSet::new();
    loop {
        let pids = marked(lab);
        // Those that this process started stay as zombies until it looks; of the others it is told nothing.
        killed.retain(|pid| matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None)));
        if pids.is_empty() && killed.is_empty() {
            return Ok(());
        }
        if start.elapsed() > Duration::from_secs(20) {
            bail!("processes {pids:?} of the lab {lab} do not die");
        }
        // What was started through such a program is its child: left alone, it buries that child and then ends itself.
        let spare = start.elapsed() < Duration::from_secs(3);
        for pid in pids {
            killed.extend(raw(pid));
            if !(spare && is_go_between(pid)) {
                send(pid, Signal::KILL);
            }
        }
        sleep(PAUSE);
    }
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn is_go_between(pid: u32) -> bool {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    matches!(comm.trim(), "nsenter" | "unshare")
}

fn environment_holds(pid: u32, variable: &str) -> bool {
    // A process that has ended reads as empty, and one that ended while we looked does not read at all.
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn raw(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Sends a signal; a process that is gone already is as good as reached.
pub(crate) fn send(pid: u32, signal: Signal) {
    let _ = raw(pid).map(|pid| kill_process(pid, signal));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(lab: &str, folder: &Path) -> Process {
        Process::start("sleeper", lab, Command::new("sleep").arg("60"), folder.join("log")).unwrap()
    }

    #[test]
    fn a_marked_process_is_found_and_killed_by_its_mark_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = sleeper("test-mark", folder.path());
        // A process that has just begun shows its environment a moment later.
        let start = Instant::now();
        while marked("test-mark").is_empty() && start.elapsed() < Duration::from_secs(5) {
            sleep(PAUSE);
        }
        assert_eq!(marked("test-mark"), vec![process.pid()]);
        assert!(start_time(process.pid()).is_some());
        kill_marked("test-mark").unwrap();
        assert!(!process.is_running() && marked("test-mark").is_empty());
    }

    #[test]
    fn a_stopped_process_is_not_running_and_its_log_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        let mut process = Process::start(
            "talker",
            "test-log",
            command.args(["-c", "echo last words; exec sleep 60"]),
            folder.path().join("log"),
        )
        .unwrap();
        let start = Instant::now();
        while process.log_tail().is_empty() && start.elapsed() < Duration::from_secs(5) {
            sleep(PAUSE);
        }
        process.stop(Duration::from_secs(5)).unwrap();
        let error = process.check_running().unwrap_err().to_string();
        assert!(error.contains("talker has ended") && error.contains("last words"), "{error}");
    }

    #[test]
    fn nobody_has_the_start_time_of_a_pid_that_does_not_exist() {
        assert_eq!(start_time(u32::MAX), None);
    }
}
