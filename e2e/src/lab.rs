//! One owner of everything that a test or a demo starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, bail};

use crate::load_balancer::{Backend, LoadBalancer};
use crate::machine::{Machine, MachineOptions};
use crate::parts::Parts;
use crate::site::Site;
use crate::subnet::Subnet;
use crate::sweep::{self, Owner, Record, Which};
use crate::{limits, network, preflight};

/// The host number of the first machine that does not ask for another.
const FIRST_MACHINE: u8 = 11;

/// The host number of the first load balancer: known before any is there, and lower than each machine's.
const FIRST_LOAD_BALANCER: u8 = 5;

/// A folder, a bridge with a network of its own, and all that runs there. Dropping it removes everything; where the
/// owner was killed, the next lab or `keyplane-lab down` does.
#[derive(Debug)]
pub struct Lab {
    site: Arc<Site>,
    record: Record,
    next_host: AtomicU8,
    next_load_balancer: AtomicU8,
    left_running: bool,
}

impl Lab {
    /// A lab with a fresh name and network: the one line with which a test begins.
    ///
    /// # Errors
    /// When the host lacks something, a part does not build, or the bridge can't be made.
    pub fn start() -> Result<Self> {
        preflight::check()?;
        let parts = Parts::build()?;
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").context("cannot read a random id")?;
        Self::claim(&uuid[..5], None, parts)
    }

    /// The lab with this id (at most five characters, for the interfaces' names) and this network.
    ///
    /// # Errors
    /// When it exists already, or as [`Lab::start`].
    pub fn start_as(id: &str, subnet: Subnet, parts: Parts) -> Result<Self> {
        preflight::check()?;
        Self::claim(id, Some(subnet), parts)
    }

    fn claim(id: &str, subnet: Option<Subnet>, parts: Parts) -> Result<Self> {
        if id.len() > 5 {
            bail!("the lab id {id} is longer than five characters");
        }
        let lock = sweep::lock()?;
        sweep::sweep(Which::Dead)?;
        let held: Vec<_> = sweep::records();
        if held.iter().any(|record| record.id == id) {
            bail!("the lab {id} is up already");
        }
        let subnets: Vec<_> = held.iter().map(|record| record.subnet).collect();
        let subnet = match subnet {
            Some(subnet) => subnet,
            None => Subnet::first_free(&subnets, &network::ip("-o addr")?)?,
        };
        let logs = std::env::var_os(sweep::LOGS).map(PathBuf::from);
        let record = Record { id: id.to_owned(), subnet, owner: Some(Owner::this()?), logs };
        let folder = record.folder();
        // Logs that someone kept from an earlier lab of this name.
        let _ = fs::remove_dir_all(&folder);
        record.save()?;
        drop(lock);
        let site = Site { id: id.to_owned(), folder, subnet, parts };
        // From here on a failure drops the lab, which removes what there is of it.
        let lab = Self {
            site: Arc::new(site),
            record,
            next_host: AtomicU8::new(FIRST_MACHINE),
            next_load_balancer: AtomicU8::new(FIRST_LOAD_BALANCER),
            left_running: false,
        };
        fs::create_dir_all(lab.folder().join("logs"))?;
        limits::raise()?;
        network::make_bridge(id, subnet)?;
        Ok(lab)
    }

    /// The lab's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.site.id
    }

    /// The lab's folder; `logs` in it has a file for each process.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.site.folder
    }

    /// What the parts of this lab share.
    #[must_use]
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// The programs.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        &self.site.parts
    }

    /// The address under which machines reach this host.
    #[must_use]
    pub fn host_address(&self) -> String {
        self.site.host_address()
    }

    /// Starts a machine with the next address.
    ///
    /// # Errors
    /// When its namespaces or its cable can't be made.
    pub fn machine(&self, name: &str) -> Result<Machine> {
        self.machine_with(name, &MachineOptions::default())
    }

    /// Starts a machine with an address that is known beforehand, or with several.
    ///
    /// # Errors
    /// As [`Lab::machine`].
    pub fn machine_with(&self, name: &str, options: &MachineOptions) -> Result<Machine> {
        let host = options.host_number.unwrap_or_else(|| self.next_host.fetch_add(1, Ordering::Relaxed));
        Machine::start(Arc::clone(&self.site), name, host, &options.extra_addresses)
    }

    /// Starts a load balancer before the API servers of these machines, at the address `.5` of the lab's network (the
    /// second one at `.6`). Machines that come later are told with [`LoadBalancer::set_backends`].
    ///
    /// # Errors
    /// When its namespaces can't be made or HAProxy does not start.
    pub fn load_balancer(&self, name: &str, backends: &[Backend]) -> Result<LoadBalancer> {
        let host = self.next_load_balancer.fetch_add(1, Ordering::Relaxed);
        let place = Machine::start(Arc::clone(&self.site), name, host, &[])?;
        LoadBalancer::start_on(place, backends)
    }

    /// Lets the lab outlive this process; `keyplane-lab down --all` or the demo's own command ends it.
    ///
    /// # Errors
    /// When that can't be written down; the lab then ends with this process.
    pub fn leave_running(mut self) -> Result<()> {
        self.record.owner = None;
        self.record.save()?;
        self.left_running = true;
        Ok(())
    }

    /// Removes everything now, and says so if that fails; dropping can only complain on standard error.
    ///
    /// # Errors
    /// When something stays.
    pub fn end(mut self) -> Result<()> {
        self.left_running = true;
        self.remove()
    }

    fn remove(&self) -> Result<()> {
        let _lock = sweep::lock()?;
        sweep::take_down(&self.site.id)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.left_running {
            return;
        }
        if let Err(error) = self.remove() {
            eprintln!("{error:#}");
        }
    }
}
