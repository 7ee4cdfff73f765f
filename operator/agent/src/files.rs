//! Atomic writes of files on the node: after a crash, each file is the old one or the new one.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use super::file_owners;
use super::index::NodeFile;

/// Suffix of a staged file. The name also begins with a dot: the kubelet ignores such files among its manifests.
const NEW: &str = ".keyplane-new";

/// The node's root directory, or a directory that stands for it.
#[derive(Debug, Clone)]
pub struct Root(pub PathBuf);

/// A new file on the disk that is not renamed into place yet.
#[derive(Debug)]
#[must_use]
pub struct Staged {
    new: PathBuf,
    place: PathBuf,
}

impl Root {
    /// Returns the location of a node's path below the root directory.
    #[must_use]
    pub fn at(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// Reads a file; returns `None` if the file does not exist.
    ///
    /// # Errors
    /// The file exists and can't be read.
    pub fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.at(path)) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns whether the file exists with its content, mode and owner.
    ///
    /// # Errors
    /// The file exists and can't be read, or its owner is unknown.
    pub fn holds(&self, file: &NodeFile) -> io::Result<bool> {
        let mut found = match OpenOptions::new().read(true).open(self.at(&file.path)) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let metadata = found.metadata()?;
        let (uid, gid) = self.owner(file)?;
        if (metadata.mode() & 0o7777, metadata.uid(), metadata.gid()) != (file.mode, uid, gid) {
            return Ok(false);
        }
        let mut content = Vec::with_capacity(file.content.len());
        found.read_to_end(&mut content)?;
        Ok(content == file.content)
    }

    fn owner(&self, file: &NodeFile) -> io::Result<(u32, u32)> {
        let number = |list: &str, name: &str| {
            let text = self.read(list)?.unwrap_or_default();
            let found = file_owners::number(&String::from_utf8_lossy(&text), name);
            // Root has the ID 0 on every system, also on one whose lists are elsewhere.
            found.or((name == "root").then_some(0)).ok_or_else(|| io::Error::other(format!("{list} has no {name}")))
        };
        Ok((number("/etc/passwd", &file.user)?, number("/etc/group", &file.group)?))
    }

    /// Writes a file to the disk beside its final path. The file has its owner and mode before its content, so no other
    /// user can read it at any moment.
    ///
    /// # Errors
    /// The disk is full, the directory can't be created, or the owner is unknown.
    pub fn stage(&self, file: &NodeFile) -> io::Result<Staged> {
        let place = self.at(&file.path);
        let new = beside(&place)?;
        let (uid, gid) = self.owner(file)?;
        if let Some(directory) = place.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        }
        remove(&new)?;
        let staged = Staged { new, place };
        let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged.new)?;
        let metadata = target.metadata()?;
        if (metadata.uid(), metadata.gid()) != (uid, gid) {
            fchown(&target, Some(uid), Some(gid))?;
        }
        target.set_permissions(Permissions::from_mode(file.mode))?;
        target.write_all(&file.content)?;
        target.sync_all()?;
        Ok(staged)
    }

    /// Writes one file atomically.
    ///
    /// # Errors
    /// As [`Root::stage`].
    pub fn write(&self, file: &NodeFile) -> io::Result<()> {
        self.stage(file)?.commit()
    }

    /// Replaces the symbolic link `link` atomically, so that it points to `target`.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn swap_link(&self, link: &str, target: &str) -> io::Result<()> {
        let place = self.at(link);
        let new = beside(&place)?;
        remove(&new)?;
        symlink(target, &new)?;
        Staged { new, place }.commit()
    }

    /// Returns the file name of a link's target; `None` if the path is no link.
    #[must_use]
    pub fn link_target(&self, link: &str) -> Option<String> {
        Some(fs::read_link(self.at(link)).ok()?.file_name()?.to_str()?.to_owned())
    }

    /// Lists the regular files in a directory; the list is empty if the directory does not exist.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn files_in(&self, directory: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.at(directory)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(error),
        };
        let mut names = vec![];
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().to_str().map(str::to_owned));
            }
        }
        Ok(names)
    }

    /// Removes a file, if it exists.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        remove(&self.at(path))
    }

    /// Removes staged files that a crash left beside these paths.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn clean<'a>(&self, paths: impl Iterator<Item = &'a str>) -> io::Result<()> {
        let directories = paths.filter_map(|path| self.at(path).parent().map(Path::to_owned));
        for directory in directories.collect::<std::collections::BTreeSet<_>>() {
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                if name.to_string_lossy().starts_with('.') && name.to_string_lossy().ends_with(NEW) {
                    remove(&entry.path())?;
                }
            }
        }
        Ok(())
    }
}

