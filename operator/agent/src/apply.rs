//! Applies the files of the node's objects to the node.

use std::collections::BTreeMap;
use std::io;

use super::files::{Root, Staged};
use super::index::{DesiredFiles, NodeFile};
use super::own_kubeconfig::{KUBELET_KUBECONFIGS, keep_user};
use super::units;

/// Result of one sync.
#[derive(Debug, Default)]
pub struct Applied {
    /// Paths of the written files.
    pub changed: Vec<String>,
    /// Paths of the written files that existed before with another content.
    pub replaced: Vec<String>,
    /// Checksum of the Secret, if reading its files back found all of them applied.
    pub secret: Option<String>,
    /// Checksum of the ConfigMap, if reading its files back found all of them applied.
    pub config: Option<String>,
    /// Errors of the sync.
    pub errors: Vec<String>,
}

/// Desired files of both objects. Either object may be missing: a worker of the layout `StaticPod` has no Secret, and
/// deleting an object deletes no file.
#[derive(Default)]
pub struct Objects {
    /// Desired files of the Secret.
    pub secret: Option<DesiredFiles>,
    /// Desired files of the ConfigMap.
    pub config: Option<DesiredFiles>,
}

impl Objects {
    /// All files in the order of writing: keys and certificates, then the rest, and static pods last, because a static
    /// pod starts with the files that exist at that moment.
    fn in_order(&self, root: &Root) -> io::Result<Vec<NodeFile>> {
        let of =
            |wanted: &Option<DesiredFiles>| wanted.iter().flat_map(|wanted| wanted.files.clone()).collect::<Vec<_>>();
        let (manifests, others): (Vec<_>, Vec<_>) = of(&self.config).into_iter().partition(NodeFile::is_manifest);
        of(&self.secret).into_iter().chain(others).chain(manifests).map(|file| keep_own_user(root, file)).collect()
    }

    /// Reads the current content of every file of both objects from the node.
    ///
    /// # Errors
    /// An existing file can't be read.
    pub fn current_content(&self, root: &Root) -> io::Result<BTreeMap<String, Vec<u8>>> {
        let wanted = self.secret.iter().chain(&self.config).flat_map(|wanted| &wanted.files);
        let mut found = BTreeMap::new();
        for file in wanted {
            if let Some(content) = root.read(&file.path)? {
                found.insert(file.path.clone(), content);
            }
        }
        Ok(found)
    }

    /// Returns, for each unit, the checksum of the node's files that the unit reads when it starts.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn unit_states(&self, root: &Root) -> io::Result<BTreeMap<String, String>> {
        let mut files = self.current_content(root)?;
        // A kubelet that joined with a token has written its own kubeconfig.
        for path in KUBELET_KUBECONFIGS {
            if let Some(content) = root.read(path)? {
                files.insert(path.to_owned(), content);
            }
        }
        Ok(units::states(&files))
    }
}

/// Keeps the kubelet's own user entry in a kubelet kubeconfig.
fn keep_own_user(root: &Root, mut file: NodeFile) -> io::Result<NodeFile> {
    if KUBELET_KUBECONFIGS.contains(&file.path.as_str()) {
        file.content = keep_user(root.read(&file.path)?.as_deref(), &file.content);
    }
    Ok(file)
}

/// Writes the files that differ. Other files are not touched.
#[must_use]
pub fn apply(root: &Root, objects: &Objects) -> Applied {
    let mut applied = Applied::default();
    if let Err(error) = write(root, objects, true, &mut applied) {
        applied.errors.push(error);
    }
    let problem = applied.read_back(root, objects);
    if applied.errors.is_empty() {
        applied.errors.extend(problem);
    }
    applied
}

/// Writes the files that differ, except static pods. The kubelet recreates static pods as soon as it sees a change, and
/// a kubelet that is restarted at that moment may wait for an API server that waits for the pod.
#[must_use]
pub fn apply_before_static_pods(root: &Root, objects: &Objects) -> Applied {
    let mut applied = Applied::default();
    if let Err(error) = write(root, objects, false, &mut applied) {
        applied.errors.push(error);
    }
    applied
}

impl Applied {
    /// Adds the changes of an earlier step.
    #[must_use]
    pub fn after(mut self, before: Self) -> Self {
        self.changed = [before.changed, self.changed].concat();
        self.replaced = [before.replaced, self.replaced].concat();
        self
    }

    /// Reads all files back; returns an error that lists the files that differ.
    fn read_back(&mut self, root: &Root, objects: &Objects) -> Option<String> {
        let mut others = vec![];
        let mut checksum = |wanted: &Option<DesiredFiles>| {
            let wanted = wanted.as_ref()?;
            let before = others.len();
            let differs = |file: &&NodeFile| !holds(root, file).unwrap_or(false);
            others.extend(wanted.files.iter().filter(differs).map(|file| file.path.clone()));
            (others.len() == before).then(|| wanted.checksum.clone())
        };
        self.secret = checksum(&objects.secret);
        self.config = checksum(&objects.config);
        (!others.is_empty()).then(|| {
            format!(
                "files differ from the Secret and the ConfigMap: {}: restart keyplane-node to restore them",
                others.join(", ")
            )
        })
    }

    /// Reads all files back again. Manual changes on the node are reported and not reverted.
    pub fn verify(&mut self, root: &Root, objects: &Objects) {
        self.errors = self.read_back(root, objects).into_iter().collect();
    }
}

fn holds(root: &Root, file: &NodeFile) -> io::Result<bool> {
    root.holds(&keep_own_user(root, file.clone())?)
}

fn write(root: &Root, objects: &Objects, static_pods: bool, applied: &mut Applied) -> Result<(), String> {
    let mut files = objects.in_order(root).map_err(|error| format!("reading the kubelet's kubeconfig: {error}"))?;
    files.retain(|file| static_pods || !file.is_manifest());
    root.clean(files.iter().map(|file| file.path.as_str())).map_err(|error| format!("cleaning up: {error}"))?;
    // All files are on the disk before the first one is renamed into place: a certificate and its key then change
    // almost at the same time, and a full disk changes nothing.
    let mut staged: Vec<(&NodeFile, Staged, bool)> = vec![];
    for file in &files {
        let error_with_path = |error: io::Error| format!("{}: {error}", file.path);
        if !root.holds(file).map_err(error_with_path)? {
            let before = root.read(&file.path).map_err(error_with_path)?;
            let replaces = before.is_some_and(|before| before != file.content);
            staged.push((file, root.stage(file).map_err(error_with_path)?, replaces));
        }
    }
    for (file, staged, replaces) in staged {
        staged.commit().map_err(|error| format!("{}: {error}", file.path))?;
        applied.changed.push(file.path.clone());
        if replaces {
            applied.replaced.push(file.path.clone());
        }
    }
    Ok(())
}
