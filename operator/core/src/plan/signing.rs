//! The one place where a certificate comes from: it is issued here where the authority's key is, and asked for where its
//! owner signs outside.
//!
//! The private keys that wait for a certificate lie in a Secret of their own, each with its request, so that neither is
//! ever made twice. The ConfigMap that publishes a request is made from that Secret.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret as SecretObject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{
    keys::{self, SIGNING_REQUEST_LABEL},
    reasons,
};

use super::node::{Asked as Terms, source_of};
use super::pending::{Ask, PendingKey, pending_keys, publish};
use super::{Content, Draft, Kind, Pair, Plan, Removal, Source, Step, encryption_use};
use crate::blocker::Blocker;
use crate::external_signer::request::{ANSWER_KEY, REQUEST_KEY, data};
use crate::external_signer::{Asked, Circumstances, Decision, Pending, check, decide};
use crate::model::{Cluster, Node};
use crate::names;
use crate::objects;
use crate::observed::Observed;
use crate::observed::Slot;
use crate::pki::AuthorityName;
use crate::pki::LeafTerms;
use crate::pki::SecretText;
use crate::pki::renewal::Reason;
use crate::pki::{Authority, CertificateOrder, PrivateKey, RequestFacts, first_certificate};
use crate::plan::config_maps;

/// The reason of what waits for a signer outside.
pub(super) const WAITS_FOR_SIGNER: &str = reasons::WAITING_FOR_SIGNER;

/// A certificate that waits for its signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The ConfigMap with the request.
    pub request: String,
    /// The certificate, as the status names it.
    pub certificate: String,
    /// The node that it belongs to, if it does.
    pub node: Option<String>,
    /// Who is to sign it.
    pub authority: AuthorityName,
    /// Since when it waits.
    pub since: Timestamp,
    /// Why the answer is not used, if there is one.
    pub refusal: Option<String>,
    /// Whether the answer is good, and waits for the maintenance window.
    pub is_answered: bool,
}

/// A certificate that somebody needs.
pub(super) struct Need<'a> {
    /// By which its request is known.
    pub(super) id: String,
    /// As the status names it.
    pub(super) certificate: &'a str,
    /// Who signs it.
    pub(super) authority: AuthorityName,
    /// What it is to say.
    pub(super) order: CertificateOrder,
    /// For how long, and with which key.
    pub(super) terms: LeafTerms,
    /// The one that is there.
    pub(super) stored: Option<Pair>,
}

/// The requests of one machine, or those of the cluster that belong to none.
pub(super) struct Desk<'a> {
    cluster: &'a Cluster,
    observed: &'a Observed,
    now: Timestamp,
    node: Option<&'a Node>,
    secret: String,
    found: Option<&'a SecretObject>,
    pending: BTreeMap<String, PendingKey>,
    asked: Vec<Ask>,
    dropped: Vec<String>,
    at: usize,
    is_foreign: bool,
}

