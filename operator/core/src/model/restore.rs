//! Whether a backup brings a cluster's keys.

use std::collections::BTreeMap;

use keyplane_crds::keys;

/// What the annotation [`keyplane_crds::keys::RESTORE_ANNOTATION`] says of Secrets that are missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Restore {
    /// Nothing: they are made, unless something shows that they were there before.
    #[default]
    Unsaid,
    /// A backup brings them.
    Expected,
    /// No backup brings them, whatever shows that they were there before.
    Renounced,
}

impl Restore {
    pub(super) fn of(annotations: &BTreeMap<String, String>) -> Self {
        match annotations.get(keys::RESTORE_ANNOTATION).map(String::as_str) {
            Some("false") => Self::Renounced,
            // A word that is misspelt must not make keys.
            Some(_) => Self::Expected,
            None => Self::Unsaid,
        }
    }
}
