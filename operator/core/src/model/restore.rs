//! Whether a backup restores the keys of a cluster.

use std::collections::BTreeMap;

use keyplane_crds::keys;

/// The value of the annotation [`keyplane_crds::keys::RESTORE_ANNOTATION`], which decides about missing Secrets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Restore {
    /// No annotation: Keyplane generates missing Secrets, unless there is evidence that they existed before.
    #[default]
    Unspecified,
    /// A backup restores them.
    Expected,
    /// No backup restores them: Keyplane generates them even if there is evidence that they existed before.
    Abandoned,
}

impl Restore {
    pub(super) fn of(annotations: &BTreeMap<String, String>) -> Self {
        match annotations.get(keys::RESTORE_ANNOTATION).map(String::as_str) {
            Some("false") => Self::Abandoned,
            // A misspelt value must not generate keys.
            Some(_) => Self::Expected,
            None => Self::Unspecified,
        }
    }
}
