//! Decides the source of each certificate: Keyplane issues it if the CA's key is available, and sends a CSR to the
//! external signer otherwise.
//!
//! The private keys that wait for a certificate are stored in a separate Secret, each with its CSR, so that neither is
//! ever generated twice. The ConfigMap that publishes a CSR is composed from that Secret.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret as SecretObject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::keys::{self, SIGNING_REQUEST_LABEL};
use keyplane_crds::reasons;

use super::leaf_source::{RenewalInputs, source_of};
use super::pending_keys::{KeyRequest, PendingKey, pending_keys, publish};
use super::{Content, Draft, Kind, Pair, Plan, Removal, Source, Step, encryption_use};
use crate::blocker::Blocker;
use crate::external_signer::request::{ANSWER_KEY, REQUEST_KEY, data};
use crate::external_signer::{ExpectedCertificate, PublishedRequest, SigningAction, SigningState, check, next_action};
use crate::model::{Cluster, Node};
use crate::observed::{Observed, Slot};
use crate::pki::renewal::Reason;
use crate::pki::{
    CaName, CertificateAuthority, CertificateTemplate, LeafTerms, PrivateKey, RequestFacts, SecretText,
    first_certificate,
};
use crate::plan::config_maps;
use crate::{names, objects};

/// The reason of blockers that wait for an external signer.
pub(crate) const WAITS_FOR_SIGNER: &str = reasons::WAITING_FOR_SIGNER;

/// A certificate that waits for its external signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingCertificate {
    /// The name of the ConfigMap with the CSR.
    pub request: String,
    /// The name of the certificate in the status.
    pub certificate: String,
    /// The node that the certificate belongs to; `None` for certificates of the cluster.
    pub node: Option<String>,
    /// The issuer.
    pub ca: CaName,
    /// The time of the request.
    pub since: Timestamp,
    /// The reason why the signed certificate is rejected, if there is one.
    pub refusal: Option<String>,
    /// Whether the signed certificate is accepted and waits for the maintenance window.
    pub is_answered: bool,
}

/// A required certificate.
pub(crate) struct Need<'a> {
    /// The id of its CSR.
    pub(crate) id: String,
    /// The name in the status.
    pub(crate) certificate: &'a str,
    /// The issuer.
    pub(crate) ca: CaName,
    /// The certificate template.
    pub(crate) order: CertificateTemplate,
    /// The validity and the key algorithm.
    pub(crate) terms: LeafTerms,
    /// The stored certificate and key.
    pub(crate) stored: Option<Pair>,
}

/// The batch of CSRs of one node, or those of the cluster that belong to no node.
pub(crate) struct CsrBatch<'a> {
    cluster: &'a Cluster,
    observed: &'a Observed,
    now: Timestamp,
    node: Option<&'a Node>,
    secret: String,
    found: Option<&'a SecretObject>,
    pending: BTreeMap<String, PendingKey>,
    new_keys: Vec<KeyRequest>,
    dropped: Vec<String>,
    at: usize,
    is_foreign: bool,
}

impl<'a> CsrBatch<'a> {
    /// Reads the pending keys of a node, or of the cluster.
    pub(crate) fn open(
        cluster: &'a Cluster,
        node: Option<&'a Node>,
        observed: &'a Observed,
        now: Timestamp,
        plan: &mut Plan,
    ) -> Self {
        let secret = names::requests_secret(&cluster.name, node.map(|node| node.name.as_str()));
        let mut is_foreign = false;
        let found = match observed.secret(&cluster.name, &secret) {
            Slot::Free => None,
            Slot::Ours(found) => Some(found),
            Slot::Foreign(blocker) => {
                // Without external CAs the name is not needed.
                is_foreign = !cluster.external_cas.is_empty();
                plan.blockers.extend(is_foreign.then_some(blocker));
                None
            }
        };
        let pending = found.map(pending_keys).unwrap_or_default();
        let (new_keys, dropped, at) = (vec![], vec![], plan.steps.len());
        Self { cluster, observed, now, node, secret, found, pending, new_keys, dropped, at, is_foreign }
    }

