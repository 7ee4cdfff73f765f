//! The real Kubernetes, etcd, containerd and add-ons that the lab runs, and the cache that they lie in.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command;

/// The Go modules that pin what is built, beside this crate's own manifest.
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kubernetes");

/// The set with everything that one Kubernetes node and its control plane need, in the newest version.
const NEWEST: &str = "kubernetes";

/// Where a machine shows the sets, each in a folder of its name.
pub(crate) const SETS: &str = "/opt/keyplane/sets";

/// The built programs, which lie in sets: one for each Go module. Those of one Kubernetes version are at hand, which is
/// the newest unless [`Parts::version`] said another.
#[derive(Clone, Debug)]
pub struct Parts {
    sets: BTreeMap<String, PathBuf>,
    kubernetes: String,
    cache: PathBuf,
    pause: PathBuf,
}

impl Parts {
    /// Builds what is missing, telling the progress on standard error, and returns where everything is.
    ///
    /// # Errors
    /// When a program does not build.
    pub fn build() -> Result<Self> {
        let sets = build(&[])?;
        let newest = sets.get(NEWEST).context("build.sh named no folder for Kubernetes")?;
        let cache = newest.parent().and_then(Path::parent).context("build.sh named no folder of a cache")?.to_owned();
        let pause = build_pause(&cache)?;
        Ok(Self { sets, kubernetes: NEWEST.to_owned(), cache, pause })
    }

    /// The same with the programs of another Kubernetes minor at hand, such as `v1.36`. What that set does not have
    /// (containerd, kubectl) is the newest one's.
    ///
    /// # Errors
    /// When that minor is not built.
    pub fn version(&self, minor: &str) -> Result<Self> {
        self.set(minor)?;
        Ok(Self { kubernetes: minor.to_owned(), ..self.clone() })
    }

    /// The folder with the programs of the newest Kubernetes and its containerd, for a `PATH`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.sets[NEWEST]
    }

    /// The folder of one set by its name in `build.sh`, such as `flannel` or `ignition`.
    ///
    /// # Errors
    /// When there is no such set.
    pub fn set(&self, name: &str) -> Result<&Path> {
        let known = || self.sets.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let folder = self.sets.get(name).with_context(|| format!("{name} is not built; there is {}", known()))?;
        Ok(folder)
    }

    /// The folder of a set that is built only for those who ask for it, which takes a while the first time.
    ///
    /// # Errors
    /// When there is no such set, or it does not build.
    pub fn on_request(&self, name: &str) -> Result<PathBuf> {
        let _lock = self.lock(name)?;
        let mut sets = build(&["--only", name])?;
        sets.remove(name).with_context(|| format!("build.sh named no folder for {name}"))
    }

    /// All sets with their folders.
    pub fn sets(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.sets.iter().map(|(name, folder)| (name.as_str(), folder.as_path()))
    }

    /// Where results that are expensive to make are kept between runs.
    #[must_use]
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Keeps other labs from making the same result in the cache until the lock is dropped.
    ///
    /// # Errors
    /// When the lock file can't be made.
    pub fn lock(&self, what: &str) -> Result<File> {
        let folder = self.cache.join("locks");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = File::create(folder.join(what)).with_context(|| format!("cannot make the lock of {what}"))?;
        file.lock().with_context(|| format!("cannot lock {what}"))?;
        Ok(file)
    }

    /// The path of the program `name` of this version on the host.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.sets[self.set_of(name)].join(name)
    }

    /// The path of the program `name` of this version on a machine.
    #[must_use]
    pub fn program_on_machine(&self, name: &str) -> String {
        format!("{SETS}/{}/{name}", self.set_of(name))
    }

    fn set_of(&self, program: &str) -> &str {
        if self.sets[&self.kubernetes].join(program).exists() { &self.kubernetes } else { NEWEST }
    }

    /// A command that runs the program `name` on the host.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        Command::new(self.program(name))
    }

    /// The program that only stays: the sandbox of pods and process 1 of machines.
    #[must_use]
    pub fn pause(&self) -> &Path {
        &self.pause
    }

    /// The version of Kubernetes that is at hand, such as `v1.37.2`.
    ///
    /// # Errors
    /// When kubeadm does not run.
    pub fn kubernetes_version(&self) -> Result<String> {
        Ok(command::run(self.command("kubeadm").args(["version", "-o", "short"]))?.trim().to_owned())
    }
}

/// Runs `build.sh`, with its progress on standard error.
fn build(arguments: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let script = format!("{MODULE}/build.sh");
    let output = Command::new(&script)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {script}"))?;
    if !output.status.success() {
        bail!("{script} failed ({}); its words are above", output.status);
    }
    Ok(sets_in(&String::from_utf8_lossy(&output.stdout)))
}

/// The lines `SET FOLDER` that `build.sh` prints.
fn sets_in(text: &str) -> BTreeMap<String, PathBuf> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(name, folder)| (name.to_owned(), PathBuf::from(folder))).collect()
}

fn build_pause(cache: &Path) -> Result<PathBuf> {
    let source = format!("{MODULE}/cmd/pause/main.go");
    let key = sha256(&fs::read(&source).with_context(|| format!("cannot read {source}"))?)?;
    let folder = cache.join("pause").join(&key[..16]);
    let built = folder.join("pause");
    if !built.exists() {
        fs::create_dir_all(&folder)?;
        let partial = folder.join(format!(".pause.{}", std::process::id()));
        command::run(
            Command::new("go")
                .current_dir(MODULE)
                .env("CGO_ENABLED", "0")
                .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o"])
                .arg(&partial)
                .arg("./cmd/pause"),
        )?;
        fs::rename(&partial, &built)?;
    }
    Ok(built)
}

/// The SHA-256 of `content` in hex.
///
/// # Errors
/// When coreutils' `sha256sum` does not run.
pub fn sha256(content: &[u8]) -> Result<String> {
    let text = command::run_with_input(&mut Command::new("sha256sum"), content)?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_minor_has_its_own_programs_and_borrows_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let line = |set: &str| format!("{set} {}\n", folder.path().join(set).display());
        for program in ["kubernetes/kubelet", "kubernetes/containerd", "v1.36/kubelet"] {
            let path = folder.path().join(program);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let sets = sets_in(&(line("kubernetes") + &line("v1.36")));
        let newest = Parts { sets, kubernetes: NEWEST.to_owned(), cache: PathBuf::new(), pause: PathBuf::new() };
        let other = newest.version("v1.36").unwrap();
        assert_eq!(other.program("kubelet"), folder.path().join("v1.36/kubelet"));
        assert_eq!(other.program("containerd"), folder.path().join("kubernetes/containerd"));
        assert_eq!(other.program_on_machine("kubelet"), "/opt/keyplane/sets/v1.36/kubelet");
        assert_eq!(newest.program("kubelet"), folder.path().join("kubernetes/kubelet"));
        let error = newest.version("v1.35").unwrap_err().to_string();
        assert_eq!(error, "v1.35 is not built; there is kubernetes, v1.36");
    }

    #[test]
    fn sha256_is_the_one_everybody_knows() {
        assert!(sha256(b"").unwrap().starts_with("e3b0c44298fc1c14"));
    }
}
