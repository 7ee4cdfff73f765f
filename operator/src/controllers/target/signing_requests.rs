//! Judges a target's kubelet requests and writes the verdicts. The judging itself is [`crate::approval`]'s.

use std::collections::BTreeMap;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::{Client, ResourceExt};
use serde_json::json;

use super::Brief;
use crate::approval::{Declaration, Facts, Judgement, NodeFacts, Reserved, SigningRequest, Verdict, judge};
use crate::kube::FIELD_MANAGER;
use crate::kube::backoff;
use crate::kube::events::Events;
use crate::metrics::Metrics;

/// After so many waits, which is about half a minute, a wait is no longer a matter of order and deserves an Event.
const LASTING_WAITS: u32 = 6;

/// The requests that have no verdict yet.
pub(super) struct SigningRequests<'a> {
    api: Api<CertificateSigningRequest>,
    brief: &'a Brief,
    events: Events,
    metrics: Metrics,
    nodes: BTreeMap<String, NodeFacts>,
    reserved: Reserved,
    pending: BTreeMap<String, Pending>,
}

struct Pending {
    request: SigningRequest,
    /// How often it was judged to wait.
    waits: u32,
    due: Option<Timestamp>,
    /// What was last told about it, so that it is told once.
    told: Option<&'static str>,
}

impl<'a> SigningRequests<'a> {
    pub(super) fn new(client: Client, brief: &'a Brief, events: Events, metrics: Metrics) -> Self {
        let reserved = Reserved::of(&brief.cluster.spec, &brief.pools, &[]);
        Self {
            api: Api::all(client),
            brief,
            events,
            metrics,
            nodes: BTreeMap::new(),
            reserved,
            pending: BTreeMap::new(),
        }
    }

    /// A request was made or has changed.
    pub(super) fn seen(&mut self, request: &DeserializeGuard<CertificateSigningRequest>) {
        let name = request.name_any();
        match &request.0 {
            Ok(request) => {
                let request = SigningRequest::from(request);
                if request.settled {
                    self.gone(&name);
                } else {
                    let (waits, told) = self.pending.get(&name).map_or((0, None), |known| (known.waits, known.told));
                    self.pending.insert(name, Pending { request, waits, due: None, told });
                }
            }
            Err(error) => {
                tracing::warn!(request = name, %error, "a request that can't be read is left alone");
                self.gone(&name);
            }
        }
    }

    /// A request is no longer there.
    pub(super) fn gone(&mut self, name: &str) {
        self.pending.remove(name);
    }

    /// The requests are listed anew.
    pub(super) fn forget_all(&mut self) {
        self.pending.clear();
    }

    /// Nodes have changed: what waits for one is judged again at once.
    pub(super) fn nodes_changed(&mut self, nodes: BTreeMap<String, NodeFacts>) {
        if nodes == self.nodes {
            return;
        }
        let facts: Vec<_> = nodes.values().cloned().collect();
        self.reserved = Reserved::of(&self.brief.cluster.spec, &self.brief.pools, &facts);
        self.nodes = nodes;
        for pending in self.pending.values_mut() {
            pending.due = None;
        }
    }

    /// Judges what is due.
    pub(super) async fn work(&mut self, now: Timestamp) {
        let due: Vec<_> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.due.is_none_or(|due| due <= now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            if let Some(pending) = self.pending.remove(&name)
                && let Some(pending) = self.settle(pending, now).await
            {
                self.pending.insert(name, pending);
            }
        }
        let cluster = &self.brief.cluster;
        let waiting = i64::try_from(self.pending.len()).unwrap_or(i64::MAX);
        self.metrics.csr_waiting.with_label_values(&[&cluster.namespace, &cluster.name]).set(waiting);
    }

