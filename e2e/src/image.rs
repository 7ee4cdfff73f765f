//! The container images that the lab's clusters need, made here from the built programs: no registry is asked.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::archive::{self, Entry, Layer, Start};
use crate::command::{self, FEWER_COLLECTIONS};
use crate::parts::{Parts, sha256};

mod filter;

/// The sandbox image, which containerd must know by name.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10.2";

/// An image for demonstration pods: a shell and the common tools.
pub const TOOLBOX: &str = "registry.keyplane.io/lab/toolbox:1";

/// An image for a Deployment that people look at: an HTTP server on port 80 (both address families), which logs each
/// request and tells its version with `web -v`.
pub const WEB: &str = "registry.keyplane.io/lab/web:1";

/// An image for the load's clients inside a cluster: `kubernetes/witness`.
pub const WITNESS: &str = "registry.keyplane.io/lab/witness:1";

/// The Flannel that `kubernetes/flannel/go.mod` pins.
pub const FLANNEL: &str = "ghcr.io/flannel-io/flannel:v0.28.10";

/// The CNI plugin that this Flannel's own manifest names. What is in it is the last one of the containernetworking
/// project (`kubernetes/flannel-cni/go.mod`), which Flannel's went out from, since no module proxy has Flannel's.
pub const FLANNEL_CNI: &str = "ghcr.io/flannel-io/flannel-cni-plugin:v1.9.1-flannel3";

/// Longer than any test takes.
const KEPT: Duration = Duration::from_hours(24);

/// Where cargo finds this workspace.
const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Debian's `busybox-static`.
const BUSYBOX: &str = "/bin/busybox";

/// What of it the toolbox has, under these names. Debian's `wget` crashes when it is given `-T`; `timeout` does that.
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
    "bin/timeout",
    "bin/wget",
];

/// Busybox's server logs to standard error; with a second `v` it logs each request's address too.
const WEB_SCRIPT: &str = r"#!/bin/sh
case ${1:-} in
  -v)
    busybox --help | head -n 1
    exit
    ;;
esac
hostname >/www/index.html
exec busybox httpd -f -vv -p 80 -h /www
";

/// Keyplane's own image under the name that its chart gives it. The tag is the chart's `appVersion`.
pub const KEYPLANE: &str = concat!("registry.keyplane.io/keyplane:", env!("CARGO_PKG_VERSION"));

/// Nobody, as images without a distribution name him; the chart says the same.
const NOBODY: &str = "65532:65532";

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

/// The images that every node needs: the sandbox, the toolbox and the web server.
///
/// # Errors
/// When one can't be made.
pub fn for_any_node(parts: &Parts) -> Result<Vec<Image>> {
    let pause = vec![Entry::program("pause", parts.pause())];
    let mut toolbox = vec![Entry::program("bin/busybox", BUSYBOX), Entry::Shared("tmp")];
    toolbox.extend(TOOLS.iter().map(|tool| Entry::link(tool, "busybox")));
    let web = vec![Entry::Script("bin/web", WEB_SCRIPT), Entry::link("bin/head", "busybox"), Entry::Shared("www")];
    Ok(vec![
        image(parts, PAUSE, &[pause], &["/pause"])?,
        image(parts, TOOLBOX, &[toolbox.clone()], &["/bin/sh"])?,
        image(parts, WEB, &[toolbox, web], &["/bin/web"])?,
    ])
}

/// The images that a node of the control plane needs besides, under the names that kubeadm of this version gives them.
///
/// # Errors
/// When one can't be made.
pub fn for_control_plane(parts: &Parts) -> Result<Vec<Image>> {
    let listed = listed_by_kubeadm(parts)?;
    let mut images = Vec::new();
    for (short, programs) in [
        ("etcd", &["etcd", "etcdctl", "etcdutl"][..]),
        ("kube-apiserver", &["kube-apiserver"]),
        ("kube-controller-manager", &["kube-controller-manager"]),
        ("kube-scheduler", &["kube-scheduler"]),
    ] {
        let layer = programs.iter().map(|program| local(program, parts.program(program))).collect();
        images.push(image(parts, named(&listed, short)?, &[layer], &[])?);
    }
    Ok(images)
}

