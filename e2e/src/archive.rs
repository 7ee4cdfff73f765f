//! Container images, written as the archive that `docker save` writes and every runtime reads.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::command;
use crate::parts::sha256;

/// A file of a layer. Paths have no slash before them.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A program or library at this path, copied from the host.
    Program(Cow<'static, str>, PathBuf),
    /// A script at this path.
    Script(&'static str, &'static str),
    /// A symbolic link at this path, to this target.
    Link(Cow<'static, str>, Cow<'static, str>),
    /// A folder that anyone may write to.
    Shared(&'static str),
}

impl Entry {
    /// A program at this path, copied from the host.
    #[must_use]
    pub fn program(path: &'static str, source: impl Into<PathBuf>) -> Self {
        Self::Program(path.into(), source.into())
    }

    /// A symbolic link at this path, to this target.
    #[must_use]
    pub fn link(path: &'static str, target: &'static str) -> Self {
        Self::Link(path.into(), target.into())
    }
}

/// The files of one layer. Images that begin with the same layers share them on a machine.
pub type Layer = Vec<Entry>;

/// How a container of an image is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start<'a> {
    /// The program and what it is always given.
    pub command: &'a [&'a str],
    /// The user and group, as numbers; nothing means root.
    pub user: Option<&'a str>,
    /// A variable of the environment beside the search path.
    pub variable: Option<(&'a str, &'a str)>,
}

/// Writes the image `name` with these layers to the file `archive`.
///
/// # Errors
/// When a program can't be read or the archive can't be written.
pub fn write(archive: &Path, name: &str, layers: &[Layer], start: Start) -> Result<()> {
    let what = || format!("cannot make the image {name}");
    let mut written = Vec::new();
    for (number, entries) in layers.iter().enumerate() {
        let file = archive.with_extension(format!("layer{number}"));
        write_layer(&file, entries).with_context(what)?;
        written.push((digest_of(&file)?, file));
    }
    let digests: Vec<_> = written.iter().map(|(digest, _)| digest.as_str()).collect();
    let config = serde_json::to_vec(&config(&digests, start))?;
    let config_name = format!("{}.json", sha256(&config)?);
    let layer_names: Vec<_> = digests.iter().map(|digest| format!("{digest}/layer.tar")).collect();
    let manifest = json!([{"Config": config_name, "RepoTags": [name], "Layers": layer_names}]);

    let partial = archive.with_extension("partial");
    let mut builder = Builder::new(File::create(&partial).with_context(what)?);
    add_bytes(&mut builder, &config_name, &config)?;
    for ((_, file), name) in written.iter().zip(&layer_names) {
        let length = fs::metadata(file)?.len();
        builder.append_data(&mut header(EntryType::Regular, 0o644, length), name, File::open(file)?)?;
        fs::remove_file(file)?;
    }
    add_bytes(&mut builder, "manifest.json", &serde_json::to_vec(&manifest)?)?;
    builder.into_inner().with_context(what)?;
    fs::rename(&partial, archive).with_context(what)
}

fn write_layer(path: &Path, entries: &[Entry]) -> Result<()> {
    let mut builder = Builder::new(File::create(path)?);
    for entry in entries {
        match entry {
            Entry::Program(path, source) => {
                let file = File::open(source).with_context(|| format!("cannot open {}", source.display()))?;
                let mut header = header(EntryType::Regular, 0o755, file.metadata()?.len());
                builder.append_data(&mut header, path.as_ref(), file)?;
            }
            Entry::Script(path, text) => {
                builder.append_data(
                    &mut header(EntryType::Regular, 0o755, text.len() as u64),
                    path,
                    text.as_bytes(),
                )?;
            }
            Entry::Link(path, target) => {
                builder.append_link(&mut header(EntryType::Symlink, 0o777, 0), path.as_ref(), target.as_ref())?;
            }
            Entry::Shared(path) => {
                builder.append_data(&mut header(EntryType::Directory, 0o1777, 0), path, io::empty())?;
            }
        }
    }
    builder.into_inner()?;
    Ok(())
}

fn add_bytes(builder: &mut Builder<File>, name: &str, content: &[u8]) -> Result<()> {
    let mut header = header(EntryType::Regular, 0o644, content.len() as u64);
    builder.append_data(&mut header, name, Cursor::new(content).take(content.len() as u64))?;
    Ok(())
}

/// Nothing of the host and nothing of the time, so that the same files are the same image.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn config(layer_digests: &[&str], start: Start) -> Value {
    let layers: Vec<_> = layer_digests.iter().map(|digest| format!("sha256:{digest}")).collect();
    let mut environment = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    environment.extend(start.variable.map(|(name, value)| format!("{name}={value}")));
    let mut config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": start.command,
            // Probes and people find what an image of a distribution has where it has it.
            "Env": environment,
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": layers},
    });
    if let Some(user) = start.user {
        config["config"]["User"] = user.into();
    }
    config
}

/// Go's name of this machine's architecture, which is the one images use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The file's SHA-256. A program of its own does it: it is a hundred megabytes, and this crate is not optimised.
fn digest_of(path: &Path) -> Result<String> {
    let text = command::run(Command::new("sha256sum").arg("--").arg(path))?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_names_its_image_and_holds_its_layers() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("image.tar");
        let program = folder.path().join("program");
        fs::write(&program, "#!").unwrap();
        let base = vec![Entry::program("bin/program", program), Entry::link("bin/sh", "program"), Entry::Shared("tmp")];
        let top = vec![Entry::Script("bin/script", "#!/bin/sh\n")];
        write(&archive, "example.org/image:1", &[base, top], Start { command: &["/bin/program"], ..Start::default() })
            .unwrap();

        let mut manifest = String::new();
        let mut names = Vec::new();
        for entry in tar::Archive::new(File::open(&archive).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            names.push(entry.path().unwrap().to_string_lossy().into_owned());
            if names.last().unwrap() == "manifest.json" {
                entry.read_to_string(&mut manifest).unwrap();
            }
        }
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "example.org/image:1");
        assert!(names.contains(&manifest[0]["Config"].as_str().unwrap().to_owned()));
        for layer in [0, 1] {
            assert!(names.contains(&manifest[0]["Layers"][layer].as_str().unwrap().to_owned()));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing but the archive and the program is left");
    }

    #[test]
    fn an_image_runs_as_root_unless_it_names_a_user() {
        assert!(config(&[], Start::default())["config"].get("User").is_none());
        assert_eq!(config(&[], Start { user: Some("1:1"), ..Start::default() })["config"]["User"], "1:1");
        let environment = |start| config(&[], start)["config"]["Env"].as_array().unwrap().clone();
        assert_eq!(environment(Start::default()).len(), 1);
        assert_eq!(environment(Start { variable: Some(("A", "b")), ..Start::default() })[1], "A=b");
    }

    #[test]
    fn the_same_files_make_the_same_archive() {
        let folder = tempfile::tempdir().unwrap();
        let archives = ["one.tar", "two.tar"].map(|name| folder.path().join(name));
        for archive in &archives {
            write(archive, "example.org/image:1", &[vec![Entry::Shared("tmp")]], Start::default()).unwrap();
        }
        assert_eq!(fs::read(&archives[0]).unwrap(), fs::read(&archives[1]).unwrap());
    }
}
