//! Keyplane itself, as a process on the host.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::kubectl::Kubectl;
use crate::lab::Lab;
use crate::management::free_port;
use crate::name_server::NameServer;
use crate::process::Process;

/// A running `keyplane run`. It ends with its lab.
#[derive(Debug)]
pub struct Operator {
    process: Process,
    address: String,
}

impl Operator {
    /// Starts Keyplane as the user whose kubeconfig `user` holds. The lease is in the namespace `default`; `identity`
    /// names this process among those that want it, and its log.
    ///
    /// # Errors
    /// When the binary isn't built or does not start.
    pub fn start(lab: &Lab, user: &Kubectl, identity: &str) -> Result<Self> {
        Self::start_with(lab, user, identity, &["--lease-namespace", "default"])
    }

    /// The same with these flags, and with the Lease where they say.
    ///
    /// # Errors
    /// As [`Operator::start`].
    pub fn start_with(lab: &Lab, user: &Kubectl, identity: &str, flags: &[&str]) -> Result<Self> {
        Self::start_as(lab, user, identity, Command::new(binary()?), flags)
    }

    /// Starts the approver alone, for the cluster that `user` is a user of. Its lease and its policy are in `namespace`;
    /// `names` is the name server that it asks.
    ///
    /// # Errors
    /// As [`Operator::start`].
    pub fn start_approver(
        lab: &Lab,
        user: &Kubectl,
        identity: &str,
        namespace: &str,
        names: &NameServer,
    ) -> Result<Self> {
        let flags = ["--mode", "approver", "--lease-namespace", namespace];
        Self::start_as(lab, user, identity, names.command_with(&binary()?), &flags)
    }

    fn start_as(lab: &Lab, user: &Kubectl, identity: &str, mut keyplane: Command, flags: &[&str]) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        keyplane
            .args(["run", "--listen", &address, "--identity", identity])
            .args(flags)
            .env("KUBECONFIG", user.kubeconfig());
        let log = lab.site().log(identity);
        let process = Process::start(&format!("the operator {identity}"), lab.id(), &mut keyplane, log)?;
        Ok(Self { process, address })
    }

    /// Where it serves its health and its metrics.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it answers at a path such as `/readyz`.
    ///
    /// # Errors
    /// When it does not answer, or not with a success.
    pub fn get(&self, path: &str) -> Result<String> {
        let url = format!("http://{}{path}", self.address);
        command::run(Command::new("curl").args(["-sS", "--fail", &url]))
    }

    /// Where it logs to.
    #[must_use]
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// Asks it to end and waits for that.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self) -> Result<()> {
        self.process.stop(Duration::from_secs(30))
    }

    /// Kills it at once, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// For polling code: an error with the end of its log once it has ended.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        self.process.check_running()
    }
}

/// The binary `keyplane`: what `KEYPLANE_BIN` names, else the one that was built beside this one.
///
/// # Errors
/// When there is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("KEYPLANE_BIN") {
        return Ok(path.into());
    }
    let this = env::current_exe().context("cannot tell where this program is")?;
    beside(&this).find(|path| path.is_file()).map_or_else(
        || bail!("no `keyplane` beside {}: cargo build -p keyplane, or set KEYPLANE_BIN", this.display()),
        Ok,
    )
}

/// Cargo puts binaries in the profile's folder and tests in a folder below.
fn beside(this: &Path) -> impl Iterator<Item = PathBuf> {
    this.ancestors().skip(1).take(2).map(|folder| folder.join("keyplane"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_finds_the_binary_of_its_profile() {
        let found: Vec<_> = beside(Path::new("/t/debug/deps/lab-0")).collect();
        assert_eq!(found, [Path::new("/t/debug/deps/keyplane"), Path::new("/t/debug/keyplane")]);
    }
}
