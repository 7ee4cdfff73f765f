//! What is to be remembered next: a pure function of what is wanted, what is remembered, and what was seen.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_crds::EncryptionProvider;

use super::proof::is_loaded_everywhere;
use super::{Change, Completed, Delays, Facts, Key, Progress, Stage, State, Writer};

/// What a cluster's owner wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What is to be encrypted, and how; nothing if nothing is.
    pub settings: Option<Settings>,
    /// The value of a request for a new key that is not answered yet.
    pub requested: Option<String>,
    /// Whether the request that is being answered is to be taken back.
    pub rolls_back: bool,
}

/// What is to be encrypted, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How.
    pub provider: EncryptionProvider,
    /// What.
    pub resources: BTreeSet<String>,
    /// How old a key becomes.
    pub rotation_period: Option<SignedDuration>,
    /// For how long a key is kept that only backups need.
    pub keep_retired: SignedDuration,
}

/// What was seen.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The control-plane nodes.
    pub nodes: &'a [String],
    /// The file that they are to have now.
    pub file: &'a str,
    /// What the target said.
    pub facts: Option<&'a Facts>,
    /// What can't be seen.
    pub delays: Delays,
    /// Whether nothing was ever stored.
    pub pristine: bool,
    /// Whether work that can wait may begin.
    pub window_open: bool,
    /// Now, in whole seconds.
    pub now: Timestamp,
}

/// What is to be remembered instead of `state`; nothing if it is as it should be, or waits.
#[must_use]
pub fn decide(wanted: &Wanted, state: Option<&State>, around: &Surroundings<'_>) -> Option<State> {
    let Some(state) = state else {
        let settings = wanted.settings.as_ref()?;
        let begun = begin(settings_change(settings, &State::default(), wanted, true), State::default(), around.now);
        return Some(if around.pristine { end(begun, around.now, true) } else { begun });
    };
    match &state.change {
        None => settled(wanted, state, around),
        Some(change) => under_way(wanted, state, change, around),
    }
}

/// When something is due by the clock alone.
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

/// What a change leads to.
struct Target {
    to: BTreeMap<String, Writer>,
    key: Option<Key>,
    requested: Option<String>,
}

/// Nothing is under way.
fn settled(wanted: &Wanted, state: &State, around: &Surroundings<'_>) -> Option<State> {
    let Some(settings) = &wanted.settings else {
        if state.resources.is_empty() {
            return None;
        }
        let off = Target { to: BTreeMap::new(), key: None, requested: None };
        return Some(begin(off, state.clone(), around.now));
    };
    let is_due = |key: &Key| settings.rotation_period.is_some_and(|period| key.created + period <= around.now);
    let anew = match state.key() {
        None => true,
        Some(key) => {
            key.provider != settings.provider || wanted.requested.is_some() || (is_due(key) && around.window_open)
        }
    };
    let target = settings_change(settings, state, wanted, anew);
    if target.to != state.resources {
        return Some(begin(target, state.clone(), around.now));
    }
    let is_needed = |key: &Key| key.retired.is_none_or(|retired| retired + settings.keep_retired > around.now);
    let mut next = state.clone();
    next.keys.retain(is_needed);
    (next != *state).then_some(next)
}

/// The change to what the settings say, with a new key or with the one that there is.
fn settings_change(settings: &Settings, state: &State, wanted: &Wanted, anew: bool) -> Target {
    let name = match state.key().filter(|_| !anew) {
        Some(key) => key.name.clone(),
        None => format!("key-{}", state.made + 1),
    };
    let key = anew.then(|| Key {
        name: name.clone(),
        provider: settings.provider,
        created: Timestamp::UNIX_EPOCH,
        retired: None,
    });
    let to = settings.resources.iter().map(|resource| (resource.clone(), Writer::Key(name.clone()))).collect();
    Target { to, key, requested: wanted.requested.clone().filter(|_| anew) }
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

fn under_way(wanted: &Wanted, state: &State, change: &Change, around: &Surroundings<'_>) -> Option<State> {
    if is_to_be_rolled_back(wanted, state, change) {
        return Some(roll_back(state.clone(), change, around.now));
    }
    let to_stage = |stage: Stage| {
        let mut next = state.clone();
        next.change = Some(Change { stage, since: around.now, ..change.clone() });
        Some(next)
    };
    let loaded = || is_loaded_everywhere(around.nodes, around.file, around.facts);
    match change.stage {
        Stage::Publish if loaded() => to_stage(Stage::Write),
        Stage::Write if loaded() => to_stage(Stage::Reencrypt),
        Stage::Reencrypt => {
            let seen = around.facts.and_then(|facts| facts.rewriting.as_ref());
            let progress = &seen.filter(|seen| seen.since == change.since)?.progress;
            let all_done = state.moved().is_subset(&progress.done);
            if !all_done && *progress == change.progress {
                return None;
            }
            let mut next = state.clone();
            let (stage, since) = if all_done { (Stage::Settle, around.now) } else { (Stage::Reencrypt, change.since) };
            next.change = Some(Change { stage, since, progress: progress.clone(), ..change.clone() });
            Some(next)
        }
        Stage::Settle if change.since + around.delays.history <= around.now => to_stage(Stage::Drop),
        Stage::Drop if loaded() => Some(end(state.clone(), around.now, false)),
        Stage::Publish | Stage::Write | Stage::Settle | Stage::Drop => None,
    }
}

/// What was begun is taken back where that was asked for, or where what is wanted is what there was before.
fn is_to_be_rolled_back(wanted: &Wanted, state: &State, change: &Change) -> bool {
    // An API server may lack the former key already: back it goes only as a change of its own.
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
        // Nobody has written with the new key.
        state.change = Some(Change { to: state.resources.clone(), stage: Stage::Drop, ..back });
    } else {
        // Every API server has both keys; they change places.
        let to = std::mem::replace(&mut state.resources, change.to.clone());
        state.change = Some(Change { to, stage: Stage::Write, ..back });
    }
    state
}

/// The change has come to its end; `at_birth` it is no news.
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
