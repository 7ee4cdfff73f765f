//! Gauges that derive from a cluster's status: the expiry of its certificates and the progress of its rotations.

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{ClusterSpecStatus, RotationPhase, RotationStatus};
use prometheus::Registry;

use super::series::Series;
use keyplane_core::status::is_stuck;

#[derive(Clone)]
pub(super) struct ClusterStatusMetrics {
    certificate_expiry: Series,
    signing_request_since: Series,
    rotation_stage_since: Series,
    rotation_stuck: Series,
    rotation_last_duration: Series,
    rotation_completed: Series,
}

impl ClusterStatusMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let series = |name, help, labels: &[&str]| Series::new(registry, name, help, labels);
        Ok(Self {
            certificate_expiry: series(
                "keyplane_certificate_expiry_timestamp_seconds",
                "The expiry of a certificate, in seconds since 1970; node is empty for a certificate of no node.",
                &["certificate", "node"],
            )?,
            signing_request_since: series(
                "keyplane_signing_request_since_timestamp_seconds",
                "Time since when a certificate waits for an external signer, in seconds since 1970; refused is true if \
                 the signer's certificate does not match the request.",
                &["certificate", "node", "authority", "refused"],
            )?,
            rotation_stage_since: series(
                "keyplane_rotation_stage_since_timestamp_seconds",
                "Time at which a rotation in progress entered its phase and stage, in seconds since 1970.",
                &["name", "phase", "stage"],
            )?,
            rotation_stuck: series(
                "keyplane_rotation_stuck",
                "1 while a rotation has made no progress for longer than a stage takes, and does not wait for approval.",
                &["name"],
            )?,
            rotation_last_duration: series(
                "keyplane_rotation_last_duration_seconds",
                "Duration of the last completed rotation, also if it was rolled back.",
                &["name"],
            )?,
            rotation_completed: series(
                "keyplane_rotation_completed_timestamp_seconds",
                "Time at which the last rotation completed, in seconds since 1970, also if it was rolled back.",
                &["name"],
            )?,
        })
    }

    fn all(&self) -> [&Series; 6] {
        [
            &self.certificate_expiry,
            &self.signing_request_since,
            &self.rotation_stage_since,
            &self.rotation_stuck,
            &self.rotation_last_duration,
            &self.rotation_completed,
        ]
    }

    pub(super) fn record(&self, namespace: &str, cluster: &str, status: &ClusterSpecStatus, now: Timestamp) {
        let expiries = status.certificates.iter().map(|certificate| {
            let node = certificate.node.clone().unwrap_or_default();
            (vec![certificate.name.clone(), node], certificate.not_after.0.as_second())
        });
        self.certificate_expiry.set(namespace, cluster, expiries);
        let waiting = status.signing_requests.iter().map(|request| {
            let node = request.node.clone().unwrap_or_default();
            let rejected = request.rejection.is_some().to_string();
            let labels = vec![request.certificate.clone(), node, request.issuer.clone(), rejected];
            (labels, request.request_time.0.as_second())
        });
        self.signing_request_since.set(namespace, cluster, waiting);
        let (done, in_progress): (Vec<&RotationStatus>, Vec<_>) =
            status.rotations.iter().partition(|rotation| rotation.phase == RotationPhase::Completed);
        let since = in_progress.iter().map(|rotation| {
            let stage = rotation.stage.clone().unwrap_or_default();
            let labels = vec![rotation.name.clone(), rotation.phase.name().to_owned(), stage];
            (labels, rotation.last_transition_time.0.as_second())
        });
        self.rotation_stage_since.set(namespace, cluster, since);
        let stuck = status.rotations.iter();
        let stuck = stuck.map(|rotation| (vec![rotation.name.clone()], i64::from(is_stuck(rotation, now))));
        self.rotation_stuck.set(namespace, cluster, stuck);
        let durations = done.iter().map(|rotation| {
            let taken = rotation.last_transition_time.0.duration_since(rotation.start_time.0);
            (vec![rotation.name.clone()], taken.as_secs())
        });
        self.rotation_last_duration.set(namespace, cluster, durations);
        let ended =
            done.iter().map(|rotation| (vec![rotation.name.clone()], rotation.last_transition_time.0.as_second()));
        self.rotation_completed.set(namespace, cluster, ended);
    }

    pub(super) fn forget(&self, namespace: &str, cluster: &str) {
        self.all().into_iter().for_each(|series| series.forget(namespace, cluster));
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use keyplane_crds::CertificateStatus;

    use super::super::Metrics;
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(minutes * 60).unwrap()
    }

    fn certificate(name: &str, node: Option<&str>) -> CertificateStatus {
        CertificateStatus {
            name: name.to_owned(),
            node: node.map(str::to_owned),
            issuer: "ca".to_owned(),
            serial: String::new(),
            not_after: Time(at(100)),
            renewal_time: Time(at(70)),
        }
    }

    fn rotation(stage: Option<&str>, phase: RotationPhase, since: i64) -> RotationStatus {
        RotationStatus {
            name: "etcd-ca".to_owned(),
            requested: None,
            phase,
            stage: stage.map(str::to_owned),
            rolling_back: false,
            start_time: Time(at(10)),
            last_transition_time: Time(at(since)),
            nodes_updated_time: None,
            waiting_for: vec![],
        }
    }

    #[test]
    fn removes_series_of_objects_missing_from_the_status() {
        let metrics = Metrics::new().unwrap();
        let record = |certificates: Vec<CertificateStatus>, rotation: RotationStatus, now| {
            let status = ClusterSpecStatus { certificates, rotations: vec![rotation], ..ClusterSpecStatus::default() };
            metrics.record_status("default", "demo", &status, now);
            metrics.text()
        };
        let started = rotation(Some("Trust"), RotationPhase::Preparing, 10);
        let both = vec![certificate("ca", None), certificate("apiserver", Some("cp1"))];
        let text = record(both, started, at(41));
        let has = |text: &str, line: &str| text.lines().any(|found| found == line);
        let labels = r#"cluster="demo",name="etcd-ca",namespace="default""#;
        let trust = format!(
            "keyplane_rotation_stage_since_timestamp_seconds{{{labels},phase=\"Preparing\",stage=\"Trust\"}} 600"
        );
        assert!(has(&text, &trust), "{text}");
        assert!(has(&text, &format!("keyplane_rotation_stuck{{{labels}}} 1")), "{text}");
        assert!(!text.contains("keyplane_rotation_last_duration_seconds"), "{text}");
        let end = r#"certificate="apiserver",cluster="demo",namespace="default",node="cp1""#;
        assert!(has(&text, &format!("keyplane_certificate_expiry_timestamp_seconds{{{end}}} 6000")), "{text}");

        let text = record(vec![certificate("ca", None)], rotation(None, RotationPhase::Completed, 50), at(90));
        assert!(!text.contains("Trust") && !text.contains("apiserver"), "{text}");
        assert!(has(&text, &format!("keyplane_rotation_stuck{{{labels}}} 0")), "{text}");
        assert!(has(&text, &format!("keyplane_rotation_last_duration_seconds{{{labels}}} 2400")), "{text}");
        assert!(has(&text, &format!("keyplane_rotation_completed_timestamp_seconds{{{labels}}} 3000")), "{text}");

        metrics.forget("default", "demo");
        assert!(!metrics.text().contains("demo"));
    }
}
