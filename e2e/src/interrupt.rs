//! Ctrl-C and SIGTERM as a fact that waiting code asks for, so that a lab is taken down in order and by one thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

fn flag() -> &'static Arc<AtomicBool> {
    REQUESTED.get_or_init(Arc::default)
}

/// From now on SIGINT, SIGTERM and SIGHUP only set a flag. A second one means nothing: programs
/// like `timeout` send two at once, and taking a lab down takes a second. SIGQUIT still ends the process.
///
/// # Errors
/// When the handlers can't be installed.
pub fn listen() -> Result<()> {
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(flag())).context("cannot listen for Ctrl-C")?;
    }
    Ok(())
}

/// Whether someone asked this process to stop.
#[must_use]
pub fn requested() -> bool {
    flag().load(Ordering::Relaxed)
}

/// Ends a longer piece of work early.
///
/// # Errors
/// When someone asked this process to stop.
pub fn check() -> Result<()> {
    if requested() {
        bail!("interrupted");
    }
    Ok(())
}
