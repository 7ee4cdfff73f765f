//! Prometheus metrics. Labels have few values: never a user-chosen name, except those of clusters and their nodes.

mod cluster_status;
mod series;

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{ClusterSpecStatus, condition_of};
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use cluster_status::ClusterStatusMetrics;

/// The counters and gauges.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Reconciliations by kind and result.
    pub reconciliations: IntCounterVec,
    /// Duration of reconciliations in seconds, by kind.
    pub reconcile_seconds: HistogramVec,
    /// Objects written, by kind.
    pub writes: IntCounterVec,
    /// Evaluated kubelet CSRs, by signer, verdict, reason and dry run.
    pub csr_decisions: IntCounterVec,
    /// Time in seconds from the creation of a kubelet CSR to its verdict, by signer.
    pub csr_decision_seconds: HistogramVec,
    /// Kubelet CSRs without a verdict, by cluster.
    pub csr_pending: IntGaugeVec,
    /// Creation time of the oldest pending kubelet CSR, in seconds since 1970, by cluster; 0 without any.
    pub csr_oldest_pending: IntGaugeVec,
    /// The earliest expiry of a certificate, in seconds since 1970, by cluster.
    certificate_not_after: IntGaugeVec,
    /// 1 while a cluster is Ready, by cluster.
    cluster_ready: IntGaugeVec,
    /// 1 while this replica holds the Lease.
    pub leading: IntGauge,
    cluster_status: ClusterStatusMetrics,
}

impl Metrics {
    /// Creates and registers all metrics.
    ///
    /// # Errors
    /// A name is registered twice, which a test would have found.
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
            "Evaluated kubelet CertificateSigningRequests, by signer, verdict and reason; a dry run writes no verdict.",
            &["signer", "verdict", "reason", "dry_run"],
        )?;
        let csr_decision_seconds = HistogramVec::new(
            HistogramOpts::new(
                "keyplane_csr_decision_seconds",
                "Time from the creation of a kubelet CertificateSigningRequest to its verdict, by signer.",
            )
            // A creation time has whole seconds. A kubelet waits for 15 minutes.
            .buckets(vec![0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0]),
            &["signer"],
        )?;
        registry.register(Box::new(csr_decision_seconds.clone()))?;
        let csr_pending =
            gauge("keyplane_csr_pending", "Kubelet CertificateSigningRequests without a verdict.", cluster)?;
        let csr_oldest_pending = gauge(
            "keyplane_csr_oldest_pending_timestamp_seconds",
            "Creation time of the oldest pending CertificateSigningRequest, in seconds since 1970; 0 without any.",
            cluster,
        )?;
        let certificate_not_after = gauge(
            "keyplane_certificate_not_after_seconds",
            "The earliest expiry of a certificate of the cluster, in seconds since 1970.",
            cluster,
        )?;
        let cluster_ready = gauge("keyplane_cluster_ready", "1 while the ClusterSpec is Ready.", cluster)?;
        let leading = IntGauge::new("keyplane_leading", "1 while this replica holds the Lease.")?;
        registry.register(Box::new(leading.clone()))?;
        let reconcile_seconds = HistogramVec::new(
            HistogramOpts::new("keyplane_reconcile_seconds", "Duration of reconciliations, by kind.")
                .buckets(vec![0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0]),
            &["kind"],
        )?;
        registry.register(Box::new(reconcile_seconds.clone()))?;
        let cluster_status = ClusterStatusMetrics::new(&registry)?;
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
            cluster_status,
        })
    }

    /// Sets the gauges that derive from a cluster's status.
    pub fn record_status(&self, namespace: &str, cluster: &str, status: &ClusterSpecStatus, now: Timestamp) {
        let labels = &[namespace, cluster];
        let ready = condition_of(&status.conditions, "Ready").is_some_and(|condition| condition.status == "True");
        self.cluster_ready.with_label_values(labels).set(i64::from(ready));
        if let Some(end) = &status.certificates_expire {
            self.certificate_not_after.with_label_values(labels).set(end.0.as_second());
        }
        self.cluster_status.record(namespace, cluster, status, now);
    }

    /// Removes the series of a deleted cluster.
    pub fn forget(&self, namespace: &str, cluster: &str) {
        for gauge in [&self.csr_pending, &self.csr_oldest_pending, &self.certificate_not_after, &self.cluster_ready] {
            // A series that does not exist is no error.
            let _ = gauge.remove_label_values(&[namespace, cluster]);
        }
        self.cluster_status.forget(namespace, cluster);
    }

    /// Renders the metrics in the text format of Prometheus.
    #[must_use]
    pub fn text(&self) -> String {
        let mut buffer = vec![];
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut buffer) {
            tracing::warn!(%error, "encoding the metrics failed");
        }
        String::from_utf8_lossy(&buffer).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_unique_names_and_removes_series_of_deleted_cluster() {
        let metrics = Metrics::new().unwrap();
        metrics.cluster_ready.with_label_values(&["default", "demo"]).set(1);
        assert!(metrics.text().contains("keyplane_cluster_ready{cluster=\"demo\",namespace=\"default\"} 1"));
        metrics.forget("default", "demo");
        assert!(!metrics.text().contains("demo"));
    }
}
