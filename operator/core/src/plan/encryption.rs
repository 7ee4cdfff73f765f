//! The keys with which a target's objects are encrypted: their Secret, and the file that every API server has.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret as SecretObject;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_crds::{ClusterCondition, RotationStatus, condition_of, keys, parse_duration, reasons};
use kube::ResourceExt;

use super::given::GivenFile;
use super::node::PRIVATE;
use super::status::Outcome;
use super::{Content, Draft, Plan, Step, rotation_status};
use crate::blocker::Blocker;
use crate::encryption::{self, Delays, Stage, State, Surroundings, Wanted};
use crate::manifests::encryption_configuration;
use crate::model::{Cluster, EncryptionUse};
use crate::names;
use crate::objects;
use crate::observed::Observed;
use crate::observed::Slot;
use crate::pki::SecretText;

/// The key of the file in a node's Secret.
const CONFIGURATION: &str = "encryption-config.yaml";
/// The key of what is remembered in the Secret of the keys.
const STATE: &str = "state.json";
/// Before the name of a key that only backups need.
const RETIRED: &str = "retired-";
/// What the condition says while there never was a key of ours. With every other reason it is a trace of keys.
const WITHOUT_KEYS: [&str; 3] = [NOT_RENDERED, NOT_ENCRYPTED, reasons::FOREIGN_OBJECT];
const NOT_RENDERED: &str = reasons::NOT_RENDERED;
const NOT_ENCRYPTED: &str = reasons::NOT_ENCRYPTED;
/// An API server's `--request-timeout`.
const REQUEST_TIMEOUT: SignedDuration = SignedDuration::from_mins(1);
/// An API server's `--etcd-compaction-interval`.
const COMPACTION_INTERVAL: SignedDuration = SignedDuration::from_mins(5);

/// What is remembered of a cluster's keys, and the keys.
pub(super) struct Kept {
    state: State,
    /// By name, as base64; retired ones too, as far as nobody has taken them away.
    material: BTreeMap<String, SecretText>,
}

impl Kept {
    fn configuration(&self) -> Option<String> {
        encryption::configuration(&self.state, |name| self.material.get(name).map(|secret| secret.0.clone()))
    }
}

/// Reads the Secret; nothing where there is none and none is missed.
fn load(cluster: &Cluster, observed: &Observed) -> Result<Option<Kept>, Blocker> {
    let name = names::encryption_secret(&cluster.name);
    let trace = trace(cluster, observed);
    let secret = match observed.secret(&cluster.name, &name) {
        Slot::Ours(secret) => secret,
        Slot::Foreign(blocker) if trace.is_some() || cluster.encryption.is_some() => return Err(blocker),
        Slot::Foreign(_) => return Ok(None),
        Slot::Free => return trace.map_or(Ok(None), |trace| Err(missing(&name, &trace))),
    };
    let kept = read(secret).map_err(|problem| Blocker {
        reason: reasons::ENCRYPTION_KEYS_UNREADABLE,
        message: format!("Secret {name} can't be used: {problem}; restore it from a backup with its labels"),
    })?;
    match outdated(cluster, observed, &kept) {
        None => Ok(Some(kept)),
        Some((node, key)) => Err(Blocker {
            reason: reasons::ENCRYPTION_KEYS_OUTDATED,
            message: format!(
                "Secret {name} is older than what is on the machines: it lacks {key}, with which objects may be encrypted \
                 (Secret {node} has it, under {CONFIGURATION}); restore the newest backup of it"
            ),
        }),
    }
}

fn read(secret: &SecretObject) -> Result<Kept, String> {
    let text = objects::text(secret, STATE).ok_or_else(|| format!("it lacks {STATE}"))?;
    let state: State = serde_json::from_str(text).map_err(|error| format!("{STATE}: {error}"))?;
    let mut material = BTreeMap::new();
    for key in &state.keys {
        let stored = objects::text(secret, &entry(&key.name, key.retired.is_some()));
        match stored {
            Some(stored) => _ = material.insert(key.name.clone(), SecretText(stored.to_owned())),
            None if key.retired.is_some() => {}
            None => return Err(format!("it lacks {}", key.name)),
        }
    }
    Ok(Kept { state, material })
}

