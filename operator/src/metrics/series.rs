//! A gauge whose series follow a changing set of objects of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{IntGaugeVec, Opts, Registry};

/// Label values of a series, without those of the cluster.
type Labels = Vec<String>;
/// Existing series, by namespace and name of the cluster.
type ByCluster = BTreeMap<(String, String), BTreeSet<Labels>>;

/// A gauge with the labels `namespace` and `cluster`, and others. Series of deleted objects are removed: otherwise a
/// deleted certificate would still seem to expire one day.
#[derive(Clone)]
pub(super) struct Series {
    gauge: IntGaugeVec,
    existing: Arc<Mutex<ByCluster>>,
}

impl Series {
    pub(super) fn new(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<Self, prometheus::Error> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), &[&["namespace", "cluster"], labels].concat())?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(Self { gauge, existing: Arc::default() })
    }

    /// Replaces all series of the cluster.
    pub(super) fn set(&self, namespace: &str, cluster: &str, series: impl IntoIterator<Item = (Labels, i64)>) {
        let all = |labels: &Labels| {
            [namespace, cluster].into_iter().chain(labels.iter().map(String::as_str)).map(str::to_owned).collect()
        };
        let mut existing = self.existing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = BTreeSet::new();
        for (labels, value) in series {
            let all: Vec<String> = all(&labels);
            self.gauge.with_label_values(&all).set(value);
            now.insert(labels);
        }
        let key = (namespace.to_owned(), cluster.to_owned());
        let before = existing.remove(&key).unwrap_or_default();
        for labels in before.difference(&now) {
            let all: Vec<String> = all(labels);
            // A series that does not exist is no error.
            let _ = self.gauge.remove_label_values(&all);
        }
        if !now.is_empty() {
            existing.insert(key, now);
        }
    }

    /// Removes the series of a deleted cluster.
    pub(super) fn forget(&self, namespace: &str, cluster: &str) {
        self.set(namespace, cluster, []);
    }
}
