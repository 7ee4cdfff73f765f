//! The keys for encryption at rest: their Secret, and the configuration file of every API server.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret as SecretObject;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_crds::{ClusterCondition, condition_of, keys, parse_duration, reasons};
use kube::ResourceExt;

use super::secret_file::{PRIVATE, UserProvidedFile};
use super::{Content, Draft, Plan, Step};
use crate::blocker::Blocker;
use crate::encryption::{self, Delays, EncryptionInputs, Stage, State, Wanted};
use crate::manifests::encryption_configuration;
use crate::model::{Cluster, EncryptionUse};
use crate::observed::{Observed, Slot};
use crate::pki::SecretText;
use crate::{names, objects};

/// The key of the file in a node's Secret.
const CONFIGURATION: &str = "encryption-config.yaml";
/// The key of the state in the Secret of the encryption keys.
const STATE: &str = "state.json";
/// The prefix of the name of a key that only backups need.
const RETIRED: &str = "retired-";
/// The condition reasons while Keyplane has never generated a key. Every other reason is a trace of keys.
const WITHOUT_KEYS: [&str; 3] = [NOT_RENDERED, NOT_ENCRYPTED, reasons::FOREIGN_OBJECT];
pub(crate) const NOT_RENDERED: &str = reasons::NOT_RENDERED;
pub(crate) const NOT_ENCRYPTED: &str = reasons::NOT_ENCRYPTED;
/// An API server's `--request-timeout`.
const REQUEST_TIMEOUT: SignedDuration = SignedDuration::from_mins(1);
/// An API server's `--etcd-compaction-interval`.
const COMPACTION_INTERVAL: SignedDuration = SignedDuration::from_mins(5);

/// The stored state of a cluster's encryption keys, and the keys.
pub(crate) struct StoredKeys {
    pub(crate) state: State,
    /// The keys by name, in base64. Retired keys are included unless the user has deleted them.
    material: BTreeMap<String, SecretText>,
}

impl StoredKeys {
    pub(crate) fn configuration(&self) -> Option<String> {
        encryption::configuration(&self.state, |name| self.material.get(name).map(|secret| secret.0.clone()))
    }
}

/// Reads the Secret; `None` if it does not exist and no key is missing.
pub(crate) fn load(cluster: &Cluster, observed: &Observed) -> Result<Option<StoredKeys>, Blocker> {
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
                "Secret {name} is older than the files on the nodes: it lacks {key}, which may have encrypted objects \
                 (Secret {node} has it, under {CONFIGURATION}); restore its newest backup"
            ),
        }),
    }
}

fn read(secret: &SecretObject) -> Result<StoredKeys, String> {
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
    Ok(StoredKeys { state, material })
}

fn entry(key: &str, is_retired: bool) -> String {
    format!("{}{key}", if is_retired { RETIRED } else { "" })
}

/// Returns the configuration files in the nodes' Secrets, with the names of the Secrets.
fn written<'a>(cluster: &'a Cluster, observed: &'a Observed) -> impl Iterator<Item = (String, &'a str)> {
    cluster.nodes.iter().filter_map(|node| {
        let name = names::node_secret(&cluster.name, &node.name);
        let Slot::Ours(secret) = observed.secret(&cluster.name, &name) else { return None };
        Some((name, objects::text(secret, CONFIGURATION)?))
    })
}

/// Returns the place of a trace that keys existed.
fn trace(cluster: &Cluster, observed: &Observed) -> Option<String> {
    let copy = written(cluster, observed).find(|(_, text)| !encryption::keys_in(text).is_empty());
    if let Some((node, _)) = copy {
        return Some(format!("Secret {node} still has keys, under {CONFIGURATION}"));
    }
    let condition = condition_of(&observed.status.conditions, ClusterCondition::EncryptedAtRest.name());
    condition
        .filter(|condition| !WITHOUT_KEYS.contains(&condition.reason.as_str()))
        .map(|_| format!("a control-plane node still has keys, in {}", encryption_configuration(cluster)))
}