fn entry(key: &str, is_retired: bool) -> String {
    format!("{}{key}", if is_retired { RETIRED } else { "" })
}

/// The files that were written for the nodes, with the names of their Secrets.
fn written<'a>(cluster: &'a Cluster, observed: &'a Observed) -> impl Iterator<Item = (String, &'a str)> {
    cluster.nodes.iter().filter_map(|node| {
        let name = names::node_secret(&cluster.name, &node.name);
        let Slot::Ours(secret) = observed.secret(&cluster.name, &name) else { return None };
        Some((name, objects::text(secret, CONFIGURATION)?))
    })
}

/// Where there are signs that there were keys.
fn trace(cluster: &Cluster, observed: &Observed) -> Option<String> {
    let copy = written(cluster, observed).find(|(_, text)| !encryption::keys_in(text).is_empty());
    if let Some((node, _)) = copy {
        return Some(format!("Secret {node} still has keys, under {CONFIGURATION}"));
    }
    let condition = condition_of(&observed.status.conditions, ClusterCondition::EncryptedAtRest.name());
    condition
        .filter(|condition| !WITHOUT_KEYS.contains(&condition.reason.as_str()))
        .map(|_| format!("a control-plane machine still has keys, in {}", encryption_configuration(cluster)))
}

fn missing(name: &str, trace: &str) -> Blocker {
    Blocker {
        reason: reasons::ENCRYPTION_KEYS_MISSING,
        message: format!(
            "Secret {name} is gone, and what is stored in etcd can be read with its keys only, so no new ones are made: \
             restore it from a backup with its labels ({trace}); if the cluster is not in use, delete this ClusterSpec with \
             its Secrets and make it again"
        ),
    }
}

/// A key that a node's file has and the Secret does not: the node's Secret, and the key's name.
fn outdated(cluster: &Cluster, observed: &Observed, kept: &Kept) -> Option<(String, String)> {
    written(cluster, observed).find_map(|(node, text)| {
        let keys = encryption::keys_in(text);
        let lacking = keys.into_iter().find(|(name, secret)| {
            // One that was retired by hand is its owner's affair.
            let is_retired = kept.state.keys.iter().any(|key| key.name == *name && key.retired.is_some());
            !is_retired && kept.material.get(name).is_none_or(|known| known.0 != *secret)
        });
        lacking.map(|(name, _)| (node, name))
    })
}

/// What the API servers need of it, whatever the spec says now.
#[must_use]
pub fn encryption_use(cluster: &Cluster, observed: &Observed) -> EncryptionUse {
    let kept = load(cluster, observed);
    let state = kept.as_ref().ok().and_then(|kept| kept.as_ref()).map(|kept| &kept.state);
    // While the keys are missing nothing is taken away.
    let configured = kept.is_err() || cluster.encryption.is_some() || state.is_some_and(State::is_in_use);
    let work = state.and_then(|state| state.work(delays(cluster)));
    let rewrites = work.map(|work| work.resources).unwrap_or_default();
    EncryptionUse { configured, rewrites }
}

/// Since when, and which objects are written anew, and how far that is: for who does it.
#[must_use]
pub fn rewriting(secret: &SecretObject) -> Option<(Timestamp, encryption::Progress)> {
    let change = read(secret).ok()?.state.change.filter(|change| change.stage == Stage::Reencrypt)?;
    Some((change.since, change.progress))
}

/// What the session of the target has to do; nothing while nothing changes.
#[must_use]
pub fn encryption_work(cluster: &Cluster, observed: &Observed) -> Option<encryption::Work> {
    let state = load(cluster, observed).ok()??.state;
    state.work(delays(cluster))
}

/// The file for every control-plane machine. Where encryption was turned off it stays as long as the Secret of the keys
/// does: an API server that is yet to be started anew reads it.
pub(super) fn file(cluster: &Cluster, observed: &Observed) -> Result<Option<GivenFile>, Blocker> {
    let Some(kept) = load(cluster, observed)? else { return Ok(None) };
    let content = kept.configuration().ok_or_else(|| Blocker {
        reason: reasons::ENCRYPTION_KEYS_UNREADABLE,
        message: format!("Secret {} lacks a key that is in use", names::encryption_secret(&cluster.name)),
    })?;
    let path = encryption_configuration(cluster);
    Ok(Some(GivenFile { key: CONFIGURATION, path, mode: PRIVATE, content: SecretText(content) }))
}

