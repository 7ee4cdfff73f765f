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
pub(in crate::controllers) struct Waiting(BTreeMap<String, WaitingRequest>);

impl Waiting {
    pub(super) fn waits(&mut self, name: &str, request: WaitingRequest) {
        self.0.insert(name.to_owned(), request);
    }

    pub(super) fn settled(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn retain(&mut self, names: &BTreeSet<String>) {
        self.0.retain(|name, _| names.contains(name));
    }

    /// For each pool that declares such a node: a condition's reason and message.
    pub(super) fn by_pool(&self) -> BTreeMap<String, (String, String)> {
        let mut pools: BTreeMap<String, (String, String)> = BTreeMap::new();
        for request in self.0.values() {
            for pool in &request.pools {
                // The first by name says enough, and does not change with every other one.
                pools.entry(pool.clone()).or_insert_with(|| (request.reason.to_owned(), request.message.clone()));
            }
        }
        pools
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
        let told = |waiting: &Waiting| waiting.by_pool().get("workers").map(|(_, message)| message.clone());
        assert_eq!(told(&waiting).as_deref(), Some("first"));
        waiting.settled("a");
        assert_eq!(told(&waiting).as_deref(), Some("second"));
        waiting.settled("b");
        assert_eq!(told(&waiting), None);
    }
}
