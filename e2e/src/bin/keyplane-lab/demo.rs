//! The demo: from nothing to a cluster that Keyplane holds the keys of, step by step.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use keyplane_e2e::boot::boot;
use keyplane_e2e::machine::MachineOptions;
use keyplane_e2e::subnet::Subnet;
use keyplane_e2e::sweep::{self, Which};
use keyplane_e2e::{Installation, Lab, Parts, image, interrupt, operator, preflight};

use crate::screen::{Progress, say};
use crate::tour::{self, Demo};

/// The lab's id. There is one demo at a time on a host.
const LAB: &str = "demo";

/// The user's side of the demo, as the documentation shows it.
pub(crate) const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/cluster.yaml");

/// The `ClusterSpec` in the example, its machine, and that machine's number in the demo's network.
const CLUSTER: &str = "demo";
const MACHINE: &str = "cp1";
const MACHINE_NUMBER: u8 = 11;

/// The pods' addresses on that machine, within the example's pod network.
const POD_CIDR: &str = "10.244.0.0/24";

/// Brings it up, shows it, and stays until Ctrl-C, or returns at once and leaves it running.
pub(crate) fn run(file: &Path, detach: bool) -> Result<()> {
    interrupt::listen()?;
    let mut demo = bring_up(file, &Progress::begin()).inspect_err(|_| {
        if interrupt::requested() {
            say("interrupted: everything has been removed");
        } else if std::env::var_os("KEYPLANE_LAB_KEEP_LOGS").is_none() {
            say("the demo failed; what it had started has been removed (KEYPLANE_LAB_KEEP_LOGS=1 keeps the logs)");
        }
    })?;
    tour::show(&demo);
    tour::how_to_go_on(&demo, detach);
    if detach {
        return demo.lab.leave_running();
    }
    let mut told = false;
    while !interrupt::requested() {
        // Someone may want to see what happens without it, so the rest stays.
        if !told && !demo.installation.operator.is_running() {
            say(&format!(
                "Keyplane has ended; its log is {}. The clusters stay up.",
                demo.installation.operator.log().display()
            ));
            told = true;
        }
        sleep(Duration::from_millis(300));
    }
    demo.lab.end()?;
    say("the demo has been removed");
    Ok(())
}

/// Ends the demo, whether somebody still watches it or not.
pub(crate) fn down() -> Result<()> {
    let records: Vec<_> = sweep::records().into_iter().filter(|record| record.id == LAB).collect();
    sweep::dismiss_owners(&records);
    let _lock = sweep::lock()?;
    sweep::sweep(Which::Dead)?;
    sweep::take_down(LAB)?;
    say(if records.is_empty() { "no demo was up" } else { "the demo has been removed" });
    Ok(())
}

fn bring_up(file: &Path, progress: &Progress) -> Result<Demo> {
    progress.step("looking at this host, building what is missing (minutes the first time)");
    preflight::check()?;
    operator::binary()?;
    let file = file.canonicalize().with_context(|| format!("cannot find {}", file.display()))?;
    let parts = Parts::build()?;
    let images = image::for_whole_cluster(&parts)?;
    interrupt::check()?;
    let lab = Lab::start_as(LAB, Subnet::DEMO, parts)?;

    progress.step("starting a management cluster (etcd, kube-apiserver, kube-controller-manager), and Keyplane in it");
    let mut installation = Installation::start(&lab)?;

    progress.step(&format!("kubectl apply -f {}", file.display()));
    installation.management.kubectl(&["apply", "-f", &file.to_string_lossy()])?;
    installation.wait_for(CLUSTER, "Rendered")?;

    progress.step("everything is rendered; starting the machine cp1 and applying its files");
    let options = MachineOptions { host_number: Some(MACHINE_NUMBER), ..MachineOptions::default() };
    let mut machine = lab.machine_with(MACHINE, &options)?;
    let target = boot(&lab, &mut installation, CLUSTER, &mut machine, &images, POD_CIDR, &|what| progress.step(what))?;
    Ok(Demo { lab, installation, machine, target })
}
