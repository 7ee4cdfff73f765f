//! The real Kubernetes, etcd and containerd that the lab runs, and the cache that they lie in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command;

/// The Go module that pins what is built, beside this crate's own manifest.
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kubernetes");

/// The built programs.
#[derive(Clone, Debug)]
pub struct Parts {
    folder: PathBuf,
    cache: PathBuf,
    pause: PathBuf,
}

impl Parts {
    /// Builds what is missing, telling the progress on standard error, and returns where everything is.
    ///
    /// # Errors
    /// When a program does not build.
    pub fn build() -> Result<Self> {
        let script = format!("{MODULE}/build.sh");
        let output = Command::new(&script)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot start {script}"))?;
        if !output.status.success() {
            bail!("{script} failed ({}); its words are above", output.status);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let folder = PathBuf::from(text.lines().last().unwrap_or_default());
        let cache = folder.parent().and_then(Path::parent).context("build.sh named no folder")?.to_owned();
        let pause = build_pause(&cache)?;
        Ok(Self { folder, cache, pause })
    }

    /// The folder with all programs, for a `PATH`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where results that are expensive to make are kept between runs.
    #[must_use]
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The path of the program `name`.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
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

    /// The version of Kubernetes that was built, such as `v1.37.2`.
    ///
    /// # Errors
    /// When kubeadm does not run.
    pub fn kubernetes_version(&self) -> Result<String> {
        Ok(command::run(self.command("kubeadm").args(["version", "-o", "short"]))?.trim().to_owned())
    }
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
    fn sha256_is_the_one_everybody_knows() {
        assert!(sha256(b"").unwrap().starts_with("e3b0c44298fc1c14"));
    }
}
