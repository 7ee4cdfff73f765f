//! With which key what is stored in a target's etcd is encrypted, and how that changes under a cluster that runs: pure.
//!
//! An API server can read what it has a key for, and writes with the first of its keys. So a key is first made known to
//! every API server, then put first, and taken away only once nothing is left that needs it. "Not encrypted" is a key
//! like the others here: to turn encryption on, to take another key, another provider or other resources, and to turn it
//! off are all the same change.
//!
//! | Stage | The list of an API server | It goes on when |
//! |---|---|---|
//! | `Publish` | former, new | every API server has loaded it |
//! | `Write` | new, former | every API server has loaded it |
//! | `Reencrypt` | new, former | every object was written anew |
//! | `Settle` | new, former | etcd has forgotten what was there before |
//! | `Drop` | new | every API server has loaded it |

mod configuration;
mod decision;
mod proof;
mod report;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_crds::{EncryptionProvider, reasons};
use serde::{Deserialize, Serialize};

pub use configuration::{configuration, keys_in, lists};
pub use decision::{Settings, Surroundings, Wanted, decide, next_time};
pub use proof::{CONFIGURATION_METRIC, Facts, Rewriting, configuration_hash, loaded_configuration};
pub use report::{ROTATION, describe, news, rotation, waits};

/// What an object is written with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Writer {
    /// Nothing: it is stored as it is.
    Identity,
    /// The key of this name.
    Key(String),
}

/// A key, without what is secret of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// Its name, which stands before everything that is written with it.
    pub name: String,
    /// How it encrypts.
    pub provider: EncryptionProvider,
    /// Since when it is there.
    pub created: Timestamp,
    /// Since when nothing needs it but backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<Timestamp>,
}

/// How far a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// The new key becomes known to every API server.
    Publish,
    /// Every API server begins to write with it.
    Write,
    /// What is there is written anew.
    Reencrypt,
    /// Whoever reads what was there a moment ago still needs the former key.
    Settle,
    /// The former key is taken away from every API server.
    Drop,
}

impl Stage {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => reasons::PUBLISH,
            Self::Write => reasons::WRITE,
            Self::Reencrypt => reasons::REENCRYPT,
            Self::Settle => reasons::SETTLE,
            Self::Drop => reasons::DROP,
        }
    }
}

/// How much has been written anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// The resources of which everything was.
    pub done: BTreeSet<String>,
    /// The last object, in the order in which the API lists them: its resource, and `namespace/name` or its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<(String, String)>,
    /// How many objects were.
    pub objects: u64,
}

/// What is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// What each resource is to be written with. One that is not there is not to be encrypted.
    pub to: BTreeMap<String, Writer>,
    /// How far it is.
    pub stage: Stage,
    /// When it began.
    pub started: Timestamp,
    /// Since when it is in this stage.
    pub since: Timestamp,
    /// The value that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
    /// Whether it takes back what was begun.
    #[serde(default)]
    pub rolling_back: bool,
    /// How much has been written anew in this stage.
    #[serde(default)]
    pub progress: Progress,
}

/// The last change that came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Completed {
    /// The value that had asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
    /// Whether it took back what was begun.
    #[serde(default)]
    pub rolled_back: bool,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
}

/// What is remembered, beside the keys themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// How many keys were made: no name is given twice.
    pub made: u32,
    /// The keys, the oldest first.
    pub keys: Vec<Key>,
    /// What each resource was written with before the change that is under way; without one, what it is written with. One
    /// that is not there is not encrypted.
    pub resources: BTreeMap<String, Writer>,
    /// What is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// What was the last to come to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<Completed>,
}

impl State {
    /// Whether an API server has to have it: something is encrypted, or may be.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.change.is_some() || !self.resources.is_empty()
    }

    /// The key that is written with, or is to be.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        let writers = self.change.as_ref().map_or(&self.resources, |change| &change.to);
        let name =
            writers.values().find_map(|writer| if let Writer::Key(name) = writer { Some(name) } else { None })?;
        self.keys.iter().find(|key| key.name == *name)
    }

    /// The resources whose objects another key is for than before.
    #[must_use]
    pub fn moved(&self) -> BTreeSet<String> {
        let Some(change) = &self.change else { return BTreeSet::new() };
        let both = self.resources.keys().chain(change.to.keys());
        both.filter(|resource| self.former(resource) != self.latter(resource)).cloned().collect()
    }

    /// What is to be done in the target; nothing while nothing changes.
    #[must_use]
    pub fn work(&self, delays: Delays) -> Option<Work> {
        let change = self.change.as_ref()?;
        let rewrites = change.stage == Stage::Reencrypt;
        let resources = if rewrites { self.moved() } else { BTreeSet::new() };
        Some(Work { since: change.since, begins: change.since + delays.request, resources })
    }

    fn former(&self, resource: &str) -> &Writer {
        self.resources.get(resource).unwrap_or(&Writer::Identity)
    }

    fn latter(&self, resource: &str) -> &Writer {
        let writers = self.change.as_ref().map_or(&self.resources, |change| &change.to);
        writers.get(resource).unwrap_or(&Writer::Identity)
    }
}

/// What is to be done in a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Since when the change is in its stage.
    pub since: Timestamp,
    /// When the first object may be written anew: what is written with the former key after that would be missed.
    pub begins: Timestamp,
    /// The resources of which every object is to be written anew; none in the other stages.
    pub resources: BTreeSet<String>,
}

/// How long the API servers of a cluster take for what nobody can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// A request that was taken before the configuration changed may write with the former key until then.
    pub request: SignedDuration,
    /// A list or watch may read what was there before until then.
    pub history: SignedDuration,
}

#[cfg(test)]
mod tests;
