//! Keyplane itself, as a process on the host.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

pub use crate::binary::keyplane as binary;
use crate::command;
use crate::kubectl::Kubectl;
use crate::lab::Lab;
use crate::name_server::NameServer;
use crate::network::free_port;
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
