//! containerd's store with its images unpacked, kept between labs. Its layers and blobs are only ever read, so that
//! machines share their files by hard links: no copying, no unpacking, no room on the disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use crate::command;
use crate::image::Image;
use crate::parts::sha256;

/// What containerd changes in place, and what each machine needs a copy of its own of.
const DATABASES: &[&str] =
    &["io.containerd.metadata.v1.bolt/meta.db", "io.containerd.snapshotter.v1.overlayfs/metadata.db"];

/// A store that nobody has used for so long is of images that are no longer made.
const KEPT: Duration = Duration::from_hours(48);

/// Where the store with just these images is, if there is one.
pub fn saved(cache: &Path, images: &[Image]) -> Result<PathBuf> {
    let mut names: Vec<_> = images.iter().map(|image| image.archive().to_string_lossy()).collect();
    names.sort_unstable();
    Ok(cache.join("stores").join(&sha256(names.join("\n").as_bytes())?[..16]))
}

/// Gives the store `saved` to a machine whose containerd does not run.
pub fn lay(saved: &Path, store: &Path) -> Result<()> {
    // Its time says when it was last of use.
    let _ = fs::File::open(saved).and_then(|folder| folder.set_modified(SystemTime::now()));
    link(saved, store)
}

/// Keeps a machine's store, whose containerd does not run. It is of use only on the file system of the labs, and is
/// not kept elsewhere.
pub fn save(store: &Path, saved: &Path) -> Result<()> {
    let folder = saved.parent().context("a folder without a parent")?;
    fs::create_dir_all(folder)?;
    remove_unused(folder);
    let partial = tempfile::Builder::new().prefix(".partial").tempdir_in(folder)?;
    if link(store, partial.path()).is_err() {
        return Ok(());
    }
    // Where two machines were first at the same time, one of them was faster.
    if fs::rename(partial.path(), saved).is_ok() {
        let _ = partial.keep();
    }
    Ok(())
}

/// Makes `to` the same as `from` with links to its files, the databases apart.
fn link(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    fs::create_dir_all(to)?;
    let source = from.join(".");
    command::run(Command::new("cp").args(["--archive", "--link"]).arg(&source).arg(to))?;
    for database in DATABASES {
        let copy = to.join(database);
        fs::remove_file(&copy).with_context(|| format!("no {}", copy.display()))?;
        fs::copy(from.join(database), &copy)?;
    }
    Ok(())
}

fn remove_unused(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let used = entry.metadata().and_then(|facts| facts.modified());
        if used.is_ok_and(|used| used.elapsed().is_ok_and(|age| age > KEPT)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_store_is_shared_but_for_its_databases_and_an_old_one_goes() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        for file in DATABASES.iter().copied().chain(["blobs/one"]) {
            let path = store.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let saved = folder.path().join("stores/new");
        let old = folder.path().join("stores/old");
        fs::create_dir_all(&old).unwrap();
        fs::File::open(&old).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        save(&store, &saved).unwrap();
        let other = folder.path().join("other");
        lay(&saved, &other).unwrap();

        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(&other.join("blobs/one")), inode(&store.join("blobs/one")));
        assert_ne!(inode(&other.join(DATABASES[0])), inode(&saved.join(DATABASES[0])));
        assert_ne!(inode(&store.join(DATABASES[0])), inode(&saved.join(DATABASES[0])));
        let left: Vec<_> = fs::read_dir(folder.path().join("stores")).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
