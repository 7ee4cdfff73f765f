//! What Keyplane counts. Labels have few values: never a name that somebody else chose, save the clusters' own.

mod of_status;
mod series;

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{ClusterSpecStatus, condition_of};
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use of_status::OfStatus;

/// The counters and gauges.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Reconciliations by kind and result.
    pub reconciliations: IntCounterVec,
    /// How long they took, in seconds, by kind.
    pub reconcile_seconds: HistogramVec,
    /// Objects written, by kind.
    pub writes: IntCounterVec,
    /// Kubelet CSRs judged, by signer, verdict, reason and whether it was a dry run.
    pub csr_decisions: IntCounterVec,
    /// How long they took from their creation to the verdict, in seconds, by signer.
    pub csr_decision_seconds: HistogramVec,
    /// Kubelet CSRs without a verdict, by cluster.
    pub csr_pending: IntGaugeVec,
    /// When the oldest of them was made, in seconds since 1970, by cluster; 0 without any.
    pub csr_oldest_pending: IntGaugeVec,
    /// The earliest end of a certificate, in seconds since 1970, by cluster.
    certificate_not_after: IntGaugeVec,
    /// Whether a cluster is Ready, by cluster.
    cluster_ready: IntGaugeVec,
    /// 1 while this replica holds the Lease.
    pub leading: IntGauge,
    of_status: OfStatus,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Errors
    /// If a name is there twice, which a test would have seen.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let cluster = &["namespace", "cluster"];
        let reconciliations =
            counter("keyplane_reconciliations_total", "Reconciliations, by kind and result.", &["kind", "result"])?;
        let writes = counter("keyplane_writes_total", "Objects written, by kind.", &["kind"])?;
        let csr_decisions = counter(
            "keyplane_csr_decisions_total",
            "Kubelet certificate signing requests judged, by signer, verdict and reason; a dry run writes no verdict.",
            &["signer", "verdict", "reason", "dry_run"],
        )?;
        let csr_decision_seconds = HistogramVec::new(
            HistogramOpts::new(
                "keyplane_csr_decision_seconds",
                "How long a kubelet's request took from its creation to the verdict, by signer.",
            )
            // A creation time has whole seconds; a kubelet waits for a quarter of an hour.
            .buckets(vec![0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0]),
            &["signer"],
        )?;
        registry.register(Box::new(csr_decision_seconds.clone()))?;
        let csr_pending =
            gauge("keyplane_csr_pending", "Kubelet certificate signing requests without a verdict.", cluster)?;
        let csr_oldest_pending = gauge(
            "keyplane_csr_oldest_pending_timestamp_seconds",
            "When the oldest of the pending requests was made, in seconds since 1970; 0 without any.",
            cluster,
        )?;
        let certificate_not_after = gauge(
            "keyplane_certificate_not_after_seconds",
            "The earliest end of a certificate of the cluster, in seconds since 1970.",
            cluster,
        )?;
        let cluster_ready = gauge("keyplane_cluster_ready", "1 while the ClusterSpec is Ready.", cluster)?;
        let leading = IntGauge::new("keyplane_leading", "1 while this replica holds the Lease.")?;
        registry.register(Box::new(leading.clone()))?;
        let reconcile_seconds = HistogramVec::new(
            HistogramOpts::new("keyplane_reconcile_seconds", "How long a reconciliation took, by kind.")
                .buckets(vec![0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0]),
            &["kind"],
        )?;
        registry.register(Box::new(reconcile_seconds.clone()))?;
        let of_status = OfStatus::new(&registry)?;
        Ok(Self {
            registry,
            reconciliations,
            reconcile_seconds,
            writes,
            csr_decisions,
            csr_decision_seconds,
            csr_pending,
            csr_oldest_pending,
            certificate_not_after,
            cluster_ready,
            leading,
            of_status,
        })
    }

    /// What the status of a cluster says now.
    pub fn tell(&self, namespace: &str, cluster: &str, status: &ClusterSpecStatus, now: Timestamp) {
        let labels = &[namespace, cluster];
        let ready = condition_of(&status.conditions, "Ready").is_some_and(|condition| condition.status == "True");
        self.cluster_ready.with_label_values(labels).set(i64::from(ready));
        if let Some(end) = &status.certificates_expire {
            self.certificate_not_after.with_label_values(labels).set(end.0.as_second());
        }
        self.of_status.tell(namespace, cluster, status, now);
    }

    /// Forgets a cluster that is gone.
    pub fn forget(&self, namespace: &str, cluster: &str) {
        for gauge in [&self.csr_pending, &self.csr_oldest_pending, &self.certificate_not_after, &self.cluster_ready] {
            // That there is none to forget is no error.
            let _ = gauge.remove_label_values(&[namespace, cluster]);
        }
        self.of_status.forget(namespace, cluster);
    }

    /// The text that Prometheus reads.
    #[must_use]
    pub fn text(&self) -> String {
        let mut buffer = vec![];
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut buffer) {
            tracing::warn!(%error, "metrics could not be written");
        }
        String::from_utf8_lossy(&buffer).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_name_of_its_own_and_a_forgotten_cluster_is_gone() {
        let metrics = Metrics::new().unwrap();
        metrics.cluster_ready.with_label_values(&["default", "demo"]).set(1);
        assert!(metrics.text().contains("keyplane_cluster_ready{cluster=\"demo\",namespace=\"default\"} 1"));
        metrics.forget("default", "demo");
        assert!(!metrics.text().contains("demo"));
    }
}
