//! Rotations of everything on a [`Scene`] under a load, and what is checked at each stage.

mod doors;
mod endurance;
pub mod faults;
mod rotations;
mod tokens;

use std::time::Duration;

use anyhow::{Result, bail};

pub use doors::Doors;
pub use endurance::{Report, endure};
pub use faults::Faults;
pub use rotations::{AtEachStage, Rotation, rotate, rotate_leaves};

use crate::load::{Load, Tally};
pub use crate::scene::{CLUSTER, POOL, Scene, SharedMachine, Size, lock};
pub use crate::wait::pass;

/// What [`run`] is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// On which cluster.
    pub size: Size,
    /// What is rotated, in this order.
    pub what: Vec<What>,
    /// How long it takes until components have surely looked at new files.
    pub settle: Duration,
    /// Whether things go wrong meanwhile, as [`Faults`] says.
    pub faults: bool,
}

/// Certificates, or what is rotated in stages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Every certificate, with a new key.
    Leaves,
    /// Authorities or keys, at the same time.
    Staged(Vec<Rotation>),
}

impl What {
    /// All of it, in the order in which the lab tries it.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let staged = Rotation::ALL.iter().map(|together| Self::Staged(together.to_vec()));
        std::iter::once(Self::Leaves).chain(staged).collect()
    }

    /// What these names of a command line mean: `leaves`, or names of [`Rotation`]. All that is rotated in stages is asked
    /// for at the same time.
    ///
    /// # Errors
    /// When there is no such thing.
    pub fn named(names: &[String]) -> Result<Vec<Self>> {
        let staged = Rotation::ALL.concat();
        let known = || std::iter::once("leaves").chain(staged.iter().map(|rotation| rotation.name()));
        if let Some(unknown) = names.iter().find(|name| !known().any(|one| one == *name)) {
            bail!("there is no {unknown} to rotate; there is {}", known().collect::<Vec<_>>().join(", "));
        }
        let is_named = |name: &str| names.iter().any(|one| one == name);
        let together: Vec<_> = staged.iter().copied().filter(|rotation| is_named(rotation.name())).collect();
        let leaves = is_named("leaves").then_some(Self::Leaves);
        Ok(leaves.into_iter().chain((!together.is_empty()).then_some(Self::Staged(together))).collect())
    }
}

/// Brings up the cluster, starts the load, and rotates everything under it, one after the other. What the load counted
/// comes back also where a rotation failed, with why.
///
/// # Errors
/// When the cluster or the load does not come up.
pub fn run(options: &Options, tell: &dyn Fn(&str)) -> Result<(Tally, Result<()>)> {
    let Options { size, what, settle, faults } = options.clone();
    let encrypts = |what: &What| matches!(what, What::Staged(together) if together.contains(&Rotation::EncryptionKey));
    let size = if what.iter().any(encrypts) { size.with_encryption_at_rest() } else { size };
    let mut scene = Scene::set_up(&size, tell)?;
    let load = Load::start(&scene, "before")?;
    tell("the load runs");
    let mut going_wrong = Faults::new(faults);
    let mut at_each_stage = |scene: &mut Scene, load: &Load, stage: &str| going_wrong.strike(scene, load, stage, tell);
    let outcome = what.into_iter().try_for_each(|what| match what {
        What::Leaves => rotate_leaves(&scene, &load, settle, tell),
        What::Staged(together) => rotate(&mut scene, &load, &together, &mut at_each_stage, tell),
    });
    Ok((load.stop(), outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_together_goes_on_at_the_same_time() {
        let named = |names: &[&str]| What::named(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let together = What::Staged(vec![Rotation::ServiceAccountKey, Rotation::Authorities]);
        assert_eq!(named(&["authorities", "service-account-key"]).unwrap(), std::slice::from_ref(&together));
        assert_eq!(named(&["leaves"]).unwrap(), [What::Leaves]);
        assert_eq!(What::all(), [What::Leaves, What::Staged(vec![Rotation::EncryptionKey]), together]);
        assert!(named(&["cas"]).unwrap_err().to_string().contains("leaves, encryption-key, service-account-key"));
    }
}
