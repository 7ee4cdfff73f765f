//! The container images that the lab's clusters need, made here from the built programs: no registry is asked.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::archive::{self, Entry};
use crate::command;
use crate::parts::{Parts, sha256};

/// The sandbox image, which containerd must know by name.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10.2";

/// An image for demonstration pods: a shell and the common tools.
pub const TOOLBOX: &str = "registry.keyplane.io/lab/toolbox:1";

/// Debian's `busybox-static`.
const BUSYBOX: &str = "/bin/busybox";

/// What of it the toolbox has, under these names.
const TOOLS: &[&str] = &[
    "bin/sh",
    "bin/cat",
    "bin/date",
    "bin/echo",
    "bin/env",
    "bin/grep",
    "bin/hostname",
    "bin/ls",
    "bin/nc",
    "bin/nslookup",
    "bin/ping",
    "bin/ps",
    "bin/sleep",
    "bin/tail",
    "bin/wget",
];

/// An image in the cache.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    archive: PathBuf,
}

impl Image {
    /// Its full name with its tag.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The archive that holds it, in the folder of all archives.
    #[must_use]
    pub fn archive(&self) -> &Path {
        &self.archive
    }
}

/// The images that every node needs: the sandbox and the toolbox.
///
/// # Errors
/// When one can't be made.
pub fn for_any_node(parts: &Parts) -> Result<Vec<Image>> {
    let pause = [Entry::Program("pause", parts.pause().to_owned())];
    let mut toolbox = vec![Entry::Program("bin/busybox", BUSYBOX.into()), Entry::Shared("tmp")];
    toolbox.extend(TOOLS.iter().map(|tool| Entry::Link(tool, "busybox")));
    Ok(vec![image(parts, PAUSE, &pause, &["/pause"])?, image(parts, TOOLBOX, &toolbox, &["/bin/sh"])?])
}

/// The images that a node of the control plane needs besides, under the names that kubeadm of this version gives them.
///
/// # Errors
/// When one can't be made.
pub fn for_control_plane(parts: &Parts) -> Result<Vec<Image>> {
    let version = parts.kubernetes_version()?;
    let listed = command::run(
        parts.command("kubeadm").args(["config", "images", "list"]).args(["--kubernetes-version", &version]),
    )?;
    let mut images = Vec::new();
    for (short, programs) in [
        ("etcd", &["etcd", "etcdctl"][..]),
        ("kube-apiserver", &["kube-apiserver"]),
        ("kube-controller-manager", &["kube-controller-manager"]),
        ("kube-scheduler", &["kube-scheduler"]),
    ] {
        let name = named(&listed, short).with_context(|| format!("kubeadm lists no image {short}"))?;
        let entries: Vec<_> =
            programs.iter().map(|program| Entry::Program(place(program), parts.program(program))).collect();
        images.push(image(parts, name, &entries, &[])?);
    }
    Ok(images)
}

/// All that a node of the control plane needs.
///
/// # Errors
/// When one can't be made.
pub fn all(parts: &Parts) -> Result<Vec<Image>> {
    let mut images = for_any_node(parts)?;
    images.extend(for_control_plane(parts)?);
    Ok(images)
}

/// Where upstream's images have the program; manifests name it without a path.
fn place(program: &str) -> &'static str {
    match program {
        "etcd" => "usr/local/bin/etcd",
        "etcdctl" => "usr/local/bin/etcdctl",
        "kube-apiserver" => "usr/local/bin/kube-apiserver",
        "kube-controller-manager" => "usr/local/bin/kube-controller-manager",
        _ => "usr/local/bin/kube-scheduler",
    }
}

/// The line of kubeadm's list that ends in `/<short>:<tag>`.
fn named<'a>(listed: &'a str, short: &str) -> Option<&'a str> {
    let is_it = |line: &&str| line.rsplit('/').next().and_then(|last| last.split(':').next()) == Some(short);
    listed.lines().map(str::trim).find(is_it)
}

fn image(parts: &Parts, name: &str, entries: &[Entry], command: &[&str]) -> Result<Image> {
    let folder = parts.cache().join("images");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let key = sha256(recipe(name, entries, command)?.as_bytes())?;
    let short = name.rsplit('/').next().unwrap_or(name).replace(':', "-");
    let archive = folder.join(format!("{short}-{}.tar", &key[..12]));
    if !archive.exists() {
        // Two labs may make the same image at the same time; each writes a file of its own and the last one stays.
        let mine = folder.join(format!(".{short}-{}.tar", std::process::id()));
        archive::write(&mine, name, entries, command)?;
        fs::rename(&mine, &archive)?;
    }
    Ok(Image { name: name.to_owned(), archive })
}

/// All that decides an image's content. The built programs lie in folders named after theirs; of a program of the host
/// the size and the time of its last change have to do.
fn recipe(name: &str, entries: &[Entry], command: &[&str]) -> Result<String> {
    let mut text = format!("{name} {command:?} {entries:?}");
    for entry in entries {
        if let Entry::Program(_, source) = entry {
            let facts = fs::metadata(source).with_context(|| format!("cannot find {}", source.display()))?;
            write!(text, " {} {:?}", facts.len(), facts.modified()?)?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_by_their_last_name() {
        let listed = "registry.k8s.io/kube-apiserver:v1\nregistry.k8s.io/coredns/coredns:v2\nr.io/etcd:3\n";
        assert_eq!(named(listed, "etcd"), Some("r.io/etcd:3"));
        assert_eq!(named(listed, "coredns"), Some("registry.k8s.io/coredns/coredns:v2"));
        assert_eq!(named(listed, "kube-scheduler"), None);
    }
}
