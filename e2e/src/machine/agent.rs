//! The agent on a machine: `keyplane node`, begun as an administrator would begin it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Machine;
use super::node::RESTART_KUBELET;
use crate::binary;
use crate::kubectl::Kubectl;
use crate::node_files::files;
use crate::process::Process;
use crate::wait::{PATIENCE, eventually};

/// Where the binary is on a machine.
const PROGRAM: &str = "/opt/keyplane/agent/keyplane";

/// The agent's command line.
const AGENT: [&str; 4] = [PROGRAM, "node", "--kubelet-restart-command", RESTART_KUBELET];

/// What gives a program a clock of its own. The loader puts the folder of this kind of machine in for `$LIB`.
const OTHER_CLOCK: &str = "LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1";

impl Machine {
    /// Carries the machine's bootstrap Secret (which is there once `spec.nodeAgent` is set) from the namespace `default`
    /// to the machine and starts the agent. Its log is `<machine>-agent.log` in the lab's folder.
    ///
    /// # Errors
    /// When there is no such Secret, or the agent does not start.
    pub fn start_agent(&self, management: &Kubectl, cluster: &str) -> Result<Process> {
        self.put_agent()?;
        // The agent brings containerd's configuration, and a containerd that is started anew then needs the lab's too.
        self.put_containerd_settings()?;
        let name = format!("{cluster}-{}-agent-bootstrap", self.name());
        let secret = eventually("Secret for the agent", PATIENCE, || {
            let secret = management.json(&["get", "secret", &name, "--namespace", "default"])?;
            secret["data"]["token"].as_str().context("it has no token yet")?;
            Ok(secret)
        })?;
        for file in files(&secret)? {
            self.put_file(&file.path, &file.content, file.mode)?;
        }
        self.restart_agent()
    }

    /// Starts the agent again with what is on the machine.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart_agent(&self) -> Result<Process> {
        self.spawn("agent", &AGENT)
    }

    /// The same with a clock that is ahead of this computer's by so much. Only the agent has it: Kubernetes's programs are
    /// static, so that nothing reaches them.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_agent_ahead(&self, time: Duration) -> Result<Process> {
        let ahead = format!("FAKETIME=+{}", time.as_secs());
        // Timers go by the monotonic clock, which no wrong clock moves.
        let environment = ["env", OTHER_CLOCK, &ahead, "FAKETIME_DONT_FAKE_MONOTONIC=1"];
        self.spawn("agent", &[&environment[..], &AGENT].concat())
    }

    /// Where the agent logs to.
    #[must_use]
    pub fn agent_log(&self) -> PathBuf {
        self.site.log(&format!("{}-agent", self.name()))
    }

    fn put_agent(&self) -> Result<()> {
        let place = self.state.join(PROGRAM.trim_start_matches('/'));
        if place.exists() {
            return Ok(());
        }
        let binary = binary::keyplane()?;
        fs::create_dir_all(place.parent().context("a program needs a folder")?)?;
        // A link takes no room, where the lab's folder is on the same disk.
        fs::hard_link(&binary, &place).or_else(|_| fs::copy(&binary, &place).map(drop))?;
        Ok(())
    }
}
