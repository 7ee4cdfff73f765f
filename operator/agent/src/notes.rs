//! The agent's notes on the node: the files that each unit was last started with, and the last restart of etcd.

use std::collections::BTreeMap;

use keyplane_core::pki::places::PKI_DIRECTORY;
use serde::{Deserialize, Serialize};

use super::files::Root;
use super::index::NodeFile;
use super::process::{self, Process};
use super::units::{KUBELET, UNITS};
use keyplane_core::agent_report::WantedRestart;
use keyplane_core::checksum::checksum;

/// File with the checksums of the files that each unit was last started with. A crash between a change and the restart
/// then loses no restart.
const NOTES: &str = "/var/lib/keyplane/node.json";
/// Value in the notes that requests a restart of the unit regardless of its files.
const RESTART_REQUESTED: &str = "restart";

/// Checksums of the files that each unit was last started with, stored on the node.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Notes {
    pub(super) units: BTreeMap<String, String>,
    /// The last requested restart of etcd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) etcd: Option<EtcdRestart>,
}

impl Notes {
    /// Loads the notes; they are empty on a new node.
    #[must_use]
    pub fn load(root: &Root) -> Self {
        let text = root.read(NOTES).ok().flatten().unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Records that units without notes were started with these files.
    ///
    /// # Errors
    /// The notes can't be saved.
    pub fn record_running(&mut self, states: &BTreeMap<String, String>, root: &Root) -> Result<(), String> {
        let missing = states.iter().any(|(unit, _)| !self.units.contains_key(unit));
        for (unit, state) in states {
            self.units.entry(unit.clone()).or_insert_with(|| state.clone());
        }
        if missing { self.save(root) } else { Ok(()) }
    }

    /// Requests a restart of the kubelet, which also survives a restart of the agent.
    ///
    /// # Errors
    /// The notes can't be saved.
    pub fn request_kubelet_restart(&mut self, root: &Root) -> Result<(), String> {
        self.units.insert(KUBELET.name.to_owned(), RESTART_REQUESTED.to_owned());
        self.save(root)
    }

    /// Returns the units that were started with other files, in restart order.
    #[must_use]
    pub fn due(&self, states: &BTreeMap<String, String>) -> Vec<&'static str> {
        let differs = |unit: &&str| states.get(*unit).is_some_and(|state| self.units.get(*unit) != Some(state));
        UNITS.iter().map(|unit| unit.name).filter(differs).collect()
    }

    /// Returns the due units that were never started with Keyplane's files: their first start is no restart.
    #[must_use]
    pub fn first_starts(&self, states: &BTreeMap<String, String>) -> Vec<&'static str> {
        self.due(states).into_iter().filter(|unit| !self.units.contains_key(*unit)).collect()
    }

    /// Returns the restart of the due units, if any. The fingerprint covers the files before and after: a return to
    /// earlier files, or a repeated restart with the same files, is a different restart.
    #[must_use]
    pub fn wanted(&self, states: &BTreeMap<String, String>) -> Option<WantedRestart> {
        let due = self.due(states);
        let changes = due.iter().filter_map(|unit| {
            let (before, after) = (self.units.get(*unit)?, states.get(*unit)?);
            Some((*unit, format!("{before} {after}")))
        });
        let changes: Vec<_> = changes.collect();
        let mark = checksum(changes.iter().map(|(unit, change)| (*unit, change.as_bytes())));
        let units: Vec<_> = changes.iter().map(|(unit, _)| (*unit).to_owned()).collect();
        (!units.is_empty()).then_some(WantedRestart { units, mark })
    }

    /// Saves the notes.
    ///
    /// # Errors
    /// The file can't be written.
    pub(super) fn save(&self, root: &Root) -> Result<(), String> {
        let content = serde_json::to_vec(self).unwrap_or_default();
        let (user, group) = ("root".to_owned(), "root".to_owned());
        let file = NodeFile { path: NOTES.to_owned(), mode: 0o600, user, group, content };
        root.write(&file).map_err(|error| format!("{NOTES}: {error}"))
    }
}

/// The last requested restart of etcd, in the agent's notes on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdRestart {
    /// The value of the restart annotation on the node's ConfigMap.
    #[serde(rename = "mark")]
    pub(super) requested: String,
    /// The process that ran when the agent first saw the request. Any other process has read the files written since.
    pub(super) before: Option<Process>,
    /// The local API server, once it was sent SIGTERM. A second SIGTERM would not let it finish running requests, but
    /// make it exit at once (`SetupSignalContext` of `k8s.io/apiserver`).
    #[serde(rename = "asked_to_end", default, skip_serializing_if = "Option::is_none")]
    pub(super) terminating: Option<Process>,
}

impl EtcdRestart {
    /// Returns the request that is completed; `None` while the former process runs, or no process runs.
    #[must_use]
    pub fn completed(&self) -> Option<&str> {
        let running = etcd();
        (running.is_some() && running != self.before).then_some(&self.requested)
    }
}

/// Returns the running etcd of the static pod.
pub(super) fn etcd() -> Option<Process> {
    process::of_static_pod("etcd", &format!("--trusted-ca-file={PKI_DIRECTORY}/etcd/ca.crt"))
}
