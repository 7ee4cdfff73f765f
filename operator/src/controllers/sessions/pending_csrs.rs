//! CSRs that have waited so long that the condition of their NodePool reports them.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WaitingRequest {
    pub(super) pools: BTreeSet<String>,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// The waiting CSRs, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::controllers) struct Waiting {
    requests: BTreeMap<String, WaitingRequest>,
    /// Whether any CSR has waited since the start of the session.
    any: bool,
}

impl Waiting {
    pub(super) fn waits(&mut self, name: &str, request: WaitingRequest) {
        self.requests.insert(name.to_owned(), request);
        self.any = true;
    }

    pub(super) fn settled(&mut self, name: &str) {
        self.requests.remove(name);
    }

    pub(super) fn retain(&mut self, names: &BTreeSet<String>) {
        self.requests.retain(|name, _| names.contains(name));
    }

    /// Returns the reason and message of the condition of each pool with a waiting CSR. Returns `None` while the state
    /// is unknown: a new session has not seen waiting CSRs yet, unless it is `settled`, and must not clear the
    /// condition of the previous session.
    pub(super) fn by_pool(&self, settled: bool) -> Option<BTreeMap<String, (String, String)>> {
        if !self.any && !settled {
            return None;
        }
        let mut pools: BTreeMap<String, (String, String)> = BTreeMap::new();
        for request in self.requests.values() {
            for pool in &request.pools {
                // The first CSR by name is enough, and the message does not change with every other CSR.
                pools.entry(pool.clone()).or_insert_with(|| (request.reason.to_owned(), request.message.clone()));
            }
        }
        Some(pools)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_one_waiting_csr_per_pool_until_none_waits() {
        let request = |pool: &str, message: &str| WaitingRequest {
            pools: BTreeSet::from([pool.to_owned()]),
            reason: "NodeNotFound",
            message: message.to_owned(),
        };
        let mut waiting = Waiting::default();
        waiting.waits("b", request("workers", "second"));
        waiting.waits("a", request("workers", "first"));
        let reported = |waiting: &Waiting| {
            waiting.by_pool(false).and_then(|pools| pools.get("workers").map(|(_, message)| message.clone()))
        };
        assert_eq!(reported(&waiting).as_deref(), Some("first"));
        waiting.settled("a");
        assert_eq!(reported(&waiting).as_deref(), Some("second"));
        waiting.settled("b");
        assert_eq!(reported(&waiting), None);
        // The end of a wait is reported at once.
        assert_eq!(waiting.by_pool(false), Some(BTreeMap::new()));
    }

    #[test]
    fn reports_no_waiting_csrs_only_after_settling() {
        let waiting = Waiting::default();
        assert_eq!(waiting.by_pool(false), None);
        assert_eq!(waiting.by_pool(true), Some(BTreeMap::new()));
    }
}
