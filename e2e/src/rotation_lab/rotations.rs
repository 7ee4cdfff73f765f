//! Asking for rotations, and following them while the load runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use jiff::Timestamp;

use super::scene::{CLUSTER, Scene, lock};
use crate::installation::PATIENCE;
use crate::interrupt;
use crate::load::Load;
use crate::wait::eventually;

/// Asks for every certificate with a new key, and waits until each machine has what is its own and for `settle` after
/// that: the API server looks at its own pair every minute, and at its client pairs every five (client-go).
///
/// # Errors
/// When they are not renewed or carried in time.
pub fn rotate_leaves(scene: &Scene, load: &Load, settle: Duration, tell: &dyn Fn(&str)) -> Result<()> {
    let before = secrets(scene)?;
    load.phase("leaves: asked for");
    let value = format!("keyplane.io/rotate-certificates={}", Timestamp::now().as_second());
    scene.admin().run(&["annotate", "clusterspec", CLUSTER, "--overwrite", &value])?;
    eventually("new certificates for all machines", PATIENCE, || {
        for (name, checksum) in secrets(scene)? {
            ensure!(before.get(&name) != Some(&checksum), "{name} has not changed");
        }
        Ok(())
    })?;
    tell("every machine's Secret has changed");
    load.phase("leaves: carried");
    wait_until_carried(scene)?;
    tell("every machine has its new certificates");
    load.phase("leaves: reloaded");
    pass(settle)?;
    load.phase("leaves: after");
    pass(SHORT)
}

/// Enough for each client to connect anew in a phase.
pub(super) const SHORT: Duration = Duration::from_secs(15);

/// Waits until what Keyplane has written is what the machines have, as their carriers say.
///
/// # Errors
/// When a carrier does not get there.
pub fn wait_until_carried(scene: &Scene) -> Result<()> {
    eventually("machines that have all that is written", PATIENCE, || {
        for kind in ["secrets", "configmaps"] {
            let label = format!("keyplane.io/cluster={CLUSTER},keyplane.io/node");
            let list = scene.admin().json(&["get", kind, "-l", &label])?;
            for object in list["items"].as_array().into_iter().flatten() {
                let annotations = &object["metadata"]["annotations"];
                let (written, carried) =
                    (&annotations["keyplane.io/content-checksum"], &annotations["keyplane.io/carried"]);
                ensure!(written == carried, "{} is not carried", object["metadata"]["name"]);
            }
        }
        Ok(())
    })
}

/// Lets time pass, unless somebody presses Ctrl-C.
///
/// # Errors
/// When somebody did.
pub fn pass(time: Duration) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// The checksum of each control-plane machine's Secret.
fn secrets(scene: &Scene) -> Result<BTreeMap<String, String>> {
    scene
        .control_plane()
        .iter()
        .map(|machine| {
            let name = format!("{CLUSTER}-{}-pki", lock(machine).name());
            let path = "jsonpath={.metadata.annotations.keyplane\\.io/content-checksum}";
            let checksum = scene.admin().run(&["get", "secret", &name, "-o", path])?;
            Ok((name, checksum))
        })
        .collect()
}
