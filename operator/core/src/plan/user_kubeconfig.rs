//! The Secret `<cluster>-kubeconfig` with the kubeconfig of the cluster administrator.

use k8s_openapi::api::core::v1::Secret as SecretObject;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::keys;
use kube::ResourceExt;

use super::external_signing::{CsrBatch, waits_for_signer};
use super::leaf_source::RenewalInputs;
use super::{Content, Draft, Pair, Plan, PlannedLeaf, Source, Step, node};
use crate::certificate_authorities::ClusterCas;
use crate::checksum::checksum;
use crate::inventory::{Leaf, cluster_leaves};
use crate::kubeconfig::{self, Credential};
use crate::model::{Cluster, Node};
use crate::observed::{Observed, Slot};
use crate::pki::SecretText;
use crate::{names, objects};

/// Cluster API's key for a kubeconfig.
const VALUE_KEY: &str = "value";

/// Plans the kubeconfig's Secret.
pub(crate) fn plan(
    cluster: &Cluster,
    cas: &ClusterCas,
    csr_batch: &mut CsrBatch<'_>,
    observed: &Observed,
    now: Timestamp,
    plan: &mut Plan,
) {
    // A certificate of the cluster does not depend on the node that the function gets.
    let (Some(leaf), Some(first)) = (cluster_leaves().next(), cluster.nodes.first()) else { return };
    let name = names::kubeconfig_secret(&cluster.name);
    let found = match observed.secret(&cluster.name, &name) {
        Slot::Foreign(blocker) => return plan.blockers.push(blocker),
        Slot::Free => None,
        Slot::Ours(secret) => Some(secret),
    };
    let Some(issuer) = cas.get(leaf.issuer).map(|set| set.issuer_of(leaf)) else { return };
    let inputs = RenewalInputs::of(cluster, found, now);
    let need = node::need(cluster, first, leaf, found.and_then(stored_pair), now);
    let Some(source) = csr_batch.source(need, issuer, &inputs, plan) else {
        return plan.blockers.push(waits_for_signer(cluster, &name));
    };
    if let (Some(found), Source::Keep(pair)) = (found, &source) {
        let wanted = compose(cluster, first, leaf, cas, pair);
        if found.data == wanted.data && objects::has_metadata(&found.metadata, &wanted.metadata) {
            return;
        }
    }
    let content = Content::Kubeconfig { leaf: PlannedLeaf { leaf, source } };
    plan.steps.push(Step::Secret(Box::new(Draft { name, content })));
}

/// Returns the certificate and key in the kubeconfig's Secret.
pub(crate) fn stored_pair(secret: &SecretObject) -> Option<Pair> {
    let (certificate, key) = kubeconfig::embedded_credential(objects::text(secret, VALUE_KEY)?)?;
    Some(Pair { certificate, key: SecretText(key) })
}

/// Composes the Secret.
#[must_use]
pub fn compose(cluster: &Cluster, first: &Node, leaf: &Leaf, cas: &ClusterCas, pair: &Pair) -> SecretObject {
    let name = names::kubeconfig_secret(&cluster.name);
    let user = leaf.subject(first).common_name;
    secret(cluster, name, names::CLUSTER_API_SECRET_TYPE, &user, cas, pair)
}

/// Composes a Secret with a kubeconfig for use outside the cluster's nodes.
pub(crate) fn secret(
    cluster: &Cluster,
    name: String,
    type_: &str,
    user: &str,
    cas: &ClusterCas,
    pair: &Pair,
) -> SecretObject {
    let trust = &cas.trust();
    let credential = Credential::Embedded { certificate: &pair.certificate, key: &pair.key.0 };
    let text = kubeconfig::write_through(cluster.proxy_url(), &cluster.endpoint, trust, user, credential);
    let annotations = [
        (keys::NOT_AFTER_ANNOTATION, node::earliest_end(std::iter::once(pair))),
        (keys::ISSUER_CHECKSUM_ANNOTATION, checksum([("ca", trust.as_bytes())].into_iter())),
    ];
    let data = [(VALUE_KEY.to_owned(), text)].into();
    let mut secret = objects::secret(cluster, name, None, type_, data, annotations);
    secret.annotations_mut().extend(cluster.rotate.certificates().answer_annotations());
    secret
}
