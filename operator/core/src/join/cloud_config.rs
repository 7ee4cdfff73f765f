//! Join data as user data for cloud-init.

use serde_json::{Value, json};

use crate::host_files::File;
use crate::yaml;

/// A path on a tmpfs, so that the token does not survive a reboot.
const STEPS: &str = "/run/keyplane/join.sh";

pub(super) fn write(files: &[File], steps: &str) -> String {
    let entry = |path: &str, mode: u32, content: &str| json!({"path": path, "owner": "root:root", "permissions": format!("{mode:04o}"), "content": content});
    let mut written: Vec<Value> = files.iter().map(|file| entry(&file.path, file.mode, &file.content)).collect();
    written.push(entry(STEPS, 0o700, steps));
    let run = format!("sh {STEPS} && rm -f {STEPS}");
    format!("#cloud-config\n{}", yaml::write(&json!({"write_files": written, "runcmd": [["sh", "-c", run]]})))
}
