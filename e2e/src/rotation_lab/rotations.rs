//! Asking for rotations, and following them while the load runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use serde_json::Value;

use super::doors::Doors;
use super::tokens;
use crate::load::Load;
use crate::scene::{CLUSTER, Scene, lock};
use crate::wait::{PATIENCE, eventually, pass};

/// What can be rotated in stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The three authorities, together.
    Authorities,
    /// The key that signs service-account tokens.
    ServiceAccountKey,
    /// The key that what is stored is encrypted with.
    EncryptionKey,
}

impl Rotation {
    /// All of them, each with those that go on at the same time: a part of an hour is the wait for pods' tokens, in which
    /// the authorities are rotated too.
    pub const ALL: [&[Self]; 2] = [&[Self::EncryptionKey], &[Self::ServiceAccountKey, Self::Authorities]];

    /// The annotation that asks for it.
    #[must_use]
    pub const fn annotation(self) -> &'static str {
        match self {
            Self::Authorities => "keyplane.io/rotate-certificate-authorities",
            Self::ServiceAccountKey => "keyplane.io/rotate-service-account-key",
            Self::EncryptionKey => "keyplane.io/rotate-encryption-key",
        }
    }

    /// Whose entry in the status this is.
    fn of_entry(name: &str) -> Self {
        match name {
            "service-account-key" => Self::ServiceAccountKey,
            "encryption-key" => Self::EncryptionKey,
            _ => Self::Authorities,
        }
    }

    /// The names of those that go on at the same time.
    #[must_use]
    pub fn names(together: &[Self]) -> String {
        together.iter().map(|rotation| rotation.name()).collect::<Vec<_>>().join(" and ")
    }

    /// How long its owner waits at the gate for what nobody can see. client-go looks at its CA file every five minutes,
    /// after the kubelet has renewed the projection. It reads a pod's token again each minute
    /// (`transport/token_source.go`); when the pod has a new one can be seen, and is waited for before this.
    const fn gate(self) -> Duration {
        match self {
            Self::Authorities => Duration::from_mins(8),
            Self::ServiceAccountKey => Duration::from_mins(2),
            Self::EncryptionKey => SHORT,
        }
    }

    /// Its name in the table and on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authorities => "authorities",
            Self::ServiceAccountKey => "service-account-key",
            Self::EncryptionKey => "encryption-key",
        }
    }
}

/// The annotation that lets rotations complete which wait for their owner.
const COMPLETE: &str = "keyplane.io/complete-rotation";

/// The phase of a rotation that waits for its owner, and of one that is over.
const PREPARED: &str = "Prepared";
const COMPLETED: &str = "Completed";

/// A stage in which nothing has changed for so long is stuck. The longest wait of a healthy one is for two polls of five
/// minutes (client-go) and a restart on each of three machines.
const STUCK: Duration = Duration::from_mins(20);

/// What a test does whenever a rotation has come to another stage: `Preparing Trust`, `Prepared Gate` and so on.
pub type AtEachStage<'a> = &'a mut dyn FnMut(&mut Scene, &Load, &str) -> Result<()>;

/// Asks for rotations at the same time and follows them to their end: each of their stages is a phase of the load, and
/// where they wait for their owner he lets them complete, once what he waits for at the gate is over.
///
/// # Errors
/// When it does not get on.
pub fn rotate(
    scene: &mut Scene,
    load: &Load,
    together: &[Rotation],
    at_each_stage: AtEachStage<'_>,
    tell: &dyn Fn(&str),
) -> Result<()> {
    let value = Timestamp::now().as_second().to_string();
    let admin = scene.admin().clone();
    let annotate = |annotation: &str| {
        let line = format!("{annotation}={value}");
        admin.run(&["annotate", "clusterspec", CLUSTER, "--overwrite", &line])
    };
    let name = Rotation::names(together);
    load.phase(&format!("{name}: asked for"));
    let doors = if together.contains(&Rotation::Authorities) { Some(Doors::before(scene)?) } else { None };
    for rotation in together {
        annotate(rotation.annotation())?;
    }
    let mut last = String::new();
    let mut since = Instant::now();
    let mut let_go = false;
    loop {
        let status = scene.status()?;
        let entries = entries(&status, &value);
        let stage = stage(&entries);
        if stage != last && !stage.is_empty() {
            // Where they differ it names them itself.
            let phase = if stage.contains('(') { stage.clone() } else { format!("{name}: {stage}") };
            load.phase(&phase);
            tell(&format!("{phase} ({} so far)", load.tally().summary()));
            if let Some(doors) = &doors {
                let answers = doors.check(scene, &entries)?;
                tell(&format!("{stage}: {answers} answers of servers to the old and the new authority are as it says"));
            }
            at_each_stage(scene, load, &stage)?;
            // What went wrong there may have been a phase of its own.
            load.phase(&phase);
            (last, since) = (stage, Instant::now());
        }
        let waiting = wait_for_their_owner(&entries);
        if !entries.is_empty() && entries.iter().all(|entry| entry["phase"] == COMPLETED) {
            // Who was let in by the old one only has to notice that by connecting anew.
            return pass(SHORT);
        }
        if !waiting.is_empty() && !let_go {
            for entry in waiting {
                wait_at_the_gate(scene, entry, tell)?;
            }
            annotate(COMPLETE)?;
            // Its owner's time at the gate is none in which it was stuck.
            (let_go, since) = (true, Instant::now());
        }
        if since.elapsed() > STUCK {
            let waits = entries.iter().map(|entry| format!("{}: {}", entry["name"], entry["waitingFor"]));
            let waits = waits.collect::<Vec<_>>().join("; ");
            bail!("{name} has not got on for {} min: {last}; {waits}", STUCK.as_secs() / 60);
        }
        pass(Duration::from_secs(1))?;
    }
}

