//! Join data as a configuration for Ignition.

use serde_json::{Value, json};

use crate::host_files::File;
use crate::kubeconfig::base64;

/// A version that the systems of Fedora and Flatcar have supported for years.
const VERSION: &str = "3.3.0";

/// The path of the script. Ignition runs before the operating system has booted, so a unit runs the script later. Only
/// root can read the script, because it contains the token.
const STEPS: &str = "/etc/keyplane/join.sh";

/// The directory of packaged units. `/usr` is read-only with Ignition, so these units move to [`OWN_UNITS`], which
/// takes precedence.
const PACKAGED_UNITS: &str = "/usr/lib/systemd/system/";
const OWN_UNITS: &str = "/etc/systemd/system/";

pub(super) fn write(files: &[File], steps: &str) -> String {
    let entry = |path: &str, mode: u32, content: &str| {
        let source = format!("data:;base64,{}", base64(content));
        json!({"path": path, "mode": mode, "overwrite": true, "contents": {"source": source}})
    };
    let place = |path: &str| match path.strip_prefix(PACKAGED_UNITS) {
        Some(unit) => format!("{OWN_UNITS}{unit}"),
        None => path.to_owned(),
    };
    let mut written: Vec<Value> =
        files.iter().map(|file| entry(&place(&file.path), file.mode, &file.content)).collect();
    written.push(entry(STEPS, 0o700, steps));
    let unit = format!(
        "[Unit]
Description=Join the Kubernetes cluster
Wants=network-online.target
After=network-online.target
ConditionPathExists={STEPS}

[Service]
Type=oneshot
ExecStart=/bin/sh {STEPS}
ExecStartPost=/bin/rm -f {STEPS}
Restart=on-failure
RestartSec=30

[Install]
WantedBy=multi-user.target
"
    );
    let configuration = json!({
        "ignition": {"version": VERSION},
        "storage": {"files": written},
        "systemd": {"units": [{"name": "keyplane-join.service", "enabled": true, "contents": unit}]},
    });
    format!("{configuration}\n")
}