/// Plans the Secret. Nothing is to be written for a machine while this gives false.
pub(super) fn plan(cluster: &Cluster, observed: &Observed, now: Timestamp, plan: &mut Plan) -> bool {
    let kept = match load(cluster, observed) {
        Ok(kept) => kept,
        Err(blocker) => {
            plan.blockers.push(blocker);
            return false;
        }
    };
    if let Some(blocker) = foreign_flag(cluster) {
        plan.blockers.push(blocker);
        return false;
    }
    let nodes = nodes(cluster);
    let file = kept.as_ref().and_then(Kept::configuration).unwrap_or_default();
    let wanted = wanted(cluster, observed, kept.as_ref());
    let around = surroundings(cluster, observed, &nodes, &file, now);
    let before = kept.as_ref().map(|kept| &kept.state);
    let Some(state) = encryption::decide(&wanted, before, &around) else { return true };
    let name = names::encryption_secret(&cluster.name);
    let news = encryption::news(before, &state);
    let content = Content::Encryption { state: Box::new(state), news };
    plan.steps.push(Step::Secret(Box::new(Draft { name, content })));
    false
}

/// A configuration of the user's own would not have the keys that are in use.
fn foreign_flag(cluster: &Cluster) -> Option<Blocker> {
    let extra = &cluster.spec.control_plane.api_server.extra_args;
    let flag = extra.iter().find(|argument| argument.name.starts_with("encryption-provider-config"))?;
    cluster.encryption_use.configured.then(|| Blocker {
        reason: reasons::ENCRYPTION_IN_USE,
        message: format!(
            "spec.controlPlane.apiServer.extraArgs: {} excludes encryption at rest, which is still in use: take the flag away \
             until everything is decrypted and the condition EncryptedAtRest is gone",
            flag.name
        ),
    })
}

fn nodes(cluster: &Cluster) -> Vec<String> {
    cluster.nodes.iter().map(|node| node.name.clone()).collect()
}

fn wanted(cluster: &Cluster, observed: &Observed, kept: Option<&Kept>) -> Wanted {
    let secret = observed.secrets.get(&names::encryption_secret(&cluster.name));
    let answered = secret.map(|secret| secret.annotations().clone()).unwrap_or_default();
    let requested = kept.and_then(|kept| kept.state.change.as_ref()?.requested.clone());
    Wanted {
        settings: cluster.encryption.clone(),
        requested: cluster.rotate.encryption_key().open(&answered),
        rolls_back: requested.is_some_and(|requested| cluster.rotate.rolls_back(&requested)),
    }
}

fn surroundings<'a>(
    cluster: &Cluster,
    observed: &'a Observed,
    nodes: &'a [String],
    file: &'a str,
    now: Timestamp,
) -> Surroundings<'a> {
    let is_written = |node: &String| {
        matches!(observed.secret(&cluster.name, &names::node_secret(&cluster.name, node)), Slot::Ours(_))
    };
    let pristine =
        cluster.external_etcd().is_none() && observed.status.certificates.is_empty() && !nodes.iter().any(is_written);
    Surroundings {
        nodes,
        file,
        facts: observed.target.encryption.as_ref(),
        delays: delays(cluster),
        pristine,
        window_open: cluster.policy.maintenance_window.as_ref().is_none_or(|window| window.is_open(now)),
        now: Timestamp::from_second(now.as_second()).unwrap_or(now),
    }
}

/// What the API servers' flags say of it, and Kubernetes' defaults where they don't.
fn delays(cluster: &Cluster) -> Delays {
    let arguments = cluster.api_server_arguments();
    let flag = |name: &str, default: SignedDuration| {
        let value = arguments.iter().rev().find(|argument| argument.name == name);
        let value = value.and_then(|argument| SignedDuration::try_from(parse_duration(&argument.value).ok()?).ok());
        // Nought means never: then somebody else compacts.
        value.filter(SignedDuration::is_positive).unwrap_or(default)
    };
    // An API server makes etcd forget what is two intervals old.
    let history = flag("etcd-compaction-interval", COMPACTION_INTERVAL) * 2;
    Delays { request: flag("request-timeout", REQUEST_TIMEOUT), history }
}