impl<'a> Desk<'a> {
    /// Opens the one of a machine, or of the cluster.
    pub(super) fn open(
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
                // In nobody's way as long as nothing is asked for.
                is_foreign = !cluster.signed_outside.is_empty();
                plan.blockers.extend(is_foreign.then_some(blocker));
                None
            }
        };
        let pending = found.map(pending_keys).unwrap_or_default();
        let (asked, dropped, at) = (vec![], vec![], plan.steps.len());
        Self { cluster, observed, now, node, secret, found, pending, asked, dropped, at, is_foreign }
    }

    /// Where the certificate comes from. Nothing if there is none that could be used, and its signer has not answered.
    pub(super) fn source(
        &mut self,
        need: Need<'_>,
        issuer: &Authority,
        terms: &Terms<'_>,
        plan: &mut Plan,
    ) -> Option<Source> {
        let Need { id, certificate, authority, order, terms: leaf, stored } = need;
        if issuer.key().is_some() {
            return Some(source_of(certificate, order, leaf, stored, issuer.facts(), terms));
        }
        let source =
            |terms: &Terms<'_>| source_of(certificate, order.clone(), leaf, stored.clone(), issuer.facts(), terms);
        // A request changes nothing, so it needs no maintenance window.
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
        let decision = decide(Circumstances {
            is_wanted: reason.is_some(),
            serves: is_usable,
            may_change: terms.may_change() || matches!(source(terms), Source::Issue { .. }),
            pending: pending.as_ref().map(|pending| {
                let asked = asked(&order, leaf, issuer, pending.since);
                self.seen(pending, &name, &asked, leaf, issuer, stored.as_ref())
            }),
        });
        let mut waiting = Waiting {
            request: name,
            certificate: certificate.to_owned(),
            node: self.node.map(|node| node.name.clone()),
            authority,
            since: pending.as_ref().map_or(self.now, |pending| pending.since),
            refusal: None,
            is_answered: false,
        };
        if let Some(pending) = &pending
            && matches!(decision, Decision::Wait | Decision::Refuse(_) | Decision::Later | Decision::Use(_))
        {
            let asked = asked(&order, leaf, issuer, pending.since);
            let published = self.publication(&waiting, pending, &asked);
            config_maps::plan_config_map(published, self.observed, plan);
        }
        match decision {
            Decision::Nothing => {}
            Decision::Withdraw => self.withdraw(id, plan),
            Decision::Ask => {
                self.asked.push(Ask { id, order, algorithm: leaf.key_algorithm, since: self.now });
                plan.waiting.push(waiting);
            }
            Decision::Wait => plan.waiting.push(waiting),
            Decision::Later => {
                waiting.is_answered = true;
                plan.waiting.push(waiting);
            }
            Decision::Refuse(refusal) => {
                waiting.refusal = Some(refusal.to_string());
                plan.waiting.push(waiting);
            }
            Decision::Use(certificate) => {
                let key = SecretText(pending.map(|pending| pending.key).unwrap_or_default());
                let pair = Pair { certificate, key };
                // It was asked for, and the reason has gone since: then it is a renewal.
                return Some(Source::Take { pair, reason: reason.unwrap_or(Reason::RenewalDue) });
            }
        }
        former.map(Source::Keep)
    }

    /// How it stands with a request.
    fn seen(
        &self,
        pending: &PendingKey,
        name: &str,
        asked: &Asked<'_>,
        leaf: LeafTerms,
        issuer: &Authority,
        stored: Option<&Pair>,
    ) -> Pending {
        let unfit = Pending { fits: false, is_used: false, answer: None };
        let (Some(facts), Ok(key)) =
            (RequestFacts::from_pem(&pending.request), PrivateKey::from_pem(name, &pending.key))
        else {
            return unfit;
        };
        let public = key.subject_public_key_info();
        let mut names = asked.alternative_names.to_vec();
        names.sort();
        let fits = facts.subject_public_key_info == public
            && facts.subject == *asked.subject
            && facts.alternative_names == names
            && key.algorithm() == Some(leaf.key_algorithm);
        let stored = stored.and_then(|pair| first_certificate(name, &pair.certificate).ok());
        let is_used = stored.is_some_and(|stored| stored.subject_public_key_info == public);
        let asked = Asked { subject_public_key_info: &public, ..asked.clone() };
        let answer = self.answer(name, &pending.request);
        let answer = answer.map(|answer| check(answer, &asked, issuer.facts(), self.now));
        Pending { fits, is_used, answer }
    }

    /// What the signer has put beside this very request.
    fn answer(&self, name: &str, request: &str) -> Option<&'a str> {
        let Slot::Ours(found) = self.observed.config_map(&self.cluster.name, name) else { return None };
        let data = found.data.as_ref().filter(|data| data.get(REQUEST_KEY).is_some_and(|found| found == request))?;
        data.get(ANSWER_KEY).map(String::as_str).filter(|answer| !answer.trim().is_empty())
    }

    /// The ConfigMap with the request. What a signer has put there stays, as long as it belongs to this request.
    fn publication(&self, waiting: &Waiting, pending: &PendingKey, asked: &Asked<'_>) -> ConfigMap {
        let description = match &waiting.node {
            Some(node) => format!("{} of {node} in cluster {}", waiting.certificate, self.cluster.name),
            None => format!("{} of cluster {}", waiting.certificate, self.cluster.name),
        };
        let ours = data(&description, waiting.authority, &pending.request, asked);
        publish(self.cluster, &waiting.request, waiting.authority, ours, pending.since, self.observed)
    }

    fn config_map_name(&self, id: &str) -> String {
        names::request_config_map(&self.cluster.name, self.node.map(|node| node.name.as_str()), id)
    }

    /// First what was published goes, then the key: of what is published the key is always there.
    fn withdraw(&mut self, id: String, plan: &mut Plan) {
        let name = self.config_map_name(&id);
        match self.observed.config_map(&self.cluster.name, &name) {
            Slot::Ours(found) => plan.steps.push(withdrawal(Kind::ConfigMap, &found.metadata)),
            Slot::Free | Slot::Foreign(_) => self.dropped.push(id),
        }
    }

    /// Plans what has become of the keys: before the steps of who needs them, as those may note that what was asked for is
    /// under way.
    pub(super) fn close(mut self, plan: &mut Plan) {
        // Nobody needs these any more.
        let left: Vec<_> = std::mem::take(&mut self.pending).into_keys().collect();
        for id in left {
            self.withdraw(id, plan);
        }
        let Self { secret, found, asked, dropped, at, .. } = self;
        if asked.is_empty() && dropped.is_empty() {
            return;
        }
        let stays = found.into_iter().flat_map(pending_keys).any(|(id, _)| !dropped.contains(&id));
        let step = match found {
            Some(found) if asked.is_empty() && !stays => withdrawal(Kind::Secret, &found.metadata),
            _ => {
                let node = self.node.map(|node| node.name.clone());
                Step::Secret(Box::new(Draft { name: secret, content: Content::Requests { node, asked, dropped } }))
            }
        };
        plan.steps.insert(at, step);
    }
}