    /// Judges a request, and writes the verdict; gives it back if it waits.
    async fn settle(&self, mut pending: Pending, now: Timestamp) -> Option<Pending> {
        let policy = &self.brief.cluster.policy.kubelet_serving;
        if !policy.enabled {
            return None;
        }
        let node = pending.request.node_name();
        let declaration = Declaration::of(node.unwrap_or_default(), &self.brief.cluster.spec, &self.brief.pools);
        let facts = Facts {
            node: node.and_then(|node| self.nodes.get(node)),
            declaration: &declaration,
            reserved: &self.reserved,
            policy,
        };
        let judgement = judge(&pending.request, &facts, now);
        let written = match judgement.verdict {
            Verdict::Approve => self.write(&pending.request, "Approved", &judgement).await,
            Verdict::Deny => self.write(&pending.request, "Denied", &judgement).await,
            Verdict::Wait => {
                pending.waits += 1;
                pending.due = now.checked_add(backoff::delay(pending.waits)).ok();
                if pending.told != Some(judgement.reason) {
                    pending.told = Some(judgement.reason);
                    self.count(&judgement);
                    tracing::info!(
                        request = pending.request.name,
                        user = pending.request.username,
                        rule = judgement.rule,
                        reason = judgement.reason,
                        message = judgement.message,
                        "request waits"
                    );
                }
                if pending.waits == LASTING_WAITS {
                    let note = format!(
                        "{} of {} waits: {}",
                        pending.request.name, pending.request.username, judgement.message
                    );
                    self.events.warning(&self.brief.reference, judgement.reason, "Wait", &note).await;
                }
                return Some(pending);
            }
            Verdict::Ignore => Ok(Outcome::Written),
        };
        match written {
            Ok(Outcome::Written) => {
                self.count(&judgement);
                self.tell(&pending.request, &judgement).await;
                None
            }
            // It has changed since it was judged. The watch may have brought the change already, so it is fetched.
            Ok(Outcome::Outdated) => match self.api.get_opt(&pending.request.name).await {
                Ok(Some(request)) => Some(SigningRequest::from(&request))
                    .filter(|request| !request.settled)
                    .map(|request| Pending { request, ..pending }),
                Ok(None) => None,
                Err(_) => Some(pending),
            },
            Err(error) => {
                tracing::warn!(request = pending.request.name, %error, "the verdict could not be written");
                pending.waits += 1;
                pending.due = now.checked_add(backoff::delay(pending.waits)).ok();
                Some(pending)
            }
        }
    }

    /// Writes a verdict on the very version of the request that was judged.
    async fn write(
        &self,
        request: &SigningRequest,
        condition: &str,
        judgement: &Judgement,
    ) -> Result<Outcome, kube::Error> {
        let patch = json!({
            "metadata": {"resourceVersion": request.resource_version, "uid": request.uid},
            "status": {"conditions": [{
                "type": condition,
                "status": "True",
                "reason": judgement.reason,
                "message": judgement.message,
            }]},
        });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match self.api.patch_approval(&request.name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => Ok(Outcome::Written),
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(Outcome::Outdated),
            Err(error) => Err(error),
        }
    }

    fn count(&self, judgement: &Judgement) {
        self.metrics.csr_decisions.with_label_values(&[judgement.verdict.name(), judgement.reason]).inc();
    }

    async fn tell(&self, request: &SigningRequest, judgement: &Judgement) {
        let (name, user) = (&request.name, &request.username);
        tracing::info!(
            request = name,
            user,
            verdict = judgement.verdict.name(),
            rule = judgement.rule,
            reason = judgement.reason,
            message = judgement.message,
            "request judged"
        );
        let note = format!("{name} of {user}: {}", judgement.message);
        let about = &self.brief.reference;
        match judgement.verdict {
            Verdict::Approve => self.events.normal(about, judgement.reason, "Approve", &note).await,
            Verdict::Deny => self.events.warning(about, judgement.reason, "Deny", &note).await,
            Verdict::Ignore if judgement.violation => {
                self.events.warning(about, judgement.reason, "Ignore", &note).await;
            }
            Verdict::Wait | Verdict::Ignore => {}
        }
    }
}

/// What became of a verdict.
enum Outcome {
    Written,
    Outdated,
}
