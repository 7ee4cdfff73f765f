//! Writes verdicts, and tells of them: in the request's condition, in Events, in the log and in the metrics.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::watched::WatchedRequest;
use crate::metrics::Metrics;
use keyplane_client::FIELD_MANAGER;
use keyplane_client::events::Events;
use keyplane_core::approval::{Judgement, Signer, SigningRequest, Turn, Verdict};

/// After so many waits, which is about half a minute, a wait is no longer a matter of order and deserves an Event.
pub(super) const LASTING_WAITS: u32 = 6;

/// Whose requests are judged, and where it is told.
#[derive(Debug, Clone)]
pub(in crate::controllers) struct Place {
    /// Namespace and name of the ClusterSpec or of the policy, for metrics.
    pub(in crate::controllers) labels: [String; 2],
    /// What the policy is called in messages.
    pub(in crate::controllers) policy: String,
    /// What Events are about; nothing means the request itself.
    pub(in crate::controllers) about: Option<ObjectReference>,
}

/// A request and what is to become of it.
pub(super) struct Judged {
    pub(super) turn: Turn,
    pub(super) judgement: Judgement,
    pub(super) tell: bool,
}

/// What became of a verdict.
pub(super) enum Outcome {
    /// It is written, or there was nothing to write.
    Done,
    /// The request has changed since it was judged; this is what is there now, if it has no verdict.
    Outdated(Option<Box<SigningRequest>>),
    /// It could not be written.
    Failed,
}

/// Where verdicts are written to.
pub(super) struct Verdicts {
    pub(super) api: Api<WatchedRequest>,
    pub(super) place: Place,
    pub(super) events: Events,
    pub(super) metrics: Metrics,
}

impl Verdicts {
    /// Writes the verdict, and tells of it.
    pub(super) async fn settle(&self, judged: &Judged) -> Outcome {
        let Judged { turn, judgement, tell } = judged;
        let condition = match judgement.verdict {
            Verdict::Approve => "Approved",
            Verdict::Deny => "Denied",
            Verdict::Wait => {
                self.tell_of_wait(turn, judgement).await;
                return Outcome::Done;
            }
            Verdict::Ignore => {
                self.count(&turn.request, judgement);
                self.tell(turn, judgement, *tell).await;
                return Outcome::Done;
            }
        };
        if judgement.dry_run {
            if turn.told != Some(judgement.reason) {
                self.count(&turn.request, judgement);
                self.tell(turn, judgement, *tell).await;
            }
            return Outcome::Done;
        }
        match self.write(&turn.request, condition, judgement).await {
            Ok(true) => {
                self.count(&turn.request, judgement);
                self.tell(turn, judgement, *tell).await;
                Outcome::Done
            }
            // The watch may have brought the change already, so it is fetched.
            Ok(false) => match self.api.get_opt(&turn.request.name).await {
                Ok(found) => {
                    let found = found.and_then(|found| found.request.ok()).map(Box::new);
                    Outcome::Outdated(found.filter(|found| !found.settled))
                }
                Err(_) => Outcome::Failed,
            },
            Err(error) => {
                tracing::warn!(request = turn.request.name, %error, "the verdict could not be written");
                Outcome::Failed
            }
        }
    }

    /// Writes a verdict on the very version of the request that was judged; tells whether it was still that one.
    async fn write(
        &self,
        request: &SigningRequest,
        condition: &str,
        judgement: &Judgement,
    ) -> Result<bool, kube::Error> {
        let patch = json!({
            "metadata": {"resourceVersion": request.resource_version, "uid": request.uid},
            "status": {"conditions": [{
                "type": condition,
                "status": "True",
                "reason": judgement.reason,
                "message": judgement.sentence(&self.place.policy),
            }]},
        });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match self.api.patch_subresource("approval", &request.name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn count(&self, request: &SigningRequest, judgement: &Judgement) {
        let signer = request.signer().map_or("other", Signer::name);
        let dry_run = if judgement.dry_run { "true" } else { "false" };
        let labels = [signer, judgement.verdict.name(), judgement.reason, dry_run];
        self.metrics.csr_decisions.with_label_values(&labels).inc();
        if let (Verdict::Approve | Verdict::Deny, Some(created)) = (judgement.verdict, request.created) {
            // The API server's time has whole seconds and a clock of its own.
            let seconds = Timestamp::now().duration_since(created).as_secs_f64().max(0.0);
            self.metrics.csr_decision_seconds.with_label_values(&[signer]).observe(seconds);
        }
    }

    async fn tell_of_wait(&self, turn: &Turn, judgement: &Judgement) {
        if turn.told != Some(judgement.reason) {
            self.count(&turn.request, judgement);
            self.log(turn, judgement);
        }
        if turn.waits + 1 == LASTING_WAITS {
            self.warn(turn, judgement, "Wait").await;
        }
    }

    async fn tell(&self, turn: &Turn, judgement: &Judgement, tell: bool) {
        self.log(turn, judgement);
        match judgement.verdict {
            Verdict::Approve if tell => {
                let (about, request) = self.about(&turn.request);
                let note = self.note(turn, judgement);
                self.events.normal_about(&about, request, judgement.reason, "Approve", &note).await;
            }
            Verdict::Deny => self.warn(turn, judgement, "Deny").await,
            Verdict::Ignore if judgement.violation => self.warn(turn, judgement, "Ignore").await,
            // It has waited until the policy's limit.
            Verdict::Ignore if turn.waits > 0 => self.warn(turn, judgement, "GiveUp").await,
            Verdict::Approve | Verdict::Wait | Verdict::Ignore => {}
        }
    }

    async fn warn(&self, turn: &Turn, judgement: &Judgement, action: &str) {
        let (about, request) = self.about(&turn.request);
        let note = self.note(turn, judgement);
        self.events.warning_about(&about, request, judgement.reason, action, &note).await;
    }

    fn note(&self, turn: &Turn, judgement: &Judgement) -> String {
        let sentence = judgement.sentence(&self.place.policy);
        format!("{} of {}: {sentence}", turn.request.name, turn.request.username)
    }

    /// What an Event is about; and the request, if that is something else.
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

    fn log(&self, turn: &Turn, judgement: &Judgement) {
        tracing::info!(
            cluster = self.place.labels.join("/"),
            request = turn.request.name,
            user = turn.request.username,
            signer = turn.request.signer_name,
            verdict = judgement.verdict.name(),
            rule = judgement.rule,
            reason = judgement.reason,
            policy = self.place.policy,
            dry_run = judgement.dry_run,
            message = judgement.message,
            "request judged"
        );
    }
}