impl Staged {
    /// Renames the staged file into place, atomically, and syncs the directory so that a power cut does not undo the
    /// rename.
    ///
    /// # Errors
    /// An error of the file system. The staged file is then removed, and the existing file stays.
    pub fn commit(self) -> io::Result<()> {
        let result = fs::rename(&self.new, &self.place);
        if result.is_err() {
            let _ = fs::remove_file(&self.new);
        }
        result?;
        match self.place.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

fn beside(place: &Path) -> io::Result<PathBuf> {
    let name = place.file_name().ok_or_else(|| io::Error::other(format!("{} is no file", place.display())))?;
    Ok(place.with_file_name(format!(".{}{NEW}", name.to_string_lossy())))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A temporary directory that stands for a node's root directory. Dropping the first value removes it.
    pub(crate) fn root() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let metadata = fs::metadata(folder.path()).unwrap();
        let etc = folder.path().join("etc");
        fs::create_dir(&etc).unwrap();
        // Files of the user that runs the test belong to root in this root directory.
        fs::write(etc.join("passwd"), format!("root:x:{}:", metadata.uid())).unwrap();
        fs::write(etc.join("group"), format!("root:x:{}:", metadata.gid())).unwrap();
        let root = Root(folder.path().to_owned());
        (folder, root)
    }

    fn file(path: &str, mode: u32, content: &str) -> NodeFile {
        let (user, group) = ("root".to_owned(), "root".to_owned());
        NodeFile { path: path.to_owned(), mode, user, group, content: content.into() }
    }

    #[test]
    fn written_file_has_content_mode_and_owner() {
        let (_folder, root) = root();
        let wanted = file("/etc/kubernetes/pki/etcd/ca.key", 0o600, "secret");
        assert!(!root.holds(&wanted).unwrap());
        root.write(&wanted).unwrap();
        assert!(root.holds(&wanted).unwrap());
        assert!(!root.holds(&file(&wanted.path, 0o644, "secret")).unwrap(), "another mode");
        assert!(!root.holds(&file(&wanted.path, 0o600, "other")).unwrap(), "another content");
        let unknown = NodeFile { user: "nobodyknows".to_owned(), ..wanted };
        assert!(root.write(&unknown).unwrap_err().to_string().contains("has no nobodyknows"));
    }

    #[test]
    fn staged_file_is_hidden_and_leftovers_are_removed() {
        let (_folder, root) = root();
        let wanted = file("/etc/kubernetes/manifests/etcd.yaml", 0o600, "new");
        root.write(&file(&wanted.path, 0o600, "old")).unwrap();
        let left = root.stage(&wanted).unwrap();
        assert_eq!(root.read(&wanted.path).unwrap().unwrap(), b"old");
        assert!(left.new.file_name().unwrap().to_string_lossy().starts_with('.') && left.new.exists());
        // A leftover does not block the next write.
        root.stage(&wanted).unwrap().commit().unwrap();
        assert_eq!(root.read(&wanted.path).unwrap().unwrap(), b"new");
        let _ = root.stage(&wanted).unwrap();
        root.clean([wanted.path.as_str(), "/etc/not/there"].into_iter()).unwrap();
        assert_eq!(fs::read_dir(root.at("/etc/kubernetes/manifests")).unwrap().count(), 1);
    }

    #[test]
    fn replaces_link_in_place() {
        let (_folder, root) = root();
        root.write(&file("/etc/kubernetes/a", 0o600, "a")).unwrap();
        root.write(&file("/etc/kubernetes/b", 0o600, "b")).unwrap();
        root.swap_link("/etc/kubernetes/current", "a").unwrap();
        root.swap_link("/etc/kubernetes/current", "b").unwrap();
        assert_eq!(root.read("/etc/kubernetes/current").unwrap().unwrap(), b"b");
        assert_eq!(fs::read_link(root.at("/etc/kubernetes/current")).unwrap(), PathBuf::from("b"));
    }
}
