//! The Secret `<cluster>-keyplane`: Keyplane's client certificates for a target cluster with external CAs. With other
//! CAs Keyplane issues these certificates in memory.

use k8s_openapi::api::core::v1::Secret as SecretObject;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::keys;
use kube::ResourceExt;

use super::external_signing::{CsrBatch, Need};
use super::leaf_source::RenewalInputs;
use super::node::earliest_end;
use super::{Content, Draft, Pair, Plan, Source, Step};
use crate::certificate_authorities::ClusterCas;
use crate::model::Cluster;
use crate::observed::{Observed, Slot};
use crate::pki::{CaName, CertificateTemplate, ExtendedUsage, SecretText, valid_for};
use crate::target_objects::client_subject;
use crate::{names, objects};

/// One of Keyplane's client certificates.
#[derive(Debug)]
pub struct OperatorCredential {
    /// The id in the status and in the signing request.
    pub id: &'static str,
    /// The issuer.
    pub ca: CaName,
    certificate: &'static str,
    key: &'static str,
}

/// The client certificates for the API servers and for etcd.
pub(crate) const OPERATOR_CREDENTIALS: [OperatorCredential; 2] = [
    OperatorCredential { id: "keyplane", ca: CaName::Cluster, certificate: "tls.crt", key: "tls.key" },
    OperatorCredential { id: "keyplane-etcd", ca: CaName::Etcd, certificate: "etcd.crt", key: "etcd.key" },
];

/// Plans the Secret.
pub(crate) fn plan(
    cluster: &Cluster,
    cas: &ClusterCas,
    csr_batch: &mut CsrBatch<'_>,
    observed: &Observed,
    now: Timestamp,
    plan: &mut Plan,
) {
    let needed = |own: &&'static OperatorCredential| cas.get(own.ca).is_some_and(|set| set.signing().key().is_none());
    let needed: Vec<_> = OPERATOR_CREDENTIALS.iter().filter(needed).collect();
    if needed.is_empty() {
        return;
    }
    let name = names::own_secret(&cluster.name);
    let found = match observed.secret(&cluster.name, &name) {
        Slot::Foreign(blocker) => return plan.blockers.push(blocker),
        Slot::Free => None,
        Slot::Ours(secret) => Some(secret),
    };
    let inputs = RenewalInputs::of(cluster, found, now);
    let mut sources = vec![];
    for own in needed {
        let Some(set) = cas.get(own.ca) else { continue };
        let terms = cluster.policy.leaf(own.id);
        let (not_before, not_after) = valid_for(now, terms.validity);
        let order = CertificateTemplate {
            subject: client_subject(),
            alternative_names: vec![],
            extended_usages: vec![ExtendedUsage::ClientAuth],
            not_before,
            not_after,
        };
        let stored = found.and_then(|secret| stored_pair(secret, own));
        let (id, ca) = (own.id.to_owned(), own.ca);
        let need = Need { id, certificate: own.id, ca, order, terms, stored };
        sources.extend(csr_batch.source(need, set.issuer(false), &inputs, plan).map(|source| (own, source)));
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

/// Returns the client certificate and key for the servers of an external CA; `None` until the certificate is signed.
#[must_use]
pub fn own_credential(secret: &SecretObject, ca: CaName) -> Option<(String, String)> {
    let own = OPERATOR_CREDENTIALS.iter().find(|own| own.ca == ca)?;
    stored_pair(secret, own).map(|pair| (pair.certificate, pair.key.0))
}

pub(crate) fn stored_pair(secret: &SecretObject, own: &OperatorCredential) -> Option<Pair> {
    let text = |key| objects::text(secret, key).map(str::to_owned);
    Some(Pair { certificate: text(own.certificate)?, key: SecretText(text(own.key)?) })
}

/// Composes the Secret from the available certificates.
#[must_use]
pub fn compose(cluster: &Cluster, sources: Vec<(&'static OperatorCredential, Source)>) -> SecretObject {
    let pairs = sources.into_iter().filter_map(|(own, source)| match source {
        Source::Keep(pair) | Source::Signed { pair, .. } => Some((own, pair)),
        Source::Issue { .. } | Source::KubeletManaged => None,
    });
    written(cluster, &pairs.collect::<Vec<_>>())
}

fn written(cluster: &Cluster, pairs: &[(&'static OperatorCredential, Pair)]) -> SecretObject {
    let data = pairs.iter().flat_map(|(own, pair)| {
        [(own.certificate, &pair.certificate), (own.key, &pair.key.0)].map(|(key, text)| (key.to_owned(), text.clone()))
    });
    let end = earliest_end(pairs.iter().map(|(_, pair)| pair));
    let name = names::own_secret(&cluster.name);
    let annotations = [(keys::NOT_AFTER_ANNOTATION, end)];
    let mut secret = objects::secret(cluster, name, None, "Opaque", data.collect(), annotations);
    secret.annotations_mut().extend(cluster.rotate.certificates().answer_annotations());
    secret
}
