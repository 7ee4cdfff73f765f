//! A machine: network, mount, UTS and process namespaces of its own, in which process 1 only stays. Everything in it
//! dies with that process, and its files lie in the lab's folder.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::{self, FEWER_COLLECTIONS};
use crate::process::{MARK, Process};
use crate::site::Site;
use crate::wait::eventually;
use crate::{cgroup, network};

mod agent;
mod node;
mod power;
mod service;
mod store;

pub use node::lab_kubelet_settings;

/// Makes the machine's view of the file system; run once, inside.
const FILE_SYSTEM: &str = include_str!("machine/file_system.sh");

/// The search path inside. The built parts come first, where `file_system.sh` shows them.
const PATH: &str = "/opt/keyplane/parts:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where `file_system.sh` shows the folder of the image archives.
pub(crate) const IMAGES: &str = "/opt/keyplane/images";

/// What a machine may be told beforehand.
#[derive(Clone, Debug, Default)]
pub struct MachineOptions {
    /// The last number of its address; the next free one if not given.
    pub host_number: Option<u8>,
    /// Further addresses with their prefix length, such as `fd00::11/64`.
    pub extra_addresses: Vec<String>,
}

/// A file to be put on a machine.
#[derive(Clone, Copy, Debug)]
pub struct StagedFile<'a> {
    /// Where it belongs.
    pub path: &'a str,
    /// What is in it.
    pub content: &'a [u8],
    /// Its permissions.
    pub mode: u32,
    /// Its owner if that isn't root, as `chown` wants it.
    pub owner: Option<&'a str>,
}

/// A running machine. It ends with its lab, or by [`Machine::destroy`].
#[derive(Debug)]
pub struct Machine {
    site: Arc<Site>,
    name: String,
    host: u8,
    extra_addresses: Vec<String>,
    init: Process,
    is_on: bool,
    containerd: Option<Process>,
    kubelet: Option<Process>,
    units: BTreeMap<String, Process>,
    /// Where its files are on the host.
    state: PathBuf,
    has_images: bool,
}

impl Machine {
    pub(crate) fn start(site: Arc<Site>, name: &str, host: u8, extra_addresses: &[String]) -> Result<Self> {
        let state = site.folder.join("machines").join(name);
        if state.exists() {
            bail!("the machine {name} exists already");
        }
        fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
        let init = Self::start_init(&site, name)?;
        let mut machine = Self {
            site,
            name: name.to_owned(),
            host,
            extra_addresses: extra_addresses.to_vec(),
            init,
            is_on: true,
            containerd: None,
            kubelet: None,
            units: BTreeMap::new(),
            state,
            has_images: false,
        };
        machine.boot()?;
        Ok(machine)
    }

    /// Its first process, in namespaces of its own.
    fn start_init(site: &Site, name: &str) -> Result<Process> {
        cgroup::make(&site.id, name)?;
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--uts", "--net", "--pid", "--fork", "--mount-proc"]).arg(site.parts.pause());
        unshare.env_clear().env("PATH", PATH).env("KEYPLANE_MACHINE", name);
        let log = site.log(&format!("{name}-init"));
        Process::start_inside(&format!("process 1 of {name}"), &site.id, &mut unshare, log)
    }

    fn boot(&mut self) -> Result<()> {
        self.wait_for_init()?;
        self.make_file_system()?;
        self.make_network()
    }

    /// Until process 1 is the program that stays, `unshare` is still arranging its namespaces.
    fn wait_for_init(&mut self) -> Result<()> {
        let comm = PathBuf::from(format!("/proc/{}/comm", self.init.pid()));
        eventually("namespaces", Duration::from_secs(10), || {
            self.init.check_running()?;
            match fs::read_to_string(&comm)?.trim() {
                "pause" => Ok(()),
                other => bail!("process 1 is still {other}"),
            }
        })
    }

    fn make_file_system(&self) -> Result<()> {
        let images = self.site.parts.cache().join("images");
        fs::create_dir_all(&images)?;
        let mut shell = self.enter(&["sh", "-c", FILE_SYSTEM])?;
        shell.env("STATE", &self.state).env("PARTS", self.site.parts.folder()).env("IMAGES", images);
        let sets: Vec<_> =
            self.site.parts.sets().map(|(name, folder)| format!("{name}={}", folder.display())).collect();
        shell.env("SETS", sets.join("\n"));
        shell.env("NAME", &self.name).env("ADDRESS", self.address());
        command::run(&mut shell).with_context(|| format!("cannot make the file system of {}", self.name))?;
        Ok(())
    }

    fn make_network(&self) -> Result<()> {
        network::connect(&self.site.id, self.host, self.init.pid())?;
        let mut lines = vec!["link set lo up".to_owned(), format!("addr add {}/24 dev eth0", self.address())];
        lines.extend(self.extra_addresses.iter().map(|address| format!("addr add {address} dev eth0")));
        lines.push("link set eth0 up".to_owned());
        lines.push(format!("route add default via {}", self.site.subnet.address(1)));
        for line in lines {
            let words: Vec<_> = ["ip"].into_iter().chain(line.split_whitespace()).collect();
            self.run(&words)?;
        }
        Ok(())
    }

