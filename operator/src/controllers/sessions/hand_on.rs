//! Hands approved requests of kubelets on to a signer outside, where the controller-manager has no key to sign them with,
//! and writes the certificates back. What is asked for and what is taken is [`keyplane_core::plan::kubelet_requests`]'.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{
    keys::{CLUSTER_LABEL, KUBELET_CSR_LABEL},
    reasons,
};
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::preparation::Unavailable;
use super::{Brief, Briefed, Findings, credentials};
use keyplane_client::FIELD_MANAGER;
use keyplane_client::events::Events;
use keyplane_client::write;
use keyplane_client::write::write;
use keyplane_core::approval::SigningRequest;
use keyplane_core::authorities::AuthoritySet;
use keyplane_core::names;
use keyplane_core::names::{MANAGED_BY, MANAGED_BY_LABEL};
use keyplane_core::objects;
use keyplane_core::pki::AuthorityName;
use keyplane_core::pki::CertificateFacts;
use keyplane_core::plan::kubelet_requests::{Handing, KUBELET_REQUEST_LABEL, hand_on};

/// How long to wait after news: what comes together is handed on together.
const GATHER: Duration = Duration::from_millis(200);
/// How soon what failed is tried again, and an answer that is not good yet is looked at again.
const RETRY: Duration = Duration::from_secs(15);

/// The task's parts.
pub(super) struct HandOn {
    pub(super) briefs: watch::Receiver<Arc<Brief>>,
    pub(super) findings: Findings,
    pub(super) management: Client,
    pub(super) events: Events,
}

impl Briefed for HandOn {
    fn briefs(&self) -> watch::Receiver<Arc<Brief>> {
        self.briefs.clone()
    }

    async fn work(&mut self, brief: &Brief) {
        if !brief.cluster.signed_outside.contains(&AuthorityName::Cluster) {
            return std::future::pending().await;
        }
        if let Err(unavailable) = self.connected(brief).await {
            tracing::info!(cluster = %self.findings.object, message = unavailable.message, "kubelets' requests not handed on");
        }
        sleep(RETRY).await;
    }
}

/// Requests in the target, and what is published of them.
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
                // One that can't be read is nobody's to sign.
                match request.0.ok().filter(waits_for_its_certificate) {
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
            Event::Delete(gone) => _ = self.published.remove(&gone.name_any()),
            Event::Apply(found) | Event::InitApply(found) => _ = self.published.insert(found.name_any(), found),
        }
    }
}

/// Whether a kubelet's request is approved, and its signer has done nothing.
fn waits_for_its_certificate(request: &CertificateSigningRequest) -> bool {
    let status = request.status.clone().unwrap_or_default();
    let conditions: BTreeSet<_> =
        status.conditions.iter().flatten().map(|condition| condition.type_.as_str()).collect();
    request.metadata.deletion_timestamp.is_none()
        && keyplane_core::approval::Signer::of(&request.spec.signer_name).is_some()
        && conditions == BTreeSet::from(["Approved"])
        && status.certificate.is_none_or(|certificate| certificate.0.is_empty())
}