/// When something is due by the clock alone.
#[must_use]
pub fn next_encryption_change(cluster: &Cluster, observed: &Observed) -> Option<Timestamp> {
    let kept = load(cluster, observed).ok()??;
    encryption::next_time(&wanted(cluster, observed, Some(&kept)), &kept.state, delays(cluster))
}

/// The Secret of a draft. `make` makes a key as base64.
///
/// # Errors
/// If `make` fails.
pub fn compose<E>(
    cluster: &Cluster,
    observed: &Observed,
    state: &State,
    make: impl Fn() -> Result<String, E>,
) -> Result<Option<SecretObject>, E> {
    let Ok(kept) = load(cluster, observed) else { return Ok(None) };
    let made = kept.as_ref().map_or(0, |kept| kept.state.made);
    let known = kept.map(|kept| kept.material).unwrap_or_default();
    let Ok(text) = serde_json::to_string_pretty(state) else { return Ok(None) };
    let mut data = BTreeMap::from([(STATE.to_owned(), text)]);
    for (number, key) in state.keys.iter().enumerate() {
        let is_new = state.made > made && number + 1 == state.keys.len();
        let material = match known.get(&key.name) {
            Some(known) => known.0.clone(),
            None if is_new => make()?,
            None => continue,
        };
        data.insert(entry(&key.name, key.retired.is_some()), material);
    }
    let stage = state.change.as_ref().map_or("Completed", |change| change.stage.name());
    let annotations = [(keys::ROTATION_STAGE_ANNOTATION, stage.to_owned())];
    let name = names::encryption_secret(&cluster.name);
    let mut secret = objects::secret(cluster, name, None, "Opaque", data, annotations);
    if state.made > made {
        secret.annotations_mut().extend(cluster.rotate.encryption_key().marks());
    }
    Ok(Some(secret))
}

/// The row in `status.rotations`.
pub(super) fn rotation(cluster: &Cluster, observed: &Observed, now: Timestamp) -> Option<RotationStatus> {
    let Ok(Some(kept)) = load(cluster, observed) else {
        // What is blocked is not forgotten.
        return observed.status.rotations.iter().find(|row| row.name == encryption::ROTATION).cloned();
    };
    encryption::rotation(&kept.state, waits(cluster, observed, &kept, now))
}

fn waits(cluster: &Cluster, observed: &Observed, kept: &Kept, now: Timestamp) -> Vec<String> {
    let (nodes, file) = (nodes(cluster), kept.configuration().unwrap_or_default());
    let around = surroundings(cluster, observed, &nodes, &file, now);
    encryption::waits(&kept.state, &around, |node| names::node_secret(&cluster.name, node))
}

/// What the condition says; nothing where nothing is encrypted and nothing is to be.
pub(super) fn outcome(cluster: &Cluster, observed: &Observed, now: Timestamp) -> Option<Outcome> {
    let kept = match load(cluster, observed) {
        Err(blocker) => return Some(Outcome::bad(blocker.reason, blocker.message)),
        Ok(None) => {
            return cluster.encryption.as_ref().map(|_| Outcome::bad(NOT_RENDERED, "the keys are not made yet"));
        }
        Ok(Some(kept)) => kept,
    };
    let words = encryption::describe(&kept.state);
    match &kept.state.change {
        None if kept.state.is_in_use() => Some(Outcome::good(reasons::ENCRYPTED, words)),
        None => cluster.encryption.as_ref().map(|_| Outcome::bad(NOT_ENCRYPTED, words)),
        Some(change) => {
            let waits = waits(cluster, observed, &kept, now);
            let message = format!("{words}; waits for {}", waits.join("; "));
            // Objects may be many.
            let is_late = change.stage != Stage::Reencrypt && rotation_status::is_late(change.since, now);
            Some(Outcome::bad(if is_late { reasons::ENCRYPTION_STUCK } else { change.stage.name() }, message))
        }
    }
}
