//! Clients of etcd with a node's own pair, which is read again for each connection, as etcdctl does.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Subject;
use crate::etcdctl::etcdctl_to;
use crate::scene::lock;

/// Its name in the table.
pub(super) const CLIENT: &str = "etcd clients";

/// The pause after a put and a get.
const PAUSE: Duration = Duration::from_secs(2);

/// Outside `/registry`, which is the API servers'.
const KEY: &str = "/keyplane-load";

/// Puts and gets until it is told to stop, on one machine after the other. Each knows all members, as etcd's clients do:
/// the one that is being restarted is passed over by the client's own balancer.
pub(super) fn run(subject: &Subject) {
    let addresses = subject.control_plane.iter().map(|machine| format!("https://{}:2379", lock(machine).address()));
    let endpoints = addresses.collect::<Vec<_>>().join(",");
    for (number, machine) in subject.control_plane.iter().cycle().enumerate() {
        if subject.is_over() {
            return;
        }
        if subject.spared.has(lock(machine).name()) {
            sleep(PAUSE);
            continue;
        }
        let exchange = || -> Result<()> {
            let machine = lock(machine);
            let value = number.to_string();
            etcdctl_to(&machine, &endpoints, &["put", KEY, &value])?;
            let found = etcdctl_to(&machine, &endpoints, &["get", KEY, "--print-value-only"])?;
            ensure!(found.trim() == value, "{KEY} is {found} and not {value}");
            Ok(())
        };
        match exchange() {
            Ok(()) => subject.tally.answered(CLIENT),
            // It may have been switched off meanwhile.
            Err(_) if subject.spared.has(lock(machine).name()) => {}
            Err(error) => subject.tally.failed(CLIENT, &format!("{error:#}")),
        }
        sleep(PAUSE);
    }
}