/// The blocker where a Secret can't be written for want of a certificate.
pub(super) fn waits_for_signer(cluster: &Cluster, secret: &str) -> Blocker {
    Blocker {
        reason: WAITS_FOR_SIGNER,
        message: format!(
            "Secret {secret} waits for certificates: have those signed that `kubectl get configmaps -n {} -l \
             {SIGNING_REQUEST_LABEL},{}={}` lists (docs/external-signing.md)",
            cluster.namespace,
            keys::CLUSTER_LABEL,
            cluster.name
        ),
    }
}

impl Blocker {
    /// Whether it ends when a signer outside answers.
    #[must_use]
    pub fn waits_for_a_signer(&self) -> bool {
        self.reason == WAITS_FOR_SIGNER
    }
}

fn withdrawal(kind: Kind, found: &ObjectMeta) -> Step {
    let name = found.name.clone().unwrap_or_default();
    let note = format!("deleted {} {name}: what it asked for is there, or not needed any more", kind.name());
    let (uid, resource_version) = (found.uid.clone(), found.resource_version.clone());
    Step::Removal(Box::new(Removal { kind, name, uid, resource_version, reason: reasons::REQUEST_SETTLED, note }))
}

/// What is asked for with a request of that time. No certificate outlives its authority.
fn asked<'a>(order: &'a CertificateOrder, leaf: LeafTerms, issuer: &Authority, since: Timestamp) -> Asked<'a> {
    let left = Duration::try_from(issuer.facts().not_after.duration_since(since)).unwrap_or_default();
    Asked {
        subject: &order.subject,
        alternative_names: &order.alternative_names,
        extended_usages: &order.extended_usages,
        validity: leaf.validity.min(left),
        subject_public_key_info: &[],
    }
}

/// The authorities whose owners sign outside: of which Keyplane has the certificate alone, or is about to take it up.
#[must_use]
pub fn signed_outside(cluster: &Cluster, observed: &Observed) -> BTreeSet<AuthorityName> {
    let is_outside = |name: &AuthorityName| {
        let copy = names::authority_secret(&cluster.name, *name);
        match observed.secret(&cluster.name, &copy) {
            Slot::Ours(copy) => objects::is_signed_outside(copy),
            Slot::Foreign(_) => false,
            Slot::Free => {
                let given = cluster.given_authority(*name).and_then(|given| observed.secrets.get(given));
                let has = |key| given.is_some_and(|given| objects::text(given, key).is_some());
                has("tls.crt") && !has("tls.key")
            }
        }
    };
    cluster.authority_names().filter(is_outside).collect()
}

/// The cluster with what can only be seen: what is encrypted already, and which authorities sign outside.
#[must_use]
pub fn as_observed(cluster: &Cluster, observed: &Observed) -> Cluster {
    let outside = signed_outside(cluster, observed);
    cluster.clone().with_encryption(encryption_use(cluster, observed)).with_signers_outside(outside)
}
