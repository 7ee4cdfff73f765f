//! The cluster on which everything is rotated: control-plane machines behind a load balancer, workers, add-ons, and
//! somebody who carries what Keyplane writes to each machine.

mod carrier;
mod doors;
mod endurance;
pub mod faults;
mod rotations;
mod scene;

use std::time::Duration;

use anyhow::{Result, ensure};

pub use carrier::Carrier;
pub use doors::Doors;
pub use endurance::{Report, endure};
pub use rotations::{AtEachStage, Rotation, pass, rotate, rotate_leaves, wait_until_carried};
pub use scene::{CLUSTER, POOL, Scene, SharedMachine, Size, lock};

use crate::load::{Load, Tally};

/// What [`run`] is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// On which cluster.
    pub size: Size,
    /// What is rotated, in this order.
    pub what: Vec<What>,
    /// How long it takes until components have surely looked at new files.
    pub settle: Duration,
    /// Whether things go wrong meanwhile: Keyplane is killed at each stage, the last control-plane machine is off for a
    /// while in [`OFF_IN`], and the last worker is cut off for a while in [`CUT_OFF_IN`].
    pub faults: bool,
}

/// The stage in which a control-plane machine is off: the first, which it has to hold before anything else begins.
pub const OFF_IN: &str = "Preparing Trust";

/// The stage in which a worker is cut off: that of its kubelet.
pub const CUT_OFF_IN: &str = "Preparing Kubelets";

/// For how long: longer than a kubelet's Lease is good, so that the cluster has noticed too.
const FAULT: Duration = Duration::from_secs(90);

/// Certificates, or what is rotated in stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Every certificate, with a new key.
    Leaves,
    /// An authority or key.
    Staged(Rotation),
}

impl What {
    /// All of it.
    pub const ALL: [Self; 4] = [
        Self::Leaves,
        Self::Staged(Rotation::ServiceAccountKey),
        Self::Staged(Rotation::EncryptionKey),
        Self::Staged(Rotation::Authorities),
    ];

    /// Its name on a command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Leaves => "leaves",
            Self::Staged(rotation) => rotation.name(),
        }
    }
}

/// Brings up the cluster, starts the load, and rotates everything under it, one after the other. What the load counted
/// comes back also where a rotation failed, with why.
///
/// # Errors
/// When the cluster or the load does not come up.
pub fn run(options: &Options, tell: &dyn Fn(&str)) -> Result<(Tally, Result<()>)> {
    let Options { size, what, settle, faults } = options.clone();
    let size =
        if what.contains(&What::Staged(Rotation::EncryptionKey)) { size.with_encryption_at_rest() } else { size };
    let mut scene = Scene::set_up(&size, tell)?;
    let load = Load::start(&scene, "before")?;
    tell("the load runs");
    let mut at_each_stage = |scene: &mut Scene, load: &Load, stage: &str| {
        if faults { something_goes_wrong(scene, load, stage, tell) } else { Ok(()) }
    };
    let outcome = what.into_iter().try_for_each(|what| match what {
        What::Leaves => rotate_leaves(&scene, &load, settle, tell),
        What::Staged(rotation) => rotate(&mut scene, &load, rotation, rotation.gate(), &mut at_each_stage, tell),
    });
    Ok((load.stop(), outcome))
}

fn something_goes_wrong(scene: &mut Scene, load: &Load, stage: &str, tell: &dyn Fn(&str)) -> Result<()> {
    scene.crash_the_operator()?;
    scene.crash_the_agents()?;
    let last = |machines: &[SharedMachine]| machines.last().map(|machine| lock(machine).name().to_owned());
    let (name, waits) = match (stage, last(scene.control_plane()), last(scene.workers())) {
        (OFF_IN, Some(name), _) if scene.control_plane().len() > 2 => {
            load.phase(&format!("{name} is off"));
            let waits = faults::is_off(scene, load, &name, FAULT)?;
            (name, waits)
        }
        (CUT_OFF_IN, _, Some(name)) => {
            load.phase(&format!("{name} is cut off"));
            let waits = faults::is_cut_off(scene, load, &name, FAULT)?;
            (name, waits)
        }
        _ => return Ok(()),
    };
    tell(&format!("{name} is back; the status said: {}", waits.join("; ")));
    ensure!(!waits.is_empty(), "{stage}: the status did not say that it waits for {name}");
    Ok(())
}