    /// Returns the source of the certificate; `None` if there is no usable certificate and the signer has not answered.
    pub(crate) fn source(
        &mut self,
        need: Need<'_>,
        issuer: &CertificateAuthority,
        terms: &RenewalInputs<'_>,
        plan: &mut Plan,
    ) -> Option<Source> {
        let Need { id, certificate, ca, order, terms: leaf, stored } = need;
        if issuer.key().is_some() {
            return Some(source_of(certificate, order, leaf, stored, issuer.facts(), terms));
        }
        let source = |terms: &RenewalInputs<'_>| {
            source_of(certificate, order.clone(), leaf, stored.clone(), issuer.facts(), terms)
        };
        // A CSR changes nothing in the cluster, so it needs no maintenance window.
        let reason = match source(&terms.at_any_time()) {
            Source::Issue { reason, .. } => Some(reason),
            _ => None,
        };
        let is_usable = !matches!(reason, Some(Reason::Missing | Reason::Unreadable | Reason::KeyMismatch));
        let former = stored.clone().filter(|_| is_usable);
        if self.is_foreign {
            return former.map(Source::Keep);
        }
        let pending = self.pending.remove(&id);
        let name = self.config_map_name(&id);
        let decision = next_action(SigningState {
            needs_certificate: reason.is_some(),
            has_usable_certificate: is_usable,
            may_change: terms.may_change() || matches!(source(terms), Source::Issue { .. }),
            pending: pending.as_ref().map(|pending| {
                let expected = expected_certificate(&order, leaf, issuer, pending.since);
                self.seen(pending, &name, &expected, leaf, issuer, stored.as_ref())
            }),
        });
        let mut waiting = PendingCertificate {
            request: name,
            certificate: certificate.to_owned(),
            node: self.node.map(|node| node.name.clone()),
            ca,
            since: pending.as_ref().map_or(self.now, |pending| pending.since),
            refusal: None,
            is_answered: false,
        };
        if let Some(pending) = &pending
            && matches!(
                decision,
                SigningAction::Wait | SigningAction::Reject(_) | SigningAction::Defer | SigningAction::Use(_)
            )
        {
            let expected = expected_certificate(&order, leaf, issuer, pending.since);
            let published = self.publication(&waiting, pending, &expected);
            config_maps::plan_config_map(published, self.observed, plan);
        }
        match decision {
            SigningAction::Nothing => {}
            SigningAction::Withdraw => self.withdraw(id, plan),
            SigningAction::Request => {
                self.new_keys.push(KeyRequest { id, order, algorithm: leaf.key_algorithm, since: self.now });
                plan.waiting.push(waiting);
            }
            SigningAction::Wait => plan.waiting.push(waiting),
            SigningAction::Defer => {
                waiting.is_answered = true;
                plan.waiting.push(waiting);
            }
            SigningAction::Reject(refusal) => {
                waiting.refusal = Some(refusal.to_string());
                plan.waiting.push(waiting);
            }
            SigningAction::Use(certificate) => {
                let key = SecretText(pending.map(|pending| pending.key).unwrap_or_default());
                let pair = Pair { certificate, key };
                // The reason of the request may be gone by now: then this is a renewal.
                return Some(Source::Signed { pair, reason: reason.unwrap_or(Reason::RenewalDue) });
            }
        }
        former.map(Source::Keep)
    }

    /// Returns the state of a CSR.
    fn seen(
        &self,
        pending: &PendingKey,
        name: &str,
        expected: &ExpectedCertificate<'_>,
        leaf: LeafTerms,
        issuer: &CertificateAuthority,
        stored: Option<&Pair>,
    ) -> PublishedRequest {
        let unfit = PublishedRequest { fits: false, is_used: false, answer: None };
        let (Some(facts), Ok(key)) =
            (RequestFacts::from_pem(&pending.request), PrivateKey::from_pem(name, &pending.key))
        else {
            return unfit;
        };
        let public = key.subject_public_key_info();
        let mut names = expected.alternative_names.to_vec();
        names.sort();
        let fits = facts.subject_public_key_info == public
            && facts.subject == *expected.subject
            && facts.alternative_names == names
            && key.algorithm() == Some(leaf.key_algorithm);
        let stored = stored.and_then(|pair| first_certificate(name, &pair.certificate).ok());
        let is_used = stored.is_some_and(|stored| stored.subject_public_key_info == public);
        let expected = ExpectedCertificate { subject_public_key_info: &public, ..expected.clone() };
        let answer = self.answer(name, &pending.request);
        let answer = answer.map(|answer| check(answer, &expected, issuer.facts(), self.now));
        PublishedRequest { fits, is_used, answer }
    }

    /// Returns the signer's certificate for exactly this CSR.
    fn answer(&self, name: &str, request: &str) -> Option<&'a str> {
        let Slot::Ours(found) = self.observed.config_map(&self.cluster.name, name) else { return None };
        let data = found.data.as_ref().filter(|data| data.get(REQUEST_KEY).is_some_and(|found| found == request))?;
        data.get(ANSWER_KEY).map(String::as_str).filter(|answer| !answer.trim().is_empty())
    }

    /// Returns the ConfigMap with the CSR. Data of the signer is kept as long as it belongs to this CSR.
    fn publication(
        &self,
        waiting: &PendingCertificate,
        pending: &PendingKey,
        expected: &ExpectedCertificate<'_>,
    ) -> ConfigMap {
        let description = match &waiting.node {
            Some(node) => format!("{} of {node} in cluster {}", waiting.certificate, self.cluster.name),
            None => format!("{} of cluster {}", waiting.certificate, self.cluster.name),
        };
        let ours = data(&description, waiting.ca, &pending.request, expected);
        publish(self.cluster, &waiting.request, waiting.ca, ours, pending.since, self.observed)
    }

    fn config_map_name(&self, id: &str) -> String {
        names::request_config_map(&self.cluster.name, self.node.map(|node| node.name.as_str()), id)
    }

    /// Deletes the ConfigMap first and the key afterwards, so that a published CSR always has its key.
    fn withdraw(&mut self, id: String, plan: &mut Plan) {
        let name = self.config_map_name(&id);
        match self.observed.config_map(&self.cluster.name, &name) {
            Slot::Ours(found) => plan.steps.push(withdrawal(Kind::ConfigMap, &found.metadata)),
            Slot::Free | Slot::Foreign(_) => self.dropped.push(id),
        }
    }

    /// Plans the changes of the pending keys. They come before the steps that need the certificates, because those
    /// steps may record that the request is in progress.
    pub(crate) fn close(mut self, plan: &mut Plan) {
        // No certificate needs these keys any more.
        let left: Vec<_> = std::mem::take(&mut self.pending).into_keys().collect();
        for id in left {
            self.withdraw(id, plan);
        }
        let Self { secret, found, new_keys, dropped, at, .. } = self;
        if new_keys.is_empty() && dropped.is_empty() {
            return;
        }
        let stays = found.into_iter().flat_map(pending_keys).any(|(id, _)| !dropped.contains(&id));
        let step = match found {
            Some(found) if new_keys.is_empty() && !stays => withdrawal(Kind::Secret, &found.metadata),
            _ => {
                let node = self.node.map(|node| node.name.clone());
                Step::Secret(Box::new(Draft { name: secret, content: Content::Requests { node, new_keys, dropped } }))
            }
        };
        plan.steps.insert(at, step);
    }
}