/// The images of the add-ons that any node may have to run: kube-proxy and CoreDNS, under the names that kubeadm of
/// this version gives them, and Flannel.
///
/// # Errors
/// When one can't be made.
pub fn for_add_ons(parts: &Parts) -> Result<Vec<Image>> {
    let listed = listed_by_kubeadm(parts)?;
    let filter = filter::layer()?;
    let kube_proxy = vec![local("kube-proxy", parts.program("kube-proxy"))];
    let core_dns_name = named(&listed, "coredns")?;
    let core_dns_tag = core_dns_name.rsplit(':').next().unwrap_or_default();
    let core_dns = vec![Entry::program("coredns", parts.set(&format!("coredns-{core_dns_tag}"))?.join("coredns"))];
    // Flannel's manifests copy files out of both of its images with `cp`.
    let copier = vec![Entry::program("bin/busybox", BUSYBOX), Entry::link("bin/cp", "busybox")];
    let flannel = ["flanneld", "install-conf"];
    let flannel_set = parts.set("flannel")?;
    let flannel = flannel.map(|name| Entry::Program(format!("opt/bin/{name}").into(), flannel_set.join(name))).to_vec();
    let plugin = vec![Entry::program("flannel", parts.set("flannel-cni")?.join("flannel"))];
    Ok(vec![
        image(parts, named(&listed, "kube-proxy")?, &[filter.clone(), kube_proxy], &[])?,
        image(parts, core_dns_name, &[core_dns], &["/coredns"])?,
        image(parts, FLANNEL, &[filter, copier.clone(), flannel], &["/opt/bin/flanneld"])?,
        image(parts, FLANNEL_CNI, &[copier, plugin], &[])?,
    ])
}

/// All that a worker needs.
///
/// # Errors
/// When one can't be made.
pub fn for_worker(parts: &Parts) -> Result<Vec<Image>> {
    let mut images = for_any_node(parts)?;
    images.extend(for_add_ons(parts)?);
    Ok(images)
}

/// All that a node of the control plane needs where no add-ons run.
///
/// # Errors
/// When one can't be made.
pub fn all(parts: &Parts) -> Result<Vec<Image>> {
    let mut images = for_any_node(parts)?;
    images.extend(for_control_plane(parts)?);
    Ok(images)
}

/// All that a node of the control plane of a whole cluster needs.
///
/// # Errors
/// When one can't be made.
pub fn for_whole_cluster(parts: &Parts) -> Result<Vec<Image>> {
    let mut images = all(parts)?;
    images.extend(for_add_ons(parts)?);
    Ok(images)
}

/// The load's clients inside a cluster. Their program is built the first time that somebody asks, in a minute or two.
///
/// # Errors
/// When it can't be made.
pub fn witness(parts: &Parts) -> Result<Image> {
    let program = parts.on_request("witness")?.join("witness");
    image(parts, WITNESS, &[vec![Entry::program("witness", program), Entry::Shared("tmp")]], &["/witness"])
}

/// Which binary Keyplane's own image has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// For users: optimised, which takes minutes.
    Release,
    /// For tests.
    Lab,
}

/// Keyplane's own image: its binary and nothing else, as the `Dockerfile` makes it. What is built is kept in the cache.
///
/// # Errors
/// When it can't be built.
pub fn keyplane(parts: &Parts, profile: Profile) -> Result<Image> {
    remove_unused(&parts.cache().join("images"));
    let layer = vec![Entry::program("keyplane", build_static(parts, profile)?)];
    started_as(parts, KEYPLANE, &[layer], Start { command: &["/keyplane"], user: Some(NOBODY), ..Start::default() })
}

/// Removes archives of Keyplane that nobody has made anew for long: each change of Keyplane makes another one.
fn remove_unused(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with("keyplane-");
        let made = entry.metadata().and_then(|facts| facts.modified());
        if is_ours && made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > KEPT)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The binary `keyplane`, linked with all that it needs. `.cargo/config.toml` says how.
