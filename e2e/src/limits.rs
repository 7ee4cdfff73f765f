//! What a host allows, and several clusters on it need more of.

use std::fs;

use anyhow::{Context, Result};

/// How many inotify instances a user may have. A kubelet, an API server and a controller-manager hold half a dozen each, so
/// that Debian's 128 are gone with two clusters of three machines: "too many open files".
const INOTIFY_INSTANCES: &str = "/proc/sys/fs/inotify/max_user_instances";

/// Enough for ten such clusters.
const WANTED: u32 = 1024;

/// Raises the limit where it is lower. It stays so until the host boots again: it takes nothing from anybody.
///
/// # Errors
/// When the kernel refuses.
pub fn raise() -> Result<()> {
    let now: u32 = fs::read_to_string(INOTIFY_INSTANCES)?.trim().parse().context(INOTIFY_INSTANCES)?;
    if now >= WANTED {
        return Ok(());
    }
    fs::write(INOTIFY_INSTANCES, WANTED.to_string())
        .with_context(|| format!("cannot raise the number of inotify instances from {now} to {WANTED}"))
}
