//! What happens to real machines: the power goes and comes back, and the network cable is pulled.

use anyhow::{Context, Result, ensure};

use super::Machine;
use crate::{cgroup, network};

impl Machine {
    /// The power goes: every process is gone at once, pods too. Its disk stays.
    ///
    /// # Errors
    /// When something of it goes on.
    pub fn power_off(&mut self) -> Result<()> {
        self.is_on = false;
        self.init.kill();
        // What ran in it died with its first process; only the host's ends of them are left.
        let services = [self.containerd.take(), self.kubelet.take()].into_iter().flatten();
        for mut process in services.chain(std::mem::take(&mut self.units).into_values()) {
            process.await_end();
        }
        network::disconnect(&self.site.id, self.host);
        cgroup::remove(&self.site.id, Some(&self.name))
    }

    /// The power comes back: the machine boots with what is on its disk, and starts containerd and the kubelet, as units
    /// do that are enabled where they are configured.
    ///
    /// # Errors
    /// When it does not boot.
    pub fn power_on(&mut self) -> Result<()> {
        self.init = Self::start_init(&self.site, &self.name)?;
        self.is_on = true;
        self.boot().with_context(|| format!("machine {} does not boot again", self.name))?;
        if self.read_file("/etc/containerd/config.toml").is_ok() {
            self.run_containerd()?;
        }
        if self.read_file("/var/lib/kubelet/config.yaml").is_ok() {
            self.start_kubelet()?;
        }
        Ok(())
    }

    /// The number of its first process may be another program's by now, on the host.
    pub(super) fn check_power(&self) -> Result<()> {
        ensure!(self.is_on, "machine {} is off", self.name);
        Ok(())
    }

    /// Pulls its network cable at the switch. Whoever is connected learns nothing of that.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn unplug(&self) -> Result<()> {
        network::switch(&self.site.id, self.host, false)
    }

    /// Plugs its network cable in again.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn plug_in(&self) -> Result<()> {
        network::switch(&self.site.id, self.host, true)
    }
}
