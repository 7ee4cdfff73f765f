//! Decides the next state: a pure function of the desired encryption, the stored state, and the observed state.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_crds::EncryptionProvider;

use super::proof::is_loaded_everywhere;
use super::{Change, Completed, Delays, Facts, Key, Progress, Stage, State, Writer};

/// The desired encryption.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The settings; `None` if nothing is to be encrypted.
    pub settings: Option<Settings>,
    /// The value of an unanswered request for a new key.
    pub requested: Option<String>,
    /// Whether the request in progress is to be rolled back.
    pub rolls_back: bool,
}

/// The settings of encryption at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The provider.
    pub provider: EncryptionProvider,
    /// The resources to encrypt.
    pub resources: BTreeSet<String>,
    /// The maximum age of a key.
    pub rotation_period: Option<SignedDuration>,
    /// The time for which a key is kept that only backups need.
    pub keep_retired: SignedDuration,
}

/// The observed state.
#[derive(Debug, Clone, Copy)]
pub struct EncryptionInputs<'a> {
    /// The control-plane nodes.
    pub nodes: &'a [String],
    /// The configuration file that the nodes should have now.
    pub file: &'a str,
    /// The facts about the target cluster.
    pub facts: Option<&'a Facts>,
    /// The delays that can't be observed.
    pub delays: Delays,
    /// Whether the cluster has never stored an object.
    pub pristine: bool,
    /// Whether the maintenance window is open.
    pub window_open: bool,
    /// The current time, in whole seconds.
    pub now: Timestamp,
}

/// Returns the state that replaces `state`; `None` if nothing changes, or if the change waits.
#[must_use]
pub fn decide(wanted: &Wanted, state: Option<&State>, inputs: &EncryptionInputs<'_>) -> Option<State> {
    let Some(state) = state else {
        let settings = wanted.settings.as_ref()?;
        let begun = begin(settings_change(settings, &State::default(), wanted, true), State::default(), inputs.now);
        return Some(if inputs.pristine { end(begun, inputs.now, true) } else { begun });
    };
    match &state.change {
        None => settled(wanted, state, inputs),
        Some(change) => under_way(wanted, state, change, inputs),
    }
}

/// Returns the time of the next change that only depends on time.
#[must_use]
pub fn next_time(wanted: &Wanted, state: &State, delays: Delays) -> Option<Timestamp> {
    let Some(change) = &state.change else {
        let settings = wanted.settings.as_ref()?;
        let rotation = state.key().zip(settings.rotation_period).map(|(key, period)| key.created + period);
        let retired = state.keys.iter().filter_map(|key| Some(key.retired? + settings.keep_retired));
        return rotation.into_iter().chain(retired).min();
    };
    (change.stage == Stage::Settle).then_some(change.since + delays.history)
}

/// The target of a change.
struct Target {
    to: BTreeMap<String, Writer>,
    key: Option<Key>,
    requested: Option<String>,
}

/// Decides while no change is in progress.
fn settled(wanted: &Wanted, state: &State, inputs: &EncryptionInputs<'_>) -> Option<State> {
    let Some(settings) = &wanted.settings else {
        if state.resources.is_empty() {
            return None;
        }
        let off = Target { to: BTreeMap::new(), key: None, requested: None };
        return Some(begin(off, state.clone(), inputs.now));
    };
    let is_due = |key: &Key| settings.rotation_period.is_some_and(|period| key.created + period <= inputs.now);
    let needs_new_key = match state.key() {
        None => true,
        Some(key) => {
            key.provider != settings.provider || wanted.requested.is_some() || (is_due(key) && inputs.window_open)
        }
    };
    let target = settings_change(settings, state, wanted, needs_new_key);
    if target.to != state.resources {
        return Some(begin(target, state.clone(), inputs.now));
    }
    let is_needed = |key: &Key| key.retired.is_none_or(|retired| retired + settings.keep_retired > inputs.now);
    let mut next = state.clone();
    next.keys.retain(is_needed);
    (next != *state).then_some(next)
}

/// Returns the change to the settings, with a new key or with the current one.
fn settings_change(settings: &Settings, state: &State, wanted: &Wanted, needs_new_key: bool) -> Target {
    let name = match state.key().filter(|_| !needs_new_key) {
        Some(key) => key.name.clone(),
        None => format!("key-{}", state.made + 1),
    };
    let key = needs_new_key.then(|| Key {
        name: name.clone(),
        provider: settings.provider,
        created: Timestamp::UNIX_EPOCH,
        retired: None,
    });
    let to = settings.resources.iter().map(|resource| (resource.clone(), Writer::Key(name.clone()))).collect();
    Target { to, key, requested: wanted.requested.clone().filter(|_| needs_new_key) }
}

