//! Where the binary `keyplane` is.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The binary `keyplane`: the one that `KEYPLANE_BIN` names, else the one that was built beside this program.
///
/// # Errors
/// When there is none.
pub fn keyplane() -> Result<PathBuf> {
    if let Some(path) = env::var_os("KEYPLANE_BIN") {
        return Ok(path.into());
    }
    let this = env::current_exe().context("cannot tell where this program is")?;
    beside(&this).find(|path| path.is_file()).map_or_else(
        || bail!("no `keyplane` beside {}: cargo build -p keyplane, or set KEYPLANE_BIN", this.display()),
        Ok,
    )
}

/// Cargo puts binaries in the profile's folder and tests in a folder below.
fn beside(this: &Path) -> impl Iterator<Item = PathBuf> {
    this.ancestors().skip(1).take(2).map(|folder| folder.join("keyplane"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_finds_the_binary_of_its_profile() {
        let found: Vec<_> = beside(Path::new("/t/debug/deps/lab-0")).collect();
        assert_eq!(found, [Path::new("/t/debug/deps/keyplane"), Path::new("/t/debug/keyplane")]);
    }
}