    /// Its name, which is its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on the bridge.
    #[must_use]
    pub fn address(&self) -> String {
        self.site.subnet.address(self.host)
    }

    /// Its process 1, seen from the host: `nsenter -t PID -a` is a shell on the machine.
    #[must_use]
    pub fn init_pid(&self) -> u32 {
        self.init.pid()
    }

    /// Runs a command on the machine to its end and returns its standard output.
    ///
    /// # Errors
    /// When it fails; the message holds its words.
    pub fn run<S: AsRef<str>>(&self, arguments: &[S]) -> Result<String> {
        command::run(&mut self.enter(arguments)?).with_context(|| format!("on machine {}", self.name))
    }

    /// Starts a long-running command on the machine; it logs to `<machine>-<name>.log` in the lab's folder.
    ///
    /// # Errors
    /// When it does not start.
    pub fn spawn<S: AsRef<str>>(&self, name: &str, arguments: &[S]) -> Result<Process> {
        let full = format!("{}-{name}", self.name);
        Process::start_inside(&full, &self.site.id, &mut self.enter(arguments)?, self.site.log(&full))
    }

    /// A command that runs inside the machine's namespaces, with nothing of this process's environment.
    fn enter<S: AsRef<str>>(&self, arguments: &[S]) -> Result<Command> {
        if arguments.is_empty() {
            bail!("an empty command line for machine {}", self.name);
        }
        self.check_power()?;
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &self.init.pid().to_string(), "--mount", "--uts", "--net", "--pid", "--"]);
        nsenter.args(arguments.iter().map(AsRef::as_ref));
        let (variable, value) = FEWER_COLLECTIONS;
        nsenter.env_clear().env("PATH", PATH).env("HOME", "/var/home").env(MARK, &self.site.id).env(variable, value);
        Ok(nsenter)
    }

    /// Writes a file on the machine, atomically, making the folders it needs.
    ///
    /// # Errors
    /// When the path is not absolute or the file system refuses.
    pub fn put_file(&self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let place = self.seen_from_host(path)?;
        let folder = place.parent().context("a file needs a folder")?;
        let what = || format!("cannot write {path} on machine {}", self.name);
        fs::create_dir_all(folder).with_context(what)?;
        let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // The kubelet ignores files with a dot before their name, among its manifests too.
        let partial = folder.join(format!(".{name}.partial"));
        fs::write(&partial, content).with_context(what)?;
        fs::set_permissions(&partial, Permissions::from_mode(mode)).with_context(what)?;
        fs::rename(&partial, &place).with_context(what)
    }

    /// Writes files of which some belong together, such as a certificate and its key: all are beside their places before
    /// the first takes its own, so that the time in which only some of them are new is as short as renaming them.
    ///
    /// # Errors
    /// When a path is not absolute or the file system refuses.
    pub fn put_files(&self, files: &[StagedFile<'_>]) -> Result<()> {
        let mut staged = Vec::new();
        for StagedFile { path, content, mode, owner } in files {
            let (folder, name) = path.rsplit_once('/').with_context(|| format!("{path} is not absolute"))?;
            let beside = format!("{folder}/.{name}.staged");
            self.put_file(&beside, content, *mode)?;
            if let Some(owner) = owner {
                self.run(&["chown", owner, &beside])?;
            }
            staged.push((self.seen_from_host(&beside)?, self.seen_from_host(path)?));
        }
        for (beside, place) in staged {
            let what = || format!("cannot write {} on machine {}", place.display(), self.name);
            fs::rename(&beside, &place).with_context(what)?;
        }
        Ok(())
    }

    /// The content of a file on the machine.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        let place = self.seen_from_host(path)?;
        fs::read(place).with_context(|| format!("cannot read {path} on machine {}", self.name))
    }

    /// The kernel shows each process's root, with that process's mounts.
    fn seen_from_host(&self, path: &str) -> Result<PathBuf> {
        self.check_power()?;
        let Some(relative) = path.strip_prefix('/') else { bail!("{path} is not absolute") };
        Ok(PathBuf::from(format!("/proc/{}/root", self.init.pid())).join(relative))
    }

    /// Pulls the plug: every process of the machine is gone at once, pods too, and then its cable, its cgroups and its
    /// files.
    ///
    /// # Errors
    /// When something of it stays.
    pub fn destroy(mut self) -> Result<()> {
        self.init.kill();
        network::disconnect(&self.site.id, self.host);
        cgroup::remove(&self.site.id, Some(&self.name))?;
        fs::remove_dir_all(&self.state).with_context(|| format!("cannot remove {}", self.state.display()))
    }
}
