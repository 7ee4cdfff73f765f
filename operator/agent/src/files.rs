//! Files on the machine: each is the old one or the new one, whatever happens in between.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use super::index::MachineFile;
use super::owners;

/// The name of a file that is yet to take its place ends so. It begins with a dot: the kubelet ignores such files among
/// its manifests.
const NEW: &str = ".keyplane-new";

/// The machine's file system, or what stands for it.
#[derive(Debug, Clone)]
pub struct Root(pub PathBuf);

/// A file with its content on disk that has not taken its place yet.
#[derive(Debug)]
#[must_use]
pub struct Staged {
    new: PathBuf,
    place: PathBuf,
}

impl Root {
    /// Where a path of the machine is.
    #[must_use]
    pub fn at(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// The content of a file; nothing if there is none.
    ///
    /// # Errors
    /// If it is there and can't be read.
    pub fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.at(path)) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the file is there with its content, mode and owner.
    ///
    /// # Errors
    /// If it is there and can't be read, or its owner is unknown.
    pub fn holds(&self, file: &MachineFile) -> io::Result<bool> {
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

    fn owner(&self, file: &MachineFile) -> io::Result<(u32, u32)> {
        let number = |list: &str, name: &str| {
            let text = self.read(list)?.unwrap_or_default();
            let found = owners::number(&String::from_utf8_lossy(&text), name);
            // Root has this number on every system, also on one whose lists are in another place.
            found.or((name == "root").then_some(0)).ok_or_else(|| io::Error::other(format!("{list} has no {name}")))
        };
        Ok((number("/etc/passwd", &file.user)?, number("/etc/group", &file.group)?))
    }

    /// Writes a file beside its place, to the disk. From its first byte nobody can read it who may not read it then.
    ///
    /// # Errors
    /// If the disk is full, the directory can't be made, or the owner is unknown.
    pub fn stage(&self, file: &MachineFile) -> io::Result<Staged> {
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

    /// Writes one file.
    ///
    /// # Errors
    /// As [`Root::stage`].
    pub fn write(&self, file: &MachineFile) -> io::Result<()> {
        self.stage(file)?.take_its_place()
    }

    /// Has `link` point to `target` from now on, in one step.
    ///
    /// # Errors
    /// What the file system says.
    pub fn swap_link(&self, link: &str, target: &str) -> io::Result<()> {
        let place = self.at(link);
        let new = beside(&place)?;
        remove(&new)?;
        symlink(target, &new)?;
        Staged { new, place }.take_its_place()
    }

    /// The name of what a link points to; nothing if it is no link.
    #[must_use]
    pub fn link_target(&self, link: &str) -> Option<String> {
        Some(fs::read_link(self.at(link)).ok()?.file_name()?.to_str()?.to_owned())
    }

    /// The names of the files in a directory, without links and directories; none if there is no such directory.
    ///
    /// # Errors
    /// What the file system says.
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

    /// Removes a file; one that is not there is as good.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        remove(&self.at(path))
    }

    /// Removes what a crash has left beside the places of these files.
    ///
    /// # Errors
    /// What the file system says.
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
    /// Takes the place of what was there before: in one step, and so that a power cut does not undo it.
    ///
    /// # Errors
    /// What the file system says. The file is then gone, and what was there stays.
    pub fn take_its_place(self) -> io::Result<()> {
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

    /// A folder that stands for a machine; it goes with the first of the two.
    pub(crate) fn root() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let metadata = fs::metadata(folder.path()).unwrap();
        let etc = folder.path().join("etc");
        fs::create_dir(&etc).unwrap();
        // Files of whoever runs the test are root's there.
        fs::write(etc.join("passwd"), format!("root:x:{}:", metadata.uid())).unwrap();
        fs::write(etc.join("group"), format!("root:x:{}:", metadata.gid())).unwrap();
        let root = Root(folder.path().to_owned());
        (folder, root)
    }

    fn file(path: &str, mode: u32, content: &str) -> MachineFile {
        let (user, group) = ("root".to_owned(), "root".to_owned());
        MachineFile { path: path.to_owned(), mode, user, group, content: content.into() }
    }

    #[test]
    fn a_file_has_its_content_and_mode_and_is_then_held() {
        let (_folder, root) = root();
        let wanted = file("/etc/kubernetes/pki/etcd/ca.key", 0o600, "secret");
        assert!(!root.holds(&wanted).unwrap());
        root.write(&wanted).unwrap();
        assert!(root.holds(&wanted).unwrap());
        assert!(!root.holds(&file(&wanted.path, 0o644, "secret")).unwrap(), "another mode");
        assert!(!root.holds(&file(&wanted.path, 0o600, "other")).unwrap(), "another content");
        let unknown = MachineFile { user: "nobodyknows".to_owned(), ..wanted };
        assert!(root.write(&unknown).unwrap_err().to_string().contains("has no nobodyknows"));
    }

    #[test]
    fn what_is_staged_is_nowhere_to_be_seen_and_what_a_crash_left_is_removed() {
        let (_folder, root) = root();
        let wanted = file("/etc/kubernetes/manifests/etcd.yaml", 0o600, "new");
        root.write(&file(&wanted.path, 0o600, "old")).unwrap();
        let left = root.stage(&wanted).unwrap();
        assert_eq!(root.read(&wanted.path).unwrap().unwrap(), b"old");
        assert!(left.new.file_name().unwrap().to_string_lossy().starts_with('.') && left.new.exists());
        // The next one is not in its way.
        root.stage(&wanted).unwrap().take_its_place().unwrap();
        assert_eq!(root.read(&wanted.path).unwrap().unwrap(), b"new");
        let _ = root.stage(&wanted).unwrap();
        root.clean([wanted.path.as_str(), "/etc/not/there"].into_iter()).unwrap();
        assert_eq!(fs::read_dir(root.at("/etc/kubernetes/manifests")).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_swapped_in_place() {
        let (_folder, root) = root();
        root.write(&file("/etc/kubernetes/a", 0o600, "a")).unwrap();
        root.write(&file("/etc/kubernetes/b", 0o600, "b")).unwrap();
        root.swap_link("/etc/kubernetes/current", "a").unwrap();
        root.swap_link("/etc/kubernetes/current", "b").unwrap();
        assert_eq!(root.read("/etc/kubernetes/current").unwrap().unwrap(), b"b");
        assert_eq!(fs::read_link(root.at("/etc/kubernetes/current")).unwrap(), PathBuf::from("b"));
    }
}
