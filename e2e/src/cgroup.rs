//! The cgroups in which a machine's pods run. The kubelet wants its root to exist in every hierarchy beforehand.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The group that holds all groups of the lab `lab`, relative to each hierarchy's root.
fn lab_group(lab: &str) -> String {
    format!("keyplane-{lab}")
}

/// The group of one machine: its kubelet's `--cgroup-root`, with a slash before it.
#[must_use]
pub fn machine_group(lab: &str, machine: &str) -> String {
    format!("{}/{machine}", lab_group(lab))
}

/// Where the hierarchies are mounted, versions 1 and 2 alike, out of the text of `/proc/mounts`.
fn hierarchies(mounts: &str) -> Vec<PathBuf> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (place, kind) = (fields.next()?, fields.next()?);
            matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(place))
        })
        .collect()
}

fn mounted() -> Result<Vec<PathBuf>> {
    Ok(hierarchies(&fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?))
}

/// Makes the group of one machine in every hierarchy.
///
/// # Errors
/// When a group can't be made.
pub fn make(lab: &str, machine: &str) -> Result<()> {
    for hierarchy in mounted()? {
        let mut folder = hierarchy;
        for name in machine_group(lab, machine).split('/') {
            let parent = folder.clone();
            folder.push(name);
            fs::create_dir_all(&folder).with_context(|| format!("cannot make the cgroup {}", folder.display()))?;
            // A new cpuset of version 1 is empty, and nothing can run in an empty one.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if parent.join(file).exists() && fs::read_to_string(folder.join(file))?.trim().is_empty() {
                    fs::write(folder.join(file), fs::read_to_string(parent.join(file))?.trim())?;
                }
            }
        }
    }
    Ok(())
}

/// The groups of the lab `lab`, or of its machine `machine`, that exist.
///
/// # Errors
/// When the mounts can't be read.
pub fn groups(lab: &str, machine: Option<&str>) -> Result<Vec<PathBuf>> {
    let name = machine.map_or_else(|| lab_group(lab), |machine| machine_group(lab, machine));
    Ok(mounted()?.into_iter().map(|hierarchy| hierarchy.join(&name)).filter(|folder| folder.exists()).collect())
}

/// Removes these groups and those below. Processes that were killed leave their groups a moment later, so it tries for
/// a while.
///
/// # Errors
/// When one stays.
pub fn remove(lab: &str, machine: Option<&str>) -> Result<()> {
    let start = Instant::now();
    loop {
        let left = groups(lab, machine)?;
        let Some(first) = left.first() else { return Ok(()) };
        for group in &left {
            remove_tree(group);
        }
        if start.elapsed() > Duration::from_secs(20) {
            bail!("the cgroup {} can't be removed: a process is still in it", first.display());
        }
        sleep(Duration::from_millis(50));
    }
}

/// A group is removed by `rmdir`, its children first; its files are not real.
fn remove_tree(group: &Path) {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path());
    }
    // What can't be removed yet is found again by the caller's next round.
    let _ = fs::remove_dir(group);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_among_the_mounts() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                      proc /proc proc rw 0 0\n";
        let expected = [Path::new("/sys/fs/cgroup/cpu"), Path::new("/sys/fs/cgroup/unified")];
        assert_eq!(hierarchies(mounts), expected);
    }
}
