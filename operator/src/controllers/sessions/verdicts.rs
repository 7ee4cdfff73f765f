//! Writes verdicts to CSRs, and records them in Events, the log and metrics.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::projections::WatchedRequest;
use crate::metrics::Metrics;
use keyplane_client::FIELD_MANAGER;
use keyplane_client::events::Events;
use keyplane_core::approval::{Evaluation, QueueEntry, Signer, SigningRequest, Verdict};

/// The number of waits, about half a minute, after which a waiting CSR leads to an Event: it is no longer only a matter
/// of ordering.
pub(super) const LASTING_WAITS: u32 = 6;

/// The policy that decides on CSRs, and the object of Events.
#[derive(Debug, Clone)]
pub(in crate::controllers) struct Place {
    /// Namespace and name of the ClusterSpec or of the policy, for metrics.
    pub(in crate::controllers) labels: [String; 2],
    /// Name of the policy in messages.
    pub(in crate::controllers) policy: String,
    /// The object of Events; `None` means the CSR itself.
    pub(in crate::controllers) about: Option<ObjectReference>,
}

/// A CSR with its verdict.
pub(super) struct EvaluatedCsr {
    pub(super) entry: QueueEntry,
    pub(super) evaluation: Evaluation,
    /// Whether an approval leads to an Event.
    pub(super) record_event: bool,
}

/// Result of writing a verdict.
pub(super) enum Outcome {
    /// The verdict is written, or there was nothing to write.
    Done,
    /// The CSR has changed since its evaluation. Contains the current CSR, if it has no verdict.
    Outdated(Option<Box<SigningRequest>>),
    /// The verdict can't be written.
    Failed,
}

/// The writer of verdicts.
pub(super) struct Verdicts {
    pub(super) api: Api<WatchedRequest>,
    pub(super) place: Place,
    pub(super) events: Events,
    pub(super) metrics: Metrics,
}

impl Verdicts {
    /// Writes the verdict, and records it.
    pub(super) async fn settle(&self, evaluated: &EvaluatedCsr) -> Outcome {
        let EvaluatedCsr { entry, evaluation, record_event } = evaluated;
        let condition = match evaluation.verdict {
            Verdict::Approve => "Approved",
            Verdict::Deny => "Denied",
            Verdict::Wait => {
                self.record_wait(entry, evaluation).await;
                return Outcome::Done;
            }
            Verdict::Ignore => {
                self.count(&entry.request, evaluation);
                self.record(entry, evaluation, *record_event).await;
                return Outcome::Done;
            }
        };
        if evaluation.dry_run {
            if entry.reported != Some(evaluation.reason) {
                self.count(&entry.request, evaluation);
                self.record(entry, evaluation, *record_event).await;
            }
            return Outcome::Done;
        }
        match self.write(&entry.request, condition, evaluation).await {
            Ok(true) => {
                self.count(&entry.request, evaluation);
                self.record(entry, evaluation, *record_event).await;
                Outcome::Done
            }
            // The watch may already have reported the change before, so the CSR is read.
            Ok(false) => match self.api.get_opt(&entry.request.name).await {
                Ok(found) => {
                    let found = found.and_then(|found| found.request.ok()).map(Box::new);
                    Outcome::Outdated(found.filter(|found| !found.settled))
                }
                Err(_) => Outcome::Failed,
            },
            Err(error) => {
                tracing::warn!(request = entry.request.name, %error, "writing the verdict failed");
                Outcome::Failed
            }
        }
    }

    /// Writes a verdict only on the evaluated version of the CSR; returns whether the version was still current.
    async fn write(
        &self,
        request: &SigningRequest,
        condition: &str,
        evaluation: &Evaluation,
    ) -> Result<bool, kube::Error> {
        let patch = json!({
            "metadata": {"resourceVersion": request.resource_version, "uid": request.uid},
            "status": {"conditions": [{
                "type": condition,
                "status": "True",
                "reason": evaluation.reason,
                "message": evaluation.sentence(&self.place.policy),
            }]},
        });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match self.api.patch_subresource("approval", &request.name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn count(&self, request: &SigningRequest, evaluation: &Evaluation) {
        let signer = request.signer().map_or("other", Signer::name);
        let dry_run = if evaluation.dry_run { "true" } else { "false" };
        let labels = [signer, evaluation.verdict.name(), evaluation.reason, dry_run];
        self.metrics.csr_decisions.with_label_values(&labels).inc();
        if let (Verdict::Approve | Verdict::Deny, Some(created)) = (evaluation.verdict, request.created) {
            // The API server's time has whole seconds, and its clock may differ.
            let seconds = Timestamp::now().duration_since(created).as_secs_f64().max(0.0);
            self.metrics.csr_decision_seconds.with_label_values(&[signer]).observe(seconds);
        }
    }

    async fn record_wait(&self, entry: &QueueEntry, evaluation: &Evaluation) {
        if entry.reported != Some(evaluation.reason) {
            self.count(&entry.request, evaluation);
            self.log(entry, evaluation);
        }
        if entry.waits + 1 == LASTING_WAITS {
            self.warn(entry, evaluation, "Wait").await;
        }
    }

    async fn record(&self, entry: &QueueEntry, evaluation: &Evaluation, record_event: bool) {
        self.log(entry, evaluation);
        match evaluation.verdict {
            Verdict::Approve if record_event => {
                let (about, request) = self.about(&entry.request);
                let note = self.note(entry, evaluation);
                self.events.normal_about(&about, request, evaluation.reason, "Approve", &note).await;
            }
            Verdict::Deny => self.warn(entry, evaluation, "Deny").await,
            Verdict::Ignore if evaluation.violation => self.warn(entry, evaluation, "Ignore").await,
            // The CSR has waited until the policy's limit.
            Verdict::Ignore if entry.waits > 0 => self.warn(entry, evaluation, "GiveUp").await,
            Verdict::Approve | Verdict::Wait | Verdict::Ignore => {}
        }
    }

    async fn warn(&self, entry: &QueueEntry, evaluation: &Evaluation, action: &str) {
        let (about, request) = self.about(&entry.request);
        let note = self.note(entry, evaluation);
        self.events.warning_about(&about, request, evaluation.reason, action, &note).await;
    }

    fn note(&self, entry: &QueueEntry, evaluation: &Evaluation) -> String {
        let sentence = evaluation.sentence(&self.place.policy);
        format!("{} of {}: {sentence}", entry.request.name, entry.request.username)
    }

    /// Returns the object of an Event, and the CSR as the related object, if it is another object.
    fn about(&self, request: &SigningRequest) -> (ObjectReference, Option<ObjectReference>) {
        let reference = ObjectReference {
            api_version: Some("certificates.k8s.io/v1".to_owned()),
            kind: Some("CertificateSigningRequest".to_owned()),
            name: Some(request.name.clone()),
            uid: Some(request.uid.clone()),
            ..ObjectReference::default()
        };
        match &self.place.about {
            Some(about) => (about.clone(), Some(reference)),
            None => (reference, None),
        }
    }

    fn log(&self, entry: &QueueEntry, evaluation: &Evaluation) {
        tracing::info!(
            cluster = self.place.labels.join("/"),
            request = entry.request.name,
            user = entry.request.username,
            signer = entry.request.signer_name,
            verdict = evaluation.verdict.name(),
            rule = evaluation.rule,
            reason = evaluation.reason,
            policy = self.place.policy,
            dry_run = evaluation.dry_run,
            message = evaluation.message,
            "CSR evaluated"
        );
    }
}