fn missing(name: &str, trace: &str) -> Blocker {
    Blocker {
        reason: reasons::ENCRYPTION_KEYS_MISSING,
        message: format!(
            "Secret {name} is missing, and only its keys can decrypt the objects in etcd, so Keyplane generates no new \
             ones: restore it from a backup with its labels ({trace}); if the cluster is not in use, delete this \
             ClusterSpec with its Secrets and create it again"
        ),
    }
}

/// Returns a key that a node's file has and the Secret lacks: the name of the node's Secret, and the key's name.
fn outdated(cluster: &Cluster, observed: &Observed, kept: &StoredKeys) -> Option<(String, String)> {
    written(cluster, observed).find_map(|(node, text)| {
        let keys = encryption::keys_in(text);
        let lacking = keys.into_iter().find(|(name, secret)| {
            // The user may delete a retired key.
            let is_retired = kept.state.keys.iter().any(|key| key.name == *name && key.retired.is_some());
            !is_retired && kept.material.get(name).is_none_or(|known| known.0 != *secret)
        });
        lacking.map(|(name, _)| (node, name))
    })
}

/// Returns the parts of encryption that the API servers need, independent of the current spec.
#[must_use]
pub fn encryption_use(cluster: &Cluster, observed: &Observed) -> EncryptionUse {
    let kept = load(cluster, observed);
    let state = kept.as_ref().ok().and_then(|kept| kept.as_ref()).map(|kept| &kept.state);
    // While the keys are missing, the API servers keep their configuration.
    let configured = kept.is_err() || cluster.encryption.is_some() || state.is_some_and(State::is_in_use);
    let work = state.and_then(|state| state.work(delays(cluster)));
    let reencrypted = work.map(|work| work.resources).unwrap_or_default();
    EncryptionUse { configured, reencrypted }
}

/// Returns the start and the progress of the re-encryption in progress, for the task that re-encrypts objects.
#[must_use]
pub fn reencryption(secret: &SecretObject) -> Option<(Timestamp, encryption::Progress)> {
    let change = read(secret).ok()?.state.change.filter(|change| change.stage == Stage::Reencrypt)?;
    Some((change.since, change.progress))
}

/// Returns the work for the session with the target cluster; `None` while no change is in progress.
#[must_use]
pub fn encryption_work(cluster: &Cluster, observed: &Observed) -> Option<encryption::Work> {
    let state = load(cluster, observed).ok()??.state;
    state.work(delays(cluster))
}

/// Returns the file for every control-plane node. After encryption was turned off, the file stays as long as the Secret
/// of the keys: an API server that has not restarted yet reads it.
pub(crate) fn file(cluster: &Cluster, observed: &Observed) -> Result<Option<UserProvidedFile>, Blocker> {
    let Some(kept) = load(cluster, observed)? else { return Ok(None) };
    let content = kept.configuration().ok_or_else(|| Blocker {
        reason: reasons::ENCRYPTION_KEYS_UNREADABLE,
        message: format!("Secret {} lacks a key that is in use", names::encryption_secret(&cluster.name)),
    })?;
    let path = encryption_configuration(cluster);
    Ok(Some(UserProvidedFile { key: CONFIGURATION, path, mode: PRIVATE, content: SecretText(content) }))
}

/// Plans the Secret. While the function returns `false`, callers write nothing for a node.
pub(crate) fn plan(cluster: &Cluster, observed: &Observed, now: Timestamp, plan: &mut Plan) -> bool {
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
    let file = kept.as_ref().and_then(StoredKeys::configuration).unwrap_or_default();
    let wanted = wanted(cluster, observed, kept.as_ref());
    let inputs = encryption_inputs(cluster, observed, &nodes, &file, now);
    let before = kept.as_ref().map(|kept| &kept.state);
    let Some(state) = encryption::decide(&wanted, before, &inputs) else { return true };
    let name = names::encryption_secret(&cluster.name);
    let event_reason = encryption::event_reason(before, &state);
    let content = Content::Encryption { state: Box::new(state), event_reason };
    plan.steps.push(Step::Secret(Box::new(Draft { name, content })));
    false
}