fn wait_at_the_gate(scene: &Scene, entry: &Value, tell: &dyn Fn(&str)) -> Result<()> {
    let name = entry["name"].as_str().unwrap_or_default();
    let rotation = Rotation::of_entry(name);
    if rotation == Rotation::ServiceAccountKey {
        tokens::await_new_ones(scene)?;
        tell("the tokens of all pods are of the new key");
        return pass(rotation.gate());
    }
    let since: Timestamp =
        entry["lastTransitionTime"].as_str().unwrap_or_default().parse().context("since when it is at the gate")?;
    let waited = Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default();
    pass(rotation.gate().saturating_sub(waited))
}

/// What the status says of the rotations that this value has asked for.
fn entries<'a>(status: &'a Value, value: &str) -> Vec<&'a Value> {
    let all = status["rotations"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter(|entry| entry["requested"] == value).collect()
}

/// Those that only their owner lets go on, once no other has anything left to do: what goes on by itself may have come to its
/// end by then.
fn wait_for_their_owner<'a>(entries: &[&'a Value]) -> Vec<&'a Value> {
    let (waiting, others): (Vec<&Value>, Vec<_>) =
        entries.iter().copied().partition(|entry| entry["phase"] == PREPARED);
    if others.iter().all(|entry| entry["phase"] == COMPLETED) { waiting } else { vec![] }
}

/// How far they are in words: one stage if they are in the same one.
fn stage(entries: &[&Value]) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let stages: BTreeMap<String, Vec<String>> = entries.iter().fold(BTreeMap::new(), |mut stages, entry| {
        let stage = [word(&entry["phase"]), word(&entry["stage"])].join(" ").trim().to_owned();
        stages.entry(stage).or_default().push(word(&entry["name"]));
        stages
    });
    if stages.len() == 1 {
        return stages.into_keys().collect();
    }
    let parts = stages.iter().map(|(stage, names)| format!("{stage} ({})", names.join(" ")));
    parts.collect::<Vec<_>>().join(", ")
}

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
    scene.wait_until_applied()?;
    tell("every machine has its new certificates");
    load.phase("leaves: reloaded");
    pass(settle)?;
    load.phase("leaves: after");
    pass(SHORT)
}

/// Enough for each client to connect anew in a phase.
pub(super) const SHORT: Duration = Duration::from_secs(15);

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stage_that_all_are_in_is_one_phase() {
        let status = json!({"rotations": [
            {"name": "ca", "requested": "7", "phase": "Preparing", "stage": "Trust"},
            {"name": "etcd-ca", "requested": "7", "phase": "Preparing", "stage": "Trust"},
            {"name": "service-account-key", "requested": "6", "phase": "Completed"},
        ]});
        assert_eq!(stage(&entries(&status, "7")), "Preparing Trust");
        assert_eq!(stage(&entries(&status, "6")), "Completed");
        assert_eq!(stage(&entries(&status, "5")), "");
    }

    #[test]
    fn the_owner_lets_the_others_go_on_where_one_has_completed_by_itself() {
        let encryption = |phase: &str| json!({"name": "encryption-key", "phase": phase});
        let authority = |phase: &str| json!({"name": "ca", "phase": phase});
        let who = |encryption: &Value, authority: &Value| {
            let waiting = wait_for_their_owner(&[encryption, authority]);
            waiting.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(who(&encryption("Completed"), &authority("Prepared")), ["ca"]);
        assert_eq!(who(&encryption("Prepared"), &authority("Prepared")), ["encryption-key", "ca"]);
        assert_eq!(who(&encryption("Completing"), &authority("Prepared")), [""; 0]);
        assert_eq!(who(&encryption("Completed"), &authority("Completed")), [""; 0]);
    }

    #[test]
    fn who_is_in_which_stage_is_told_where_they_differ() {
        let status = json!({"rotations": [
            {"name": "ca", "requested": "7", "phase": "Prepared", "stage": "Gate"},
            {"name": "etcd-ca", "requested": "7", "phase": "Completed"},
        ]});
        assert_eq!(stage(&entries(&status, "7")), "Completed (etcd-ca), Prepared Gate (ca)");
    }
}
