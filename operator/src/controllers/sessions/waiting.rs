//! Requests that have waited for so long that somebody should look at them.

use std::collections::{BTreeMap, BTreeSet};

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WaitingRequest {
    pub(super) pools: BTreeSet<String>,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// All of them, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::controllers) struct Waiting {
    requests: BTreeMap<String, WaitingRequest>,
    /// Whether any has waited since this was made.
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

    /// For each pool that declares such a node: a condition's reason and message. Nothing while that is not known: who has
    /// just begun to look has seen nobody wait (`settled` says that it would have), and must not take back what was told
    /// before.
    pub(super) fn by_pool(&self, settled: bool) -> Option<BTreeMap<String, (String, String)>> {
        if !self.any && !settled {
            return None;
        }
        let mut pools: BTreeMap<String, (String, String)> = BTreeMap::new();
        for request in self.requests.values() {
            for pool in &request.pools {
                // The first by name says enough, and does not change with every other one.
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
    fn a_pool_is_told_of_one_of_its_requests_until_none_waits() {
        let request = |pool: &str, message: &str| WaitingRequest {
            pools: BTreeSet::from([pool.to_owned()]),
            reason: "NodeNotFound",
            message: message.to_owned(),
        };
        let mut waiting = Waiting::default();
        waiting.waits("b", request("workers", "second"));
        waiting.waits("a", request("workers", "first"));
        let told = |waiting: &Waiting| {
            waiting.by_pool(false).and_then(|pools| pools.get("workers").map(|(_, message)| message.clone()))
        };
        assert_eq!(told(&waiting).as_deref(), Some("first"));
        waiting.settled("a");
        assert_eq!(told(&waiting).as_deref(), Some("second"));
        waiting.settled("b");
        assert_eq!(told(&waiting), None);
        // The end of a wait is told at once.
        assert_eq!(waiting.by_pool(false), Some(BTreeMap::new()));
    }

    #[test]
    fn that_nothing_waits_is_not_told_before_it_would_have_shown() {
        let waiting = Waiting::default();
        assert_eq!(waiting.by_pool(false), None);
        assert_eq!(waiting.by_pool(true), Some(BTreeMap::new()));
    }
}
