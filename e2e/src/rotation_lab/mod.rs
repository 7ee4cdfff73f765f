//! The cluster on which everything is rotated: control-plane machines behind a load balancer, workers, add-ons, and
//! somebody who carries what Keyplane writes to each machine.

mod carrier;
mod endurance;
mod rotations;
mod scene;

use std::time::Duration;

use anyhow::Result;

pub use carrier::Carrier;
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
}

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
    let Options { size, what, settle } = options.clone();
    let size =
        if what.contains(&What::Staged(Rotation::EncryptionKey)) { size.with_encryption_at_rest() } else { size };
    let mut scene = Scene::set_up(&size, tell)?;
    let load = Load::start(&scene, "before")?;
    tell("the load runs");
    let outcome = what.into_iter().try_for_each(|what| match what {
        What::Leaves => rotate_leaves(&scene, &load, settle, tell),
        What::Staged(rotation) => rotate(&mut scene, &load, rotation, &mut |_, _, _| Ok(()), tell),
    });
    Ok((load.stop(), outcome))
}