impl HandOn {
    /// Works until a watch ends.
    async fn connected(&self, brief: &Brief) -> Result<(), Unavailable> {
        let target = credentials::own(&self.management, brief).await?.shared;
        let authority = self.authority(brief).await?;
        let requests = Api::<DeserializeGuard<CertificateSigningRequest>>::all(target.clone());
        let mut requests = pin!(watcher(requests, watcher::Config::default()).default_backoff());
        let labels =
            format!("{MANAGED_BY_LABEL}={MANAGED_BY},{CLUSTER_LABEL}={},{KUBELET_CSR_LABEL}", brief.cluster.name);
        let config_maps = Api::<ConfigMap>::namespaced(self.management.clone(), &brief.cluster.namespace);
        let published = watcher(config_maps, watcher::Config::default().labels(&labels));
        let mut published = pin!(published.default_backoff());
        let mut seen = Seen::default();
        let mut told = BTreeSet::new();
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
                    Some(Err(error)) => tracing::debug!(cluster = %self.findings.object, %error, "watching requests"),
                    None => return Err(Unavailable::new(reasons::WATCH_ENDED, "the watch of requests ended")),
                },
                event = published.next() => match event {
                    Some(Ok(event)) => seen.config_map(event),
                    Some(Err(error)) => tracing::debug!(cluster = %self.findings.object, %error, "watching answers"),
                    None => return Err(Unavailable::new(reasons::WATCH_ENDED, "the watch of answers ended")),
                },
                () = work => {
                    let is_settled = self.settle(brief, &target, &seen, &authority, &mut told).await;
                    due = (!is_settled).then(|| Instant::now() + RETRY);
                    continue;
                }
            }
            // Half a list would look as if requests were gone.
            if seen.requests_known && seen.published_known {
                due = Some(Instant::now() + GATHER);
            }
        }
    }

    async fn authority(&self, brief: &Brief) -> Result<CertificateFacts, Unavailable> {
        let name = names::authority_secret(&brief.cluster.name, AuthorityName::Cluster);
        let secret = credentials::read(&self.management, brief, &name).await?;
        let set = AuthoritySet::from_secret(&name, &secret);
        let set = set.map_err(|error| Unavailable::new(reasons::NO_CLIENT, format!("Secret {name}: {error}")))?;
        Ok(set.signing().facts().clone())
    }

    /// Does what is to be done; tells whether there is nothing that has to be tried again.
    async fn settle(
        &self,
        brief: &Brief,
        target: &Client,
        seen: &Seen,
        authority: &CertificateFacts,
        told: &mut BTreeSet<(String, String)>,
    ) -> bool {
        let Handing { published, withdrawn, answered, refused, unfit } =
            hand_on(&brief.cluster, &seen.approved, seen.published.clone(), authority, Timestamp::now());
        let mut is_settled = refused.is_empty();
        let config_maps = Api::<ConfigMap>::namespaced(self.management.clone(), &brief.cluster.namespace);
        for config_map in published {
            let written = write(&config_maps, &config_map).await;
            is_settled &= self.succeeded("publishing a kubelet's request", &written);
        }
        for (request, certificate) in answered {
            let written = sign(target, &request, &certificate).await;
            if written.is_ok() {
                tracing::info!(cluster = %self.findings.object, request = request.name, "certificate written");
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
            if told.insert((name.clone(), why.clone())) {
                let note = format!("the answer in ConfigMap {name} is not used: {why}");
                self.events.warning(&brief.reference, reasons::CERTIFICATE_REFUSED, "Sign", &note).await;
            }
        }
        for (name, why) in unfit {
            if told.insert((name.clone(), why.clone())) {
                let note = format!("the approved request {name} is not handed on to the signer: {why}");
                self.events.warning(&brief.reference, reasons::REQUEST_NOT_FORWARDED, "Sign", &note).await;
            }
        }
        is_settled
    }

    fn succeeded<T>(&self, what: &str, result: &Result<T, kube::Error>) -> bool {
        if let Err(error) = result {
            tracing::info!(cluster = %self.findings.object, %error, "{what}");
        }
        result.is_ok()
    }
}

/// Writes the certificate on the very request that was seen.
async fn sign(target: &Client, request: &SigningRequest, certificate: &str) -> Result<(), kube::Error> {
    let patch = json!({
        "metadata": {"resourceVersion": request.resource_version, "uid": request.uid},
        "status": {"certificate": k8s_openapi::ByteString(certificate.as_bytes().to_vec())},
    });
    let requests = Api::<CertificateSigningRequest>::all(target.clone());
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    requests.patch_status(&request.name, &params, &Patch::Merge(&patch)).await.map(|_| ())
}
