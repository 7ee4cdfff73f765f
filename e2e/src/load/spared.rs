//! Machines of which nothing is expected for a while, because a test has switched them off or cut them off.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

/// Their names, which all clients share.
#[derive(Clone, Debug, Default)]
pub(super) struct Spared(Arc<RwLock<BTreeSet<String>>>);

impl Spared {
    pub(super) fn set(&self, machine: &str, spared: bool) {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if spared {
            names.insert(machine.to_owned());
        } else {
            names.remove(machine);
        }
    }

    pub(super) fn has(&self, machine: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(machine)
    }
}
