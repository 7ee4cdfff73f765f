//! Forwards approved CSRs of kubelets to an external signer, because the controller-manager has no CA key, and writes
//! the certificates to the CSRs. [`keyplane_core::plan::kubelet_requests`] decides on requests and certificates.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::keys::{CLUSTER_LABEL, KUBELET_CSR_LABEL};
use keyplane_crds::reasons;
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::unavailable::Unavailable;
use super::{SessionSpec, SessionTask, TargetStatus, credentials};
use keyplane_client::FIELD_MANAGER;
use keyplane_client::events::Events;
use keyplane_client::write::{self, write};
use keyplane_core::approval::SigningRequest;
use keyplane_core::certificate_authorities::CaSet;
use keyplane_core::names::{self, MANAGED_BY, MANAGED_BY_LABEL};
use keyplane_core::pki::{CaName, CertificateFacts};
use keyplane_core::plan::kubelet_requests::{ForwardingPlan, plan_forwarding};

/// Delay after a change: changes within this time are processed together.
const GATHER: Duration = Duration::from_millis(200);
/// Delay before a failure, or a certificate that can't be used yet, is retried.
const RETRY: Duration = Duration::from_secs(15);

/// The forwarding task of one target cluster.
pub(super) struct CsrForwarder {
    pub(super) specs: watch::Receiver<Arc<SessionSpec>>,
    pub(super) target_status: TargetStatus,
    pub(super) management: Client,
    pub(super) events: Events,
}

impl SessionTask for CsrForwarder {
    fn specs(&self) -> watch::Receiver<Arc<SessionSpec>> {
        self.specs.clone()
    }

    async fn work(&mut self, spec: &SessionSpec) {
        if !spec.cluster.external_cas.contains(&CaName::Cluster) {
            return std::future::pending().await;
        }
        if let Err(unavailable) = self.connected(spec).await {
            tracing::info!(cluster = %self.target_status.object, message = unavailable.message, "kubelets' CSRs not forwarded");
        }
        sleep(RETRY).await;
    }
}

/// Approved CSRs in the target cluster, and the published requests in the management cluster.
#[derive(Default)]
struct Seen {
    approved: BTreeMap<String, SigningRequest>,
    published: BTreeMap<String, ConfigMap>,
    requests_known: bool,
    published_known: bool,
}

impl Seen {
    fn request(&mut self, event: Event<DeserializeGuard<CertificateSigningRequest>>) {
        match event {
            Event::Init => {
                self.approved.clear();
                self.requests_known = false;
            }
            Event::InitDone => self.requests_known = true,
            Event::Delete(request) => _ = self.approved.remove(&request.name_any()),
            Event::Apply(request) | Event::InitApply(request) => {
                let name = request.name_any();
                // A CSR that can't be parsed is not forwarded.
                match request.0.ok().filter(waits_for_certificate) {
                    Some(request) => _ = self.approved.insert(name, SigningRequest::from(&request)),
                    None => _ = self.approved.remove(&name),
                }
            }
        }
    }

    fn config_map(&mut self, event: Event<ConfigMap>) {
        match event {
            Event::Init => {
                self.published.clear();
                self.published_known = false;
            }
            Event::InitDone => self.published_known = true,
            Event::Delete(deleted) => _ = self.published.remove(&deleted.name_any()),
            Event::Apply(found) | Event::InitApply(found) => _ = self.published.insert(found.name_any(), found),
        }
    }
}

/// Returns whether a kubelet's CSR is approved, and neither signed nor failed.
fn waits_for_certificate(request: &CertificateSigningRequest) -> bool {
    let status = request.status.clone().unwrap_or_default();
    let conditions: BTreeSet<_> =
        status.conditions.iter().flatten().map(|condition| condition.type_.as_str()).collect();
    request.metadata.deletion_timestamp.is_none()
        && keyplane_core::approval::Signer::of(&request.spec.signer_name).is_some()
        && conditions == BTreeSet::from(["Approved"])
        && status.certificate.is_none_or(|certificate| certificate.0.is_empty())
}