/// Returns a blocker if the user sets their own encryption configuration, which would lack the keys in use.
fn foreign_flag(cluster: &Cluster) -> Option<Blocker> {
    let extra = &cluster.spec.control_plane.api_server.extra_args;
    let flag = extra.iter().find(|argument| argument.name.starts_with("encryption-provider-config"))?;
    cluster.encryption_use.configured.then(|| Blocker {
        reason: reasons::ENCRYPTION_IN_USE,
        message: format!(
            "spec.controlPlane.apiServer.extraArgs: {} conflicts with encryption at rest, which is still in use: \
             remove the flag until everything is decrypted and the condition EncryptedAtRest is gone",
            flag.name
        ),
    })
}

pub(crate) fn nodes(cluster: &Cluster) -> Vec<String> {
    cluster.nodes.iter().map(|node| node.name.clone()).collect()
}

fn wanted(cluster: &Cluster, observed: &Observed, kept: Option<&StoredKeys>) -> Wanted {
    let secret = observed.secrets.get(&names::encryption_secret(&cluster.name));
    let answered = secret.map(|secret| secret.annotations().clone()).unwrap_or_default();
    let requested = kept.and_then(|kept| kept.state.change.as_ref()?.requested.clone());
    Wanted {
        settings: cluster.encryption.clone(),
        requested: cluster.rotate.encryption_key().open(&answered),
        rolls_back: requested.is_some_and(|requested| cluster.rotate.rolls_back(&requested)),
    }
}

pub(crate) fn encryption_inputs<'a>(
    cluster: &Cluster,
    observed: &'a Observed,
    nodes: &'a [String],
    file: &'a str,
    now: Timestamp,
) -> EncryptionInputs<'a> {
    let is_written = |node: &String| {
        matches!(observed.secret(&cluster.name, &names::node_secret(&cluster.name, node)), Slot::Ours(_))
    };
    let pristine =
        cluster.external_etcd().is_none() && observed.status.certificates.is_empty() && !nodes.iter().any(is_written);
    EncryptionInputs {
        nodes,
        file,
        facts: observed.target.encryption.as_ref(),
        delays: delays(cluster),
        pristine,
        window_open: cluster.policy.maintenance_window.as_ref().is_none_or(|window| window.is_open(now)),
        now: Timestamp::from_second(now.as_second()).unwrap_or(now),
    }
}

/// Returns the delays from the API servers' flags, or Kubernetes' defaults.
fn delays(cluster: &Cluster) -> Delays {
    let arguments = cluster.api_server_arguments();
    let flag = |name: &str, default: SignedDuration| {
        let value = arguments.iter().rev().find(|argument| argument.name == name);
        let value = value.and_then(|argument| SignedDuration::try_from(parse_duration(&argument.value).ok()?).ok());
        // Zero turns compaction off: then another component compacts.
        value.filter(SignedDuration::is_positive).unwrap_or(default)
    };
    // An API server compacts revisions that are two intervals old.
    let history = flag("etcd-compaction-interval", COMPACTION_INTERVAL) * 2;
    Delays { request: flag("request-timeout", REQUEST_TIMEOUT), history }
}

/// Returns the time of the next change that only depends on time.
#[must_use]
pub fn next_encryption_change(cluster: &Cluster, observed: &Observed) -> Option<Timestamp> {
    let kept = load(cluster, observed).ok()??;
    encryption::next_time(&wanted(cluster, observed, Some(&kept)), &kept.state, delays(cluster))
}

/// Composes the Secret of a draft. `make` generates a key in base64.
///
/// # Errors
/// Returns the error of `make`.
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
        secret.annotations_mut().extend(cluster.rotate.encryption_key().answer_annotations());
    }
    Ok(Some(secret))
}