/// Returns the blocker of a Secret that waits for signed certificates.
pub(crate) fn waits_for_signer(cluster: &Cluster, secret: &str) -> Blocker {
    Blocker {
        reason: WAITS_FOR_SIGNER,
        message: format!(
            "Secret {secret} waits for certificates: have the CSRs signed that `kubectl get configmaps -n {} -l \
             {SIGNING_REQUEST_LABEL},{}={}` lists (docs/external-ca.md)",
            cluster.namespace,
            keys::CLUSTER_LABEL,
            cluster.name
        ),
    }
}

impl Blocker {
    /// Returns whether the blocker waits for an external signer.
    #[must_use]
    pub fn waits_for_external_signer(&self) -> bool {
        self.reason == WAITS_FOR_SIGNER
    }
}

fn withdrawal(kind: Kind, found: &ObjectMeta) -> Step {
    let name = found.name.clone().unwrap_or_default();
    let note = format!("deleted {} {name}: the certificate is issued, or no longer needed", kind.name());
    let (uid, resource_version) = (found.uid.clone(), found.resource_version.clone());
    Step::Removal(Box::new(Removal { kind, name, uid, resource_version, reason: reasons::REQUEST_SETTLED, note }))
}

/// Returns the expected certificate for a request of that time. No certificate outlives its CA.
fn expected_certificate<'a>(
    order: &'a CertificateTemplate,
    leaf: LeafTerms,
    issuer: &CertificateAuthority,
    since: Timestamp,
) -> ExpectedCertificate<'a> {
    let left = Duration::try_from(issuer.facts().not_after.duration_since(since)).unwrap_or_default();
    ExpectedCertificate {
        subject: &order.subject,
        alternative_names: &order.alternative_names,
        extended_usages: &order.extended_usages,
        validity: leaf.validity.min(left),
        subject_public_key_info: &[],
    }
}

/// Returns the external CAs: those of which Keyplane has only the certificate, or is about to copy only the
/// certificate.
#[must_use]
pub fn external_cas(cluster: &Cluster, observed: &Observed) -> BTreeSet<CaName> {
    let is_external = |name: &CaName| {
        let copy = names::ca_secret(&cluster.name, *name);
        match observed.secret(&cluster.name, &copy) {
            Slot::Ours(copy) => objects::is_external_ca(copy),
            Slot::Foreign(_) => false,
            Slot::Free => {
                let user_provided = cluster.user_provided_ca(*name).and_then(|secret| observed.secrets.get(secret));
                let has = |key| user_provided.is_some_and(|user_provided| objects::text(user_provided, key).is_some());
                has("tls.crt") && !has("tls.key")
            }
        }
    };
    cluster.ca_names().filter(is_external).collect()
}

/// Returns the cluster completed with observed state: the encryption in use, and the external CAs.
#[must_use]
pub fn as_observed(cluster: &Cluster, observed: &Observed) -> Cluster {
    let external = external_cas(cluster, observed);
    cluster.clone().with_encryption(encryption_use(cluster, observed)).with_external_cas(external)
}
