//! Carries what is wanted to the machine.

use std::collections::BTreeMap;
use std::io;

use super::files::{Root, Staged};
use super::index::{MachineFile, Wanted};
use super::own_kubeconfig::{KUBELET_KUBECONFIGS, keep_user};
use super::units;

/// What one pass did and found.
#[derive(Debug, Default)]
pub struct Carried {
    /// The paths that were written.
    pub changed: Vec<String>,
    /// Which of them there were before, with another content.
    pub replaced: Vec<String>,
    /// The checksum of the Secret whose files are all there, as read back.
    pub secret: Option<String>,
    /// The same of the ConfigMap.
    pub config: Option<String>,
    /// What could not be done.
    pub errors: Vec<String>,
}

/// What is wanted of both objects. Either may be missing: a worker of the layout `StaticPod` has no Secret, and an object
/// that is gone takes no file with it.
#[derive(Default)]
pub struct Objects {
    /// The Secret.
    pub secret: Option<Wanted>,
    /// The ConfigMap.
    pub config: Option<Wanted>,
}

impl Objects {
    /// All files in the order in which they take their places: keys and certificates, then the rest, and static pods
    /// last, which start with what is there then.
    fn in_order(&self, root: &Root) -> io::Result<Vec<MachineFile>> {
        let of = |wanted: &Option<Wanted>| wanted.iter().flat_map(|wanted| wanted.files.clone()).collect::<Vec<_>>();
        let (manifests, others): (Vec<_>, Vec<_>) = of(&self.config).into_iter().partition(MachineFile::is_manifest);
        of(&self.secret).into_iter().chain(others).chain(manifests).map(|file| as_kept(root, file)).collect()
    }

    /// The content on the machine of every file of both objects.
    ///
    /// # Errors
    /// If one is there and can't be read.
    pub fn on_machine(&self, root: &Root) -> io::Result<BTreeMap<String, Vec<u8>>> {
        let wanted = self.secret.iter().chain(&self.config).flat_map(|wanted| &wanted.files);
        let mut found = BTreeMap::new();
        for file in wanted {
            if let Some(content) = root.read(&file.path)? {
                found.insert(file.path.clone(), content);
            }
        }
        Ok(found)
    }

    /// The checksums of what each unit reads when it starts, as it is on the machine.
    ///
    /// # Errors
    /// If a file can't be read.
    pub fn unit_states(&self, root: &Root) -> io::Result<BTreeMap<String, String>> {
        let mut files = self.on_machine(root)?;
        // A kubelet that joined with a token has written its own.
        for path in KUBELET_KUBECONFIGS {
            if let Some(content) = root.read(path)? {
                files.insert(path.to_owned(), content);
            }
        }
        Ok(units::states(&files))
    }
}

/// A kubelet's kubeconfig keeps what is the kubelet's own in it.
fn as_kept(root: &Root, mut file: MachineFile) -> io::Result<MachineFile> {
    if KUBELET_KUBECONFIGS.contains(&file.path.as_str()) {
        file.content = keep_user(root.read(&file.path)?.as_deref(), &file.content);
    }
    Ok(file)
}

/// Writes what differs. Files that are as they should be are not touched.
#[must_use]
pub fn carry(root: &Root, objects: &Objects) -> Carried {
    let mut carried = Carried::default();
    if let Err(error) = write(root, objects, true, &mut carried) {
        carried.errors.push(error);
    }
    let problem = carried.read_back(root, objects);
    if carried.errors.is_empty() {
        carried.errors.extend(problem);
    }
    carried
}

/// Writes what differs, save static pods: the kubelet makes those anew as soon as it sees them, and one that is itself
/// started anew at that moment may wait for an API server that waits for the pod.
#[must_use]
pub fn carry_before_static_pods(root: &Root, objects: &Objects) -> Carried {
    let mut carried = Carried::default();
    if let Err(error) = write(root, objects, false, &mut carried) {
        carried.errors.push(error);
    }
    carried
}

impl Carried {
    /// What was done before this.
    #[must_use]
    pub fn after(mut self, before: Self) -> Self {
        self.changed = [before.changed, self.changed].concat();
        self.replaced = [before.replaced, self.replaced].concat();
        self
    }

    /// Reads everything back; gives back which files are not as they should be.
    fn read_back(&mut self, root: &Root, objects: &Objects) -> Option<String> {
        let mut others = vec![];
        let mut checksum = |wanted: &Option<Wanted>| {
            let wanted = wanted.as_ref()?;
            let before = others.len();
            let differs = |file: &&MachineFile| !holds(root, file).unwrap_or(false);
            others.extend(wanted.files.iter().filter(differs).map(|file| file.path.clone()));
            (others.len() == before).then(|| wanted.checksum.clone())
        };
        self.secret = checksum(&objects.secret);
        self.config = checksum(&objects.config);
        (!others.is_empty()).then(|| {
            format!(
                "changed on the machine: {}: restart keyplane-node to have them as they are written",
                others.join(", ")
            )
        })
    }

    /// Reads everything back once more. What somebody has changed on the machine is told, and not fought.
    pub fn look_again(&mut self, root: &Root, objects: &Objects) {
        self.errors = self.read_back(root, objects).into_iter().collect();
    }
}

fn holds(root: &Root, file: &MachineFile) -> io::Result<bool> {
    root.holds(&as_kept(root, file.clone())?)
}

fn write(root: &Root, objects: &Objects, static_pods: bool, carried: &mut Carried) -> Result<(), String> {
    let mut files = objects.in_order(root).map_err(|error| format!("reading the kubelet's kubeconfig: {error}"))?;
    files.retain(|file| static_pods || !file.is_manifest());
    root.clean(files.iter().map(|file| file.path.as_str())).map_err(|error| format!("cleaning up: {error}"))?;
    // All of them are on the disk before the first takes its place: a certificate and its key then change within a
    // moment, and a full disk changes nothing.
    let mut staged: Vec<(&MachineFile, Staged, bool)> = vec![];
    for file in &files {
        let told = |error: io::Error| format!("{}: {error}", file.path);
        if !root.holds(file).map_err(told)? {
            let before = root.read(&file.path).map_err(told)?;
            let replaces = before.is_some_and(|before| before != file.content);
            staged.push((file, root.stage(file).map_err(told)?, replaces));
        }
    }
    for (file, staged, replaces) in staged {
        staged.take_its_place().map_err(|error| format!("{}: {error}", file.path))?;
        carried.changed.push(file.path.clone());
        if replaces {
            carried.replaced.push(file.path.clone());
        }
    }
    Ok(())
}