fn build_static(parts: &Parts, profile: Profile) -> Result<PathBuf> {
    let profile = match profile {
        Profile::Release => "release",
        Profile::Lab => "lab",
    };
    let target = parts.cache().join("cargo");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(WORKSPACE).args(["build-static", "--quiet", "--profile", profile]);
    command::run(cargo.env("CARGO_TARGET_DIR", &target)).context("cannot build the image's binary")?;
    let host = command::run(Command::new("rustc").current_dir(WORKSPACE).args(["--print", "host-tuple"]))?;
    Ok(target.join(host.trim()).join(profile).join("keyplane"))
}

/// A program where upstream's images have it; manifests name it without a path.
fn local(name: &str, source: PathBuf) -> Entry {
    Entry::Program(format!("usr/local/bin/{name}").into(), source)
}

fn listed_by_kubeadm(parts: &Parts) -> Result<String> {
    let version = parts.kubernetes_version()?;
    command::run(parts.command("kubeadm").args(["config", "images", "list"]).args(["--kubernetes-version", &version]))
}

/// The line of kubeadm's list that ends in `/<short>:<tag>`.
fn named<'a>(listed: &'a str, short: &str) -> Result<&'a str> {
    let is_it = |line: &&str| line.rsplit('/').next().and_then(|last| last.split(':').next()) == Some(short);
    listed.lines().map(str::trim).find(is_it).with_context(|| format!("kubeadm lists no image {short}"))
}

fn image(parts: &Parts, name: &str, layers: &[Layer], command: &[&str]) -> Result<Image> {
    started_as(parts, name, layers, Start { command, variable: Some(FEWER_COLLECTIONS), ..Start::default() })
}

fn started_as(parts: &Parts, name: &str, layers: &[Layer], start: Start) -> Result<Image> {
    let folder = parts.cache().join("images");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let key = sha256(recipe(name, layers, start)?.as_bytes())?;
    let short = name.rsplit('/').next().unwrap_or(name).replace(':', "-");
    let archive = folder.join(format!("{short}-{}.tar", &key[..12]));
    if archive.exists() {
        return Ok(Image { name: name.to_owned(), archive });
    }
    // Labs that need the same image at the same time wait for the first of them.
    let _lock = parts.lock(&short)?;
    if !archive.exists() {
        let mine = folder.join(format!(".{short}-{}.tar", std::process::id()));
        archive::write(&mine, name, layers, start)?;
        fs::rename(&mine, &archive)?;
    }
    Ok(Image { name: name.to_owned(), archive })
}

/// All that decides an image's content. The built programs lie in folders named after theirs; of a program of the host
/// the size and the time of its last change have to do.
fn recipe(name: &str, layers: &[Layer], start: Start) -> Result<String> {
    let mut text = format!("{name} {:?} {layers:?} {:?}", start.command, start.variable);
    text.extend(start.user);
    for entry in layers.iter().flatten() {
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
    fn old_archives_of_keyplane_go_and_those_of_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["keyplane-0.1.0-a.tar", "keyplane-0.1.0-b.tar", "etcd-3.tar"];
        for name in names {
            fs::write(folder.path().join(name), "").unwrap();
        }
        for old in ["keyplane-0.1.0-a.tar", "etcd-3.tar"] {
            fs::File::open(folder.path().join(old)).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        }
        remove_unused(folder.path());
        assert_eq!(names.map(|name| folder.path().join(name).exists()), [false, true, true]);
    }

    #[test]
    fn images_are_found_by_their_last_name() {
        let listed = "registry.k8s.io/kube-apiserver:v1\nregistry.k8s.io/coredns/coredns:v2\nr.io/etcd:3\n";
        assert_eq!(named(listed, "etcd").unwrap(), "r.io/etcd:3");
        assert_eq!(named(listed, "coredns").unwrap(), "registry.k8s.io/coredns/coredns:v2");
        let error = named(listed, "kube-scheduler").unwrap_err().to_string();
        assert_eq!(error, "kubeadm lists no image kube-scheduler");
    }
}
