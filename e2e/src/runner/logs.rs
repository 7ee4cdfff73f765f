//! The end of each log that a failed test has left.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// How many lines of a log are repeated, and how much of each line.
const LINES: usize = 15;
const LINE_LENGTH: usize = 400;

/// What names of logs contain that say the most, first what says the most. The rest comes last.
const ORDER: [&str; 8] =
    ["keyplane", "approver", "agent", "kubelet", "containerd", "kube-apiserver", "etcd", "kube-controller-manager"];

/// Logs that never say anything about a failure.
const SILENT: [&str; 2] = ["-init.log", "haproxy.log"];

/// The end of each log below `folder`: those of the labs' processes, and those of containers of the control planes.
pub(super) fn tails(folder: &Path) -> String {
    let mut logs = vec![];
    collect(folder, &mut logs);
    logs.retain(|log| !SILENT.iter().any(|ending| log.to_string_lossy().ends_with(ending)));
    logs.sort_by_key(|log| (rank(log), log.clone()));
    let mut text = String::new();
    for log in logs {
        let content = fs::read(&log).unwrap_or_default();
        let content = String::from_utf8_lossy(&content);
        let lines: Vec<_> = content.lines().filter(|line| !line.trim().is_empty()).collect();
        if lines.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n==> {}", log.display());
        for line in &lines[lines.len().saturating_sub(LINES)..] {
            let _ = writeln!(text, "{}", line.chars().take(LINE_LENGTH).collect::<String>());
        }
    }
    text
}

fn rank(log: &Path) -> usize {
    let path = log.to_string_lossy();
    let name = path.rsplit_once('/').map_or("", |(_, name)| name);
    // The name of a container's log is a number, and its folder says whose it is.
    let text = if name.starts_with(|first: char| first.is_ascii_digit()) { &path } else { name };
    ORDER.iter().position(|part| text.contains(part)).unwrap_or(ORDER.len())
}

/// All logs below the folder. Of the runs of one container only the last.
fn collect(folder: &Path, logs: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let mut files: Vec<_> = files.into_iter().filter(|file| file.extension().is_some_and(|end| end == "log")).collect();
    let number = |file: &PathBuf| file.file_stem().and_then(|stem| stem.to_str()?.parse::<u32>().ok());
    if files.iter().all(|file| number(file).is_some()) {
        files.sort_by_key(|file| Reverse(number(file)));
        files.truncate(1);
    }
    logs.extend(files);
    for folder in folders {
        collect(&folder, logs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_end_of_each_log_and_the_last_run_of_each_container() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, content: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let long: Vec<_> = (0..50).map(|number| format!("line {number}")).collect();
        put("ab12c/cp1-kubelet.log", &long.join("\n"));
        put("ab12c/keyplane-0.log", "operator\n\n");
        put("ab12c/cp1-init.log", "nothing");
        put("ab12c/pods-cp1/kube-system_etcd-cp1_1/etcd/2.log", "old etcd");
        put("ab12c/pods-cp1/kube-system_etcd-cp1_1/etcd/10.log", "new etcd");
        put("ab12c/other.log", "");
        let text = tails(folder.path());
        let place = |words: &str| text.find(words).unwrap_or_else(|| panic!("{words} is not in {text}"));
        assert!(place("operator") < place("line 35") && place("line 49") < place("new etcd"), "{text}");
        for absent in ["line 34", "old etcd", "nothing", "other.log"] {
            assert!(!text.contains(absent), "{absent} is in {text}");
        }
    }
}
