//! The cluster on which everything is rotated: control-plane machines behind a load balancer, workers, add-ons, and
//! somebody who carries what Keyplane writes to each machine.

mod carrier;
mod rotations;
mod scene;

use std::time::Duration;

use anyhow::Result;

pub use carrier::Carrier;
pub use rotations::{Rotation, rotate, rotate_leaves};
pub use scene::{CLUSTER, POOL, Scene, SharedMachine, Size, lock};

use crate::load::{Load, Tally};

/// Brings up the whole cluster, starts the load, and rotates everything under it, one after the other. What the load
/// counted comes back also where a rotation failed, with why.
///
/// # Errors
/// When the cluster or the load does not come up.
pub fn run(size: &Size, settle: Duration, tell: &dyn Fn(&str)) -> Result<(Tally, Result<()>)> {
    let scene = Scene::set_up(size, tell)?;
    let load = Load::start(&scene, "before")?;
    tell("the load runs");
    let outcome = rotate_leaves(&scene, &load, settle, tell);
    Ok((load.stop(), outcome))
}
