//! The folders of all labs of this host, and taking a lab down by its name alone: by its owner at the end, or by
//! anyone after the owner was killed.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::subnet::Subnet;
use crate::{cgroup, network, process};

/// The file in a lab's folder that says it is one. A folder without it holds only logs that someone wanted to keep.
const RECORD: &str = "lab.json";

/// The variable with the folder that a lab's logs go to when the lab is taken down.
pub const LOGS: &str = "KEYPLANE_LAB_LOGS";

/// What is written down about a lab. Everything else is found by its id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The id, which the names of all its parts begin with.
    pub id: String,
    /// Its network.
    pub subnet: Subnet,
    /// The process that takes it down at the end; none if it was left running on purpose.
    pub owner: Option<Owner>,
    /// The folder that its logs go to at the end, if any.
    #[serde(default)]
    pub logs: Option<PathBuf>,
}

/// A process, named for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pid: u32,
    start_time: u64,
}

impl Owner {
    /// This process.
    ///
    /// # Errors
    /// When `/proc` can't be read.
    pub fn this() -> Result<Self> {
        let pid = std::process::id();
        Ok(Self { pid, start_time: process::start_time(pid).context("cannot read /proc/self/stat")? })
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn lives(&self) -> bool {
        process::start_time(self.pid) == Some(self.start_time)
    }
}

impl Record {
    /// The lab's folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        root().join(&self.id)
    }

    /// Writes the record, at once and whole.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn save(&self) -> Result<()> {
        let folder = self.folder();
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let partial = folder.join(format!(".{RECORD}"));
        let mut file = File::create(&partial)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        fs::rename(&partial, folder.join(RECORD))?;
        Ok(())
    }

    fn is_dead(&self) -> bool {
        self.owner.as_ref().is_some_and(|owner| !owner.lives())
    }
}

/// The folder of all labs' folders.
#[must_use]
pub fn root() -> PathBuf {
    std::env::var_os("KEYPLANE_LABS").map_or_else(|| PathBuf::from("/var/lib/keyplane-lab"), PathBuf::from)
}

/// Keeps other processes from claiming or sweeping labs until the result is dropped.
///
/// # Errors
/// When the lock file can't be made.
pub fn lock() -> Result<File> {
    let root = root();
    fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    let file = File::create(root.join(".lock")).context("cannot make the lock file of the labs")?;
    file.lock().context("cannot lock the labs")?;
    Ok(file)
}

/// All labs that were written down, whatever their state.
#[must_use]
pub fn records() -> Vec<Record> {
    let entries = fs::read_dir(root()).into_iter().flatten().flatten();
    let texts = entries.filter_map(|entry| fs::read(entry.path().join(RECORD)).ok());
    texts.filter_map(|text| serde_json::from_slice(&text).ok()).collect()
}

/// Asks the living owners of these labs to take them down themselves, and waits for that. To be called without the
/// [`lock`], which they need.
pub fn dismiss_owners(records: &[Record]) {
    let this = Owner::this().ok();
    let owners: Vec<_> = records
        .iter()
        .filter_map(|record| record.owner.as_ref())
        .filter(|owner| Some(*owner) != this.as_ref())
        .collect();
    for owner in owners.iter().filter(|owner| owner.lives()) {
        process::send(owner.pid, Signal::TERM);
    }
    let start = Instant::now();
    while owners.iter().any(|owner| owner.lives()) && start.elapsed() < Duration::from_mins(1) {
        sleep(Duration::from_millis(100));
    }
}

/// Which labs to take down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those whose owner died without taking them down.
    Dead,
    /// Every one, also those of living owners, and kept logs too.
    All,
}

/// Takes labs down, and returns their ids. The caller holds the [`lock`].
///
/// # Errors
/// When something of a lab stays; the others are still taken down.
pub fn sweep(which: Which) -> Result<Vec<String>> {
    let chosen = records().into_iter().filter(|record| which == Which::All || record.is_dead());
    let (mut ids, mut failures) = (Vec::new(), Vec::new());
    for record in chosen {
        match take_down(&record.id) {
            Ok(()) => ids.push(record.id),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if !failures.is_empty() {
        bail!(failures.join("\n"));
    }
    if which == Which::All {
        remove_kept_logs()?;
    }
    Ok(ids)
}

/// Removes everything that belongs to the lab `id`; what isn't there any more is no error.
///
/// # Errors
/// When something stays. Each kind of thing is tried nevertheless, and the record stays for the next try.
pub fn take_down(id: &str) -> Result<()> {
    let folder = root().join(id);
    let steps =
        [process::kill_marked(id), unmount_below(&folder), network::remove_interfaces(id), cgroup::remove(id, None)];
    let failures: Vec<_> = steps.into_iter().filter_map(|step| step.err().map(|error| format!("{error:#}"))).collect();
    if !failures.is_empty() {
        bail!("the lab {id} is not gone: {}", failures.join("; "));
    }
    let logs = records().into_iter().find(|record| record.id == id).and_then(|record| record.logs);
    if let Some(logs) = logs {
        move_logs(&folder, &logs.join(id));
    } else if keeps_logs() {
        return keep_logs_only(&folder);
    }
    remove_folder(&folder)
}

/// Whether `KEYPLANE_LAB_KEEP_LOGS=1` is set.
#[must_use]
pub fn keeps_logs() -> bool {
    std::env::var_os("KEYPLANE_LAB_KEEP_LOGS").is_some_and(|value| value == "1")
}

/// Moves the logs of a lab's processes to the folder `to`, and those of its machines' pods to `pods-MACHINE` in it. Logs
/// that can't be moved are no reason for the lab to stay.
fn move_logs(folder: &Path, to: &Path) {
    let _ = fs::create_dir_all(to);
    for entry in fs::read_dir(folder.join("logs")).into_iter().flatten().flatten() {
        let _ = fs::rename(entry.path(), to.join(entry.file_name()));
    }
    for machine in fs::read_dir(folder.join("machines")).into_iter().flatten().flatten() {
        let name = format!("pods-{}", machine.file_name().to_string_lossy());
        let _ = fs::rename(machine.path().join("var/log/pods"), to.join(name));
    }
}

/// The folders that are no labs any more.
fn remove_kept_logs() -> Result<()> {
    for entry in fs::read_dir(root()).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_folder(&entry.path())?;
        }
    }
    Ok(())
}

fn keep_logs_only(folder: &Path) -> Result<()> {
    // The record goes last, so that a try that fails half way is tried again.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name() != "logs" && entry.file_name() != RECORD {
            remove_folder(&entry.path())?;
        }
    }
    remove_folder(&folder.join(RECORD))
}

fn remove_folder(path: &Path) -> Result<()> {
    let gone = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match gone {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Mounts live in the machines' own namespaces and go with them; this is for one that someone made by hand, since a
/// folder must never be removed through a mount.
fn unmount_below(folder: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mut places: Vec<_> = mounts.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    places.retain(|place| Path::new(place).starts_with(folder));
    for place in places.iter().rev() {
        crate::command::run(std::process::Command::new("umount").args(["--lazy", place]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_lives_while_its_process_does() {
        assert!(Owner::this().unwrap().lives());
        let reused = Owner { start_time: 1, ..Owner::this().unwrap() };
        assert!(!reused.lives());
    }

    #[test]
    fn a_lab_left_running_on_purpose_is_not_dead() {
        let mut record = Record { id: "x".to_owned(), subnet: Subnet::DEMO, owner: None, logs: None };
        assert!(!record.is_dead());
        record.owner = Some(Owner { pid: u32::MAX, start_time: 1 });
        assert!(record.is_dead());
    }
}
