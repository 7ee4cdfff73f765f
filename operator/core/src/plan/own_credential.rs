//! The Secret `<cluster>-keyplane`: Keyplane's own certificates for a target, where the authority's key is not here to make
//! one in memory.

use k8s_openapi::api::core::v1::Secret as SecretObject;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::keys;
use kube::ResourceExt;

use super::node::{Asked, earliest_end};
use super::signing::{Desk, Need};
use super::{Content, Draft, Pair, Plan, Source, Step};
use crate::authorities::Authorities;
use crate::model::Cluster;
use crate::names;
use crate::objects;
use crate::observed::Observed;
use crate::observed::Slot;
use crate::pki::AuthorityName;
use crate::pki::SecretText;
use crate::pki::{CertificateOrder, ExtendedUsage, valid_for};
use crate::target_objects::client_subject;

/// One of the certificates.
#[derive(Debug)]
pub struct Own {
    /// By which it is known in the status and in its request.
    pub id: &'static str,
    /// Who signs it.
    pub authority: AuthorityName,
    certificate: &'static str,
    key: &'static str,
}

/// Of the API servers, and of etcd.
pub(super) const OWN: [Own; 2] = [
    Own { id: "keyplane", authority: AuthorityName::Cluster, certificate: "tls.crt", key: "tls.key" },
    Own { id: "keyplane-etcd", authority: AuthorityName::Etcd, certificate: "etcd.crt", key: "etcd.key" },
];

/// Plans the Secret.
pub(super) fn plan(
    cluster: &Cluster,
    authorities: &Authorities,
    desk: &mut Desk<'_>,
    observed: &Observed,
    now: Timestamp,
    plan: &mut Plan,
) {
    let needed = |own: &&'static Own| authorities.get(own.authority).is_some_and(|set| set.signing().key().is_none());
    let needed: Vec<_> = OWN.iter().filter(needed).collect();
    if needed.is_empty() {
        return;
    }
    let name = names::own_secret(&cluster.name);
    let found = match observed.secret(&cluster.name, &name) {
        Slot::Foreign(blocker) => return plan.blockers.push(blocker),
        Slot::Free => None,
        Slot::Ours(secret) => Some(secret),
    };
    let asked = Asked::of(cluster, found, now);
    let mut sources = vec![];
    for own in needed {
        let Some(set) = authorities.get(own.authority) else { continue };
        let terms = cluster.policy.leaf(own.id);
        let (not_before, not_after) = valid_for(now, terms.validity);
        let order = CertificateOrder {
            subject: client_subject(),
            alternative_names: vec![],
            extended_usages: vec![ExtendedUsage::ClientAuth],
            not_before,
            not_after,
        };
        let stored = found.and_then(|secret| stored_pair(secret, own));
        let (id, authority) = (own.id.to_owned(), own.authority);
        let need = Need { id, certificate: own.id, authority, order, terms, stored };
        sources.extend(desk.source(need, set.issuer(false), &asked, plan).map(|source| (own, source)));
    }
    let kept: Option<Vec<_>> = sources
        .iter()
        .map(|(own, source)| match source {
            Source::Keep(pair) => Some((*own, pair.clone())),
            _ => None,
        })
        .collect();
    let is_as_found = kept.is_some_and(|kept| {
        let wanted = written(cluster, &kept);
        found.is_some_and(|found| found.data == wanted.data && objects::has_metadata(&found.metadata, &wanted.metadata))
    });
    if !sources.is_empty() && !is_as_found {
        plan.steps.push(Step::Secret(Box::new(Draft { name, content: Content::Own { sources } })));
    }
}

/// The certificate and key for the servers of an authority that signs outside; nothing while they wait for it.
#[must_use]
pub fn own_credential(secret: &SecretObject, authority: AuthorityName) -> Option<(String, String)> {
    let own = OWN.iter().find(|own| own.authority == authority)?;
    stored_pair(secret, own).map(|pair| (pair.certificate, pair.key.0))
}

pub(super) fn stored_pair(secret: &SecretObject, own: &Own) -> Option<Pair> {
    let text = |key| objects::text(secret, key).map(str::to_owned);
    Some(Pair { certificate: text(own.certificate)?, key: SecretText(text(own.key)?) })
}

/// The Secret from what there is.
#[must_use]
pub fn compose(cluster: &Cluster, sources: Vec<(&'static Own, Source)>) -> SecretObject {
    let pairs = sources.into_iter().filter_map(|(own, source)| match source {
        Source::Keep(pair) | Source::Take { pair, .. } => Some((own, pair)),
        Source::Issue { .. } | Source::KubeletsOwn => None,
    });
    written(cluster, &pairs.collect::<Vec<_>>())
}

fn written(cluster: &Cluster, pairs: &[(&'static Own, Pair)]) -> SecretObject {
    let data = pairs.iter().flat_map(|(own, pair)| {
        [(own.certificate, &pair.certificate), (own.key, &pair.key.0)].map(|(key, text)| (key.to_owned(), text.clone()))
    });
    let end = earliest_end(pairs.iter().map(|(_, pair)| pair));
    let name = names::own_secret(&cluster.name);
    let annotations = [(keys::NOT_AFTER_ANNOTATION, end)];
    let mut secret = objects::secret(cluster, name, None, "Opaque", data.collect(), annotations);
    secret.annotations_mut().extend(cluster.rotate.certificates().marks());
    secret
}
