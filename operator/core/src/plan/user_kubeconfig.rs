//! The Secret `<cluster>-kubeconfig`: how the cluster's owner reaches it.

use k8s_openapi::api::core::v1::Secret as SecretObject;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::keys;
use kube::ResourceExt;

use super::node::Asked;
use super::signing::{Desk, waits_for_signer};
use super::{Content, Draft, Pair, Plan, PlannedLeaf, Source, Step, node};
use crate::authorities::Authorities;
use crate::checksum::checksum;
use crate::inventory::{Leaf, cluster_leaves};
use crate::kubeconfig::{self, Credential};
use crate::model::{Cluster, Node};
use crate::names;
use crate::objects;
use crate::observed::Observed;
use crate::observed::Slot;
use crate::pki::SecretText;

/// Cluster API's key for a kubeconfig.
const VALUE_KEY: &str = "value";

/// Plans the kubeconfig's Secret.
pub(super) fn plan(
    cluster: &Cluster,
    authorities: &Authorities,
    desk: &mut Desk<'_>,
    observed: &Observed,
    now: Timestamp,
    plan: &mut Plan,
) {
    // A certificate of the cluster takes nothing from the node that it is computed for.
    let (Some(leaf), Some(first)) = (cluster_leaves().next(), cluster.nodes.first()) else { return };
    let name = names::kubeconfig_secret(&cluster.name);
    let found = match observed.secret(&cluster.name, &name) {
        Slot::Foreign(blocker) => return plan.blockers.push(blocker),
        Slot::Free => None,
        Slot::Ours(secret) => Some(secret),
    };
    let Some(issuer) = authorities.get(leaf.issuer).map(|set| set.issuer_of(leaf)) else { return };
    let asked = Asked::of(cluster, found, now);
    let need = node::need(cluster, first, leaf, found.and_then(stored_pair), now);
    let Some(source) = desk.source(need, issuer, &asked, plan) else {
        return plan.blockers.push(waits_for_signer(cluster, &name));
    };
    if let (Some(found), Source::Keep(pair)) = (found, &source) {
        let wanted = compose(cluster, first, leaf, authorities, pair);
        if found.data == wanted.data && objects::has_metadata(&found.metadata, &wanted.metadata) {
            return;
        }
    }
    let content = Content::Kubeconfig { leaf: PlannedLeaf { leaf, source } };
    plan.steps.push(Step::Secret(Box::new(Draft { name, content })));
}

/// The certificate and key in the kubeconfig's Secret.
pub(super) fn stored_pair(secret: &SecretObject) -> Option<Pair> {
    let (certificate, key) = kubeconfig::embedded_credential(objects::text(secret, VALUE_KEY)?)?;
    Some(Pair { certificate, key: SecretText(key) })
}

/// The Secret from its certificate.
#[must_use]
pub fn compose(cluster: &Cluster, first: &Node, leaf: &Leaf, authorities: &Authorities, pair: &Pair) -> SecretObject {
    let name = names::kubeconfig_secret(&cluster.name);
    let user = leaf.subject(first).common_name;
    secret(cluster, name, names::CLUSTER_API_SECRET_TYPE, &user, authorities, pair)
}

/// A Secret with a kubeconfig for somebody who is not on a machine of the cluster.
pub(super) fn secret(
    cluster: &Cluster,
    name: String,
    type_: &str,
    user: &str,
    authorities: &Authorities,
    pair: &Pair,
) -> SecretObject {
    let trust = &authorities.trust();
    let credential = Credential::Embedded { certificate: &pair.certificate, key: &pair.key.0 };
    let text = kubeconfig::write_through(cluster.proxy_url(), &cluster.endpoint, trust, user, credential);
    let annotations = [
        (keys::NOT_AFTER_ANNOTATION, node::earliest_end(std::iter::once(pair))),
        (keys::ISSUER_CHECKSUM_ANNOTATION, checksum([("ca", trust.as_bytes())].into_iter())),
    ];
    let data = [(VALUE_KEY.to_owned(), text)].into();
    let mut secret = objects::secret(cluster, name, None, type_, data, annotations);
    secret.annotations_mut().extend(cluster.rotate.certificates().marks());
    secret
}
