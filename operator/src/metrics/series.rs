//! A gauge whose series come and go with what a cluster has at the moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{IntGaugeVec, Opts, Registry};

/// The labels of a series, without those of the cluster.
type Labels = Vec<String>;
/// Which there are, by namespace and name.
type ByCluster = BTreeMap<(String, String), BTreeSet<Labels>>;

/// A gauge with the labels `namespace` and `cluster`, and others. A series that a cluster no longer has is taken away, as
/// a certificate that is gone would else seem to end one day.
#[derive(Clone)]
pub(super) struct Series {
    gauge: IntGaugeVec,
    there: Arc<Mutex<ByCluster>>,
}

impl Series {
    pub(super) fn new(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<Self, prometheus::Error> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), &[&["namespace", "cluster"], labels].concat())?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(Self { gauge, there: Arc::default() })
    }

    /// These are the cluster's series now.
    pub(super) fn set(&self, namespace: &str, cluster: &str, series: impl IntoIterator<Item = (Labels, i64)>) {
        let all = |labels: &Labels| {
            [namespace, cluster].into_iter().chain(labels.iter().map(String::as_str)).map(str::to_owned).collect()
        };
        let mut there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = BTreeSet::new();
        for (labels, value) in series {
            let all: Vec<String> = all(&labels);
            self.gauge.with_label_values(&all).set(value);
            now.insert(labels);
        }
        let key = (namespace.to_owned(), cluster.to_owned());
        let before = there.remove(&key).unwrap_or_default();
        for labels in before.difference(&now) {
            let all: Vec<String> = all(labels);
            // That there is none to take away is no error.
            let _ = self.gauge.remove_label_values(&all);
        }
        if !now.is_empty() {
            there.insert(key, now);
        }
    }

    /// Forgets a cluster that is gone.
    pub(super) fn forget(&self, namespace: &str, cluster: &str) {
        self.set(namespace, cluster, []);
    }
}
