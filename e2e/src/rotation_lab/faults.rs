//! What goes wrong while something is rotated. Whoever asks gets the words in which the status says for whom it waits.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::load::Load;
use crate::scene::{Scene, SharedMachine, lock};
use crate::wait::{PATIENCE, eventually, pass};

/// The stage in which a control-plane machine is off: the first, which it has to hold before anything else begins.
const OFF_IN: &str = "Preparing Trust";

/// The stage in which a worker's clock is wrong: one in which time passes anyway.
const CLOCK_WRONG_IN: &str = "Preparing Clients";

/// The stage in which a worker is cut off: that of its kubelet.
const CUT_OFF_IN: &str = "Preparing Kubelets";

/// For how long: longer than a kubelet's Lease is good, so that the cluster has noticed too.
const FAULT: Duration = Duration::from_secs(90);

/// Keyplane and every agent are killed at each stage; beside that the last control-plane machine is off for a while in the
/// first one, the clock of the first worker is wrong for a while in the second, and the last worker is cut off for a while
/// when it is the turn of its kubelet. Each of the three once.
#[derive(Debug)]
pub struct Faults {
    wanted: bool,
    /// The stages in which something beside the kills went wrong already.
    gone_wrong: Vec<&'static str>,
}

impl Faults {
    /// None has happened yet; none will unless they are `wanted`.
    #[must_use]
    pub fn new(wanted: bool) -> Self {
        Self { wanted, gone_wrong: vec![] }
    }

    /// `stage` has begun; it may name several, of rotations that are not in the same one.
    ///
    /// # Errors
    /// When something does not come back, or the status did not say that rotations wait for it.
    pub fn strike(&mut self, scene: &mut Scene, load: &Load, stage: &str, tell: &dyn Fn(&str)) -> Result<()> {
        if !self.wanted {
            return Ok(());
        }
        scene.crash_the_operator()?;
        scene.crash_the_agents()?;
        let name = |machine: Option<&SharedMachine>| machine.map(|machine| lock(machine).name().to_owned());
        let is_time = |of: &'static str| stage.contains(of) && !self.gone_wrong.contains(&of);
        let (name, waits) = if is_time(OFF_IN)
            && scene.control_plane().len() > 2
            && let Some(name) = name(scene.control_plane().last())
        {
            self.gone_wrong.push(OFF_IN);
            load.phase(&format!("{name} is off"));
            (name.clone(), is_off(scene, load, &name, FAULT)?)
        } else if is_time(CLOCK_WRONG_IN)
            && let Some(name) = name(scene.workers().first())
        {
            self.gone_wrong.push(CLOCK_WRONG_IN);
            load.phase(&format!("{name} has a wrong clock"));
            (name.clone(), has_a_wrong_clock(scene, &name)?)
        } else if is_time(CUT_OFF_IN)
            && let Some(name) = name(scene.workers().last())
        {
            self.gone_wrong.push(CUT_OFF_IN);
            load.phase(&format!("{name} is cut off"));
            (name.clone(), is_cut_off(scene, load, &name, FAULT)?)
        } else {
            return Ok(());
        };
        tell(&format!("{name} is back; the status said: {}", waits.join("; ")));
        ensure!(!waits.is_empty(), "{stage}: the status did not say that it waits for {name}");
        Ok(())
    }
}

/// A machine has no power for so long. The load expects nothing of it until its Node is Ready again.
///
/// # Errors
/// When it does not come back.
fn is_off(scene: &mut Scene, load: &Load, name: &str, time: Duration) -> Result<Vec<String>> {
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
fn is_cut_off(scene: &Scene, load: &Load, name: &str, time: Duration) -> Result<Vec<String>> {
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