impl CsrForwarder {
    /// Forwards CSRs until a watch ends.
    async fn connected(&self, spec: &SessionSpec) -> Result<(), Unavailable> {
        let target = credentials::own(&self.management, spec).await?.shared;
        let ca = self.cluster_ca(spec).await?;
        let requests = Api::<DeserializeGuard<CertificateSigningRequest>>::all(target.clone());
        let mut requests = pin!(watcher(requests, watcher::Config::default()).default_backoff());
        let labels =
            format!("{MANAGED_BY_LABEL}={MANAGED_BY},{CLUSTER_LABEL}={},{KUBELET_CSR_LABEL}", spec.cluster.name);
        let config_maps = Api::<ConfigMap>::namespaced(self.management.clone(), &spec.cluster.namespace);
        let published = watcher(config_maps, watcher::Config::default().labels(&labels));
        let mut published = pin!(published.default_backoff());
        let mut seen = Seen::default();
        let mut reported = BTreeSet::new();
        let mut due: Option<Instant> = None;
        loop {
            let work = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = requests.next() => match event {
                    Some(Ok(event)) => seen.request(event),
                    Some(Err(error)) => tracing::debug!(cluster = %self.target_status.object, %error, "watching CSRs"),
                    None => return Err(Unavailable::new(reasons::WATCH_ENDED, "the watch of CSRs ended")),
                },
                event = published.next() => match event {
                    Some(Ok(event)) => seen.config_map(event),
                    Some(Err(error)) => tracing::debug!(cluster = %self.target_status.object, %error, "watching published requests"),
                    None => return Err(Unavailable::new(reasons::WATCH_ENDED, "the watch of published requests ended")),
                },
                () = work => {
                    let is_settled = self.settle(spec, &target, &seen, &ca, &mut reported).await;
                    due = (!is_settled).then(|| Instant::now() + RETRY);
                    continue;
                }
            }
            // With an incomplete list, CSRs would seem to be deleted.
            if seen.requests_known && seen.published_known {
                due = Some(Instant::now() + GATHER);
            }
        }
    }

    async fn cluster_ca(&self, spec: &SessionSpec) -> Result<CertificateFacts, Unavailable> {
        let name = names::ca_secret(&spec.cluster.name, CaName::Cluster);
        let secret = credentials::read(&self.management, spec, &name).await?;
        let set = CaSet::from_secret(&name, &secret);
        let set = set.map_err(|error| Unavailable::new(reasons::NO_CLIENT, format!("Secret {name}: {error}")))?;
        Ok(set.signing().facts().clone())
    }

    /// Publishes, signs and withdraws requests; returns whether nothing must be retried.
    async fn settle(
        &self,
        spec: &SessionSpec,
        target: &Client,
        seen: &Seen,
        ca: &CertificateFacts,
        reported: &mut BTreeSet<(String, String)>,
    ) -> bool {
        let ForwardingPlan { published, withdrawn, answered, refused, unfit } =
            plan_forwarding(&spec.cluster, &seen.approved, seen.published.clone(), ca, Timestamp::now());
        let mut is_settled = refused.is_empty();
        let config_maps = Api::<ConfigMap>::namespaced(self.management.clone(), &spec.cluster.namespace);
        for config_map in published {
            let written = write(&config_maps, &config_map).await;
            is_settled &= self.succeeded("publishing a kubelet's request", &written);
        }
        for (request, certificate) in answered {
            let written = sign(target, &request, &certificate).await;
            if written.is_ok() {
                tracing::info!(cluster = %self.target_status.object, request = request.name, "wrote the certificate of a kubelet");
            }
            is_settled &= self.succeeded("writing a kubelet's certificate", &written);
        }
        for removal in withdrawn {
            let (name, uid, version) = (&removal.name, removal.uid.clone(), removal.resource_version.clone());
            let deleted = write::delete(&config_maps, name, uid, version).await;
            is_settled &= self.succeeded("withdrawing a kubelet's request", &deleted);
        }
        let refused = refused.into_iter().map(|(name, refusal)| (name, refusal.to_string()));
        let unfit = unfit.into_iter().map(|(name, why)| (name, why.to_owned()));
        for (name, why) in refused {
            if reported.insert((name.clone(), why.clone())) {
                let note = format!("the certificate in ConfigMap {name} is not used: {why}");
                self.events.warning(&spec.reference, reasons::CERTIFICATE_REFUSED, "Sign", &note).await;
            }
        }
        for (name, why) in unfit {
            if reported.insert((name.clone(), why.clone())) {
                let note =
                    format!("the approved CertificateSigningRequest {name} is not forwarded to the signer: {why}");
                self.events.warning(&spec.reference, reasons::REQUEST_NOT_FORWARDED, "Sign", &note).await;
            }
        }
        is_settled
    }

    fn succeeded<T>(&self, what: &str, result: &Result<T, kube::Error>) -> bool {
        if let Err(error) = result {
            tracing::info!(cluster = %self.target_status.object, %error, "{what}");
        }
        result.is_ok()
    }
}

/// Writes the certificate to the CSR, unless the CSR has changed.
async fn sign(target: &Client, request: &SigningRequest, certificate: &str) -> Result<(), kube::Error> {
    let patch = json!({
        "metadata": {"resourceVersion": request.resource_version, "uid": request.uid},
        "status": {"certificate": k8s_openapi::ByteString(certificate.as_bytes().to_vec())},
    });
    let requests = Api::<CertificateSigningRequest>::all(target.clone());
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    requests.patch_status(&request.name, &params, &Patch::Merge(&patch)).await.map(|_| ())
}
