//! What goes wrong while something is rotated. Whoever asks gets the words in which the status says for whom it waits.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::rotations::pass;
use super::scene::{Scene, lock};
use crate::installation::PATIENCE;
use crate::load::Load;
use crate::wait::eventually;

/// A machine has no power for so long. The load expects nothing of it until its Node is Ready again.
///
/// # Errors
/// When it does not come back.
pub fn is_off(scene: &mut Scene, load: &Load, name: &str, time: Duration) -> Result<Vec<String>> {
    load.spare(name);
    lock(scene.machine(name)?).power_off()?;
    pass(time)?;
    let waits = waits_for(scene, name)?;
    lock(scene.machine(name)?).power_on()?;
    scene.restart_agent(name)?;
    comes_back(scene, load, name)?;
    Ok(waits)
}

/// A machine hears nobody for so long, and goes on by itself.
///
/// # Errors
/// When it does not come back.
pub fn is_cut_off(scene: &Scene, load: &Load, name: &str, time: Duration) -> Result<Vec<String>> {
    load.spare(name);
    lock(scene.machine(name)?).unplug()?;
    pass(time)?;
    let waits = waits_for(scene, name)?;
    lock(scene.machine(name)?).plug_in()?;
    comes_back(scene, load, name)?;
    Ok(waits)
}

/// A machine's agent has a clock that is an hour ahead, until the status says that rotations wait for that.
///
/// # Errors
/// When it does not say so.
pub fn has_a_wrong_clock(scene: &mut Scene, name: &str) -> Result<Vec<String>> {
    scene.start_agent_ahead(name)?;
    let waits = eventually(&format!("rotation that waits for the clock of {name}"), PATIENCE, || {
        let mut waits = waits_for(scene, name)?;
        waits.retain(|words| words.contains("clock"));
        ensure!(!waits.is_empty(), "nothing waits for it");
        Ok(waits)
    })?;
    scene.restart_agent(name)?;
    Ok(waits)
}

/// What rotations wait for on this machine, each only once: several may wait for the same.
///
/// # Errors
/// When the status can't be read.
pub fn waits_for(scene: &Scene, name: &str) -> Result<Vec<String>> {
    let status = scene.status()?;
    let rotations = status["rotations"].as_array().into_iter().flatten();
    let waits = rotations.flat_map(|rotation| rotation["waitingFor"].as_array().into_iter().flatten());
    let waits: BTreeSet<_> = waits.filter_map(|words| words.as_str()).filter(|words| words.contains(name)).collect();
    Ok(waits.into_iter().map(str::to_owned).collect())
}

fn comes_back(scene: &Scene, load: &Load, name: &str) -> Result<()> {
    eventually(&format!("{name} that is Ready again"), PATIENCE, || {
        scene.target().check_condition(&["node", name], "Ready")?;
        // Its condition may be that of before.
        let lease = scene.target().json(&["get", "lease", "-n", "kube-node-lease", name])?;
        let renewed: jiff::Timestamp = lease["spec"]["renewTime"].as_str().unwrap_or_default().parse()?;
        ensure!(jiff::Timestamp::now().duration_since(renewed).as_secs() < 15, "its Lease was renewed at {renewed}");
        Ok(())
    })?;
    load.expect_again(name);
    Ok(())
}