fn begin(target: Target, mut state: State, now: Timestamp) -> State {
    let Target { to, key, requested } = target;
    if let Some(key) = key {
        state.made += 1;
        state.keys.push(Key { created: now, ..key });
    }
    state.change = Some(Change {
        to,
        stage: Stage::Publish,
        started: now,
        since: now,
        requested,
        rolling_back: false,
        progress: Progress::default(),
    });
    state
}

fn under_way(wanted: &Wanted, state: &State, change: &Change, inputs: &EncryptionInputs<'_>) -> Option<State> {
    if is_to_be_rolled_back(wanted, state, change) {
        return Some(roll_back(state.clone(), change, inputs.now));
    }
    let to_stage = |stage: Stage| {
        let mut next = state.clone();
        next.change = Some(Change { stage, since: inputs.now, ..change.clone() });
        Some(next)
    };
    let loaded = || is_loaded_everywhere(inputs.nodes, inputs.file, inputs.facts);
    match change.stage {
        Stage::Publish if loaded() => to_stage(Stage::Write),
        Stage::Write if loaded() => to_stage(Stage::Reencrypt),
        Stage::Reencrypt => {
            let seen = inputs.facts.and_then(|facts| facts.reencryption.as_ref());
            let progress = &seen.filter(|seen| seen.since == change.since)?.progress;
            let all_done = state.changed_resources().is_subset(&progress.done);
            if !all_done && *progress == change.progress {
                return None;
            }
            let mut next = state.clone();
            let (stage, since) = if all_done { (Stage::Settle, inputs.now) } else { (Stage::Reencrypt, change.since) };
            next.change = Some(Change { stage, since, progress: progress.clone(), ..change.clone() });
            Some(next)
        }
        Stage::Settle if change.since + inputs.delays.history <= inputs.now => to_stage(Stage::Drop),
        Stage::Drop if loaded() => Some(end(state.clone(), inputs.now, false)),
        Stage::Publish | Stage::Write | Stage::Settle | Stage::Drop => None,
    }
}

/// Returns whether the change is rolled back: the user requested it, or the desired encryption is the previous one
/// again.
fn is_to_be_rolled_back(wanted: &Wanted, state: &State, change: &Change) -> bool {
    // Some API servers may lack the previous key already, so a rollback has to be a separate change.
    if change.stage == Stage::Drop {
        return false;
    }
    if wanted.rolls_back && !change.rolling_back {
        return true;
    }
    let is_wanted = |writers: &BTreeMap<String, Writer>| {
        let providers = writers.values().map(|writer| match writer {
            Writer::Identity => None,
            Writer::Key(name) => state.keys.iter().find(|key| key.name == *name).map(|key| key.provider),
        });
        match &wanted.settings {
            None => writers.is_empty(),
            Some(settings) => {
                writers.keys().eq(&settings.resources)
                    && providers.into_iter().all(|one| one == Some(settings.provider))
            }
        }
    };
    is_wanted(&state.resources) && !is_wanted(&change.to)
}

fn roll_back(mut state: State, change: &Change, now: Timestamp) -> State {
    let back =
        Change { since: now, rolling_back: !change.rolling_back, progress: Progress::default(), ..change.clone() };
    if change.stage == Stage::Publish {
        // No API server has written with the new key.
        state.change = Some(Change { to: state.resources.clone(), stage: Stage::Drop, ..back });
    } else {
        // Every API server has both keys, so the keys swap places.
        let to = std::mem::replace(&mut state.resources, change.to.clone());
        state.change = Some(Change { to, stage: Stage::Write, ..back });
    }
    state
}

/// Completes the change. `at_birth` is for a new cluster, where no completion is recorded.
fn end(mut state: State, now: Timestamp, at_birth: bool) -> State {
    let Some(change) = state.change.take() else { return state };
    if !at_birth {
        state.completed = Some(Completed {
            requested: change.requested,
            rolled_back: change.rolling_back,
            started: change.started,
            ended: now,
        });
    }
    state.resources = change.to;
    let used: BTreeSet<_> = state.resources.values().cloned().collect();
    for key in &mut state.keys {
        let is_used = used.contains(&Writer::Key(key.name.clone()));
        key.retired = if is_used { None } else { key.retired.or(Some(now)) };
    }
    state
}
