//! Encryption at rest in a target cluster, and its changes while the cluster runs: pure functions.
//!
//! An API server can read objects for which it has the key, and writes with the first of its keys. So a new key is
//! first added to every API server, then put first, and an old key is removed only after no object needs it. No
//! encryption counts as a key too. Turning encryption on, changing the key, the provider or the resources, and turning
//! encryption off are all the same change.
//!
//! | Stage | The keys of an API server | The stage ends when |
//! |---|---|---|
//! | `Publish` | old, new | every API server has loaded it |
//! | `Write` | new, old | every API server has loaded it |
//! | `Reencrypt` | new, old | every object is re-encrypted |
//! | `Settle` | new, old | etcd has compacted the revisions from before |
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
pub use decision::{EncryptionInputs, Settings, Wanted, decide, next_time};
pub use proof::{CONFIGURATION_METRIC, Facts, Reencryption, configuration_hash, loaded_configuration};
pub use report::{ROTATION, describe, event_reason, rotation, waits};

/// The encryption of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Writer {
    /// No encryption.
    Identity,
    /// Encryption with the key of this name.
    Key(String),
}

/// The metadata of a key, without the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// The name, which is the prefix of every object encrypted with the key.
    pub name: String,
    /// The provider.
    pub provider: EncryptionProvider,
    /// The time of its creation.
    pub created: Timestamp,
    /// The time since which only backups need the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<Timestamp>,
}

/// The stages of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// Every API server gets the new key for reading.
    Publish,
    /// Every API server starts to write with the new key.
    Write,
    /// Existing objects are re-encrypted.
    Reencrypt,
    /// Reads of older revisions still need the old key.
    Settle,
    /// The old key is removed from every API server.
    Drop,
}

impl Stage {
    /// Returns the name of the stage.
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

/// The progress of the re-encryption.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// The resources that are completely re-encrypted.
    pub done: BTreeSet<String>,
    /// The last re-encrypted object in the order of the API's list: its resource, and `namespace/name` or its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<(String, String)>,
    /// The number of re-encrypted objects.
    pub objects: u64,
}

/// A change in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The desired encryption of each resource. A missing resource is not to be encrypted.
    pub to: BTreeMap<String, Writer>,
    /// The stage.
    pub stage: Stage,
    /// The start time.
    pub started: Timestamp,
    /// The start time of the stage.
    pub since: Timestamp,
    /// The value of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
    /// Whether the change rolls back another one.
    #[serde(default)]
    pub rolling_back: bool,
    /// The progress of the re-encryption in this stage.
    #[serde(default)]
    pub progress: Progress,
}

/// The last completed change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Completed {
    /// The value of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
    /// Whether the change was rolled back.
    #[serde(default)]
    pub rolled_back: bool,
    /// The start time.
    pub started: Timestamp,
    /// The time of completion.
    pub ended: Timestamp,
}

/// The stored state, without the keys themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The number of keys ever generated, so that no name is used twice.
    pub made: u32,
    /// The keys, oldest first.
    pub keys: Vec<Key>,
    /// The encryption of each resource before the change in progress, or the current encryption without a change. A
    /// missing resource is not encrypted.
    pub resources: BTreeMap<String, Writer>,
    /// The change in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// The last completed change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<Completed>,
}

impl State {
    /// Returns whether API servers need the configuration because objects are, or may be, encrypted.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.change.is_some() || !self.resources.is_empty()
    }

    /// Returns the current key, or the new key during a change.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        let writers = self.change.as_ref().map_or(&self.resources, |change| &change.to);
        let name =
            writers.values().find_map(|writer| if let Writer::Key(name) = writer { Some(name) } else { None })?;
        self.keys.iter().find(|key| key.name == *name)
    }

    /// Returns the resources whose key changes.
    #[must_use]
    pub fn changed_resources(&self) -> BTreeSet<String> {
        let Some(change) = &self.change else { return BTreeSet::new() };
        let both = self.resources.keys().chain(change.to.keys());
        both.filter(|resource| self.previous_writer(resource) != self.next_writer(resource)).cloned().collect()
    }

    /// Returns the work in the target cluster; `None` without a change.
    #[must_use]
    pub fn work(&self, delays: Delays) -> Option<Work> {
        let change = self.change.as_ref()?;
        let reencrypts = change.stage == Stage::Reencrypt;
        let resources = if reencrypts { self.changed_resources() } else { BTreeSet::new() };
        Some(Work { since: change.since, begins: change.since + delays.request, resources })
    }

    fn previous_writer(&self, resource: &str) -> &Writer {
        self.resources.get(resource).unwrap_or(&Writer::Identity)
    }

    fn next_writer(&self, resource: &str) -> &Writer {
        let writers = self.change.as_ref().map_or(&self.resources, |change| &change.to);
        writers.get(resource).unwrap_or(&Writer::Identity)
    }
}

/// The work in a target cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The start time of the stage.
    pub since: Timestamp,
    /// The time from which objects may be re-encrypted. Writes with the old key after that time would be missed.
    pub begins: Timestamp,
    /// The resources to re-encrypt; none in the other stages.
    pub resources: BTreeSet<String>,
}

/// The delays of API servers that can't be observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// The time for which a request from before a reload may still write with the old key.
    pub request: SignedDuration,
    /// The time for which a list or watch may still read older revisions.
    pub history: SignedDuration,
}

#[cfg(test)]
mod tests;
