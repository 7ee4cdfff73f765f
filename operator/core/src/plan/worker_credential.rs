//! A client certificate for the kubelet of a worker whose own certificate was issued by a revoked CA. A kubelet without
//! a valid certificate can't request another one. The Secret has the name that the node's agent may read anyway, and is
//! deleted as soon as the kubelet has a valid certificate.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret as SecretObject;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{keys, reasons};

use super::leaf_source::{RenewalInputs, source_of};
use super::node::{need, stored_pair};
use super::secret_file::PRIVATE;
use super::{Content, Draft, Kind, Pair, Plan, Removal, Source, Step};
use crate::certificate_authorities::ClusterCas;
use crate::inventory::{LEAVES, Leaf};
use crate::kubeconfig::{self, Credential};
use crate::model::{Cluster, Node};
use crate::names;
use crate::objects::{self, IndexEntry};
use crate::observed::{Observed, Slot};
use crate::pki::places;
use crate::rotation::Stage;

/// The file, and the inventory entry of its certificate.
const KUBECONFIG: &str = "kubelet.conf";

/// Returns the inventory entry of a kubelet's kubeconfig.
pub(crate) fn leaf() -> Option<&'static Leaf> {
    LEAVES.iter().find(|leaf| leaf.name == KUBECONFIG)
}

/// Returns the worker with the fields that its kubelet's certificate needs.
pub(crate) fn machine(cluster: &Cluster, name: &str) -> Option<Node> {
    let first = cluster.nodes.first()?;
    Some(Node {
        name: name.to_owned(),
        addresses: vec![],
        advertise_address: first.advertise_address,
        failure_domain: None,
    })
}

/// Returns the names of the workers without a Secret of their own.
pub(crate) fn workers<'a>(cluster: &'a Cluster, observed: &'a Observed) -> impl Iterator<Item = &'a String> {
    observed.workers.keys().filter(|name| cluster.all_nodes().all(|machine| machine.name != **name))
}

/// Returns whether the worker's kubelet can't recover by itself: the worker is a Node, and nothing shows that its
/// kubelet has a certificate of the current CA.
fn is_cut_off(cas: &ClusterCas, observed: &Observed, name: &str) -> bool {
    let set = cas.cluster();
    let Some(server) = observed.target.rotation.kubelets.as_ref().and_then(|kubelets| kubelets.get(name)) else {
        return false;
    };
    let new = set.signing().facts();
    let report = observed.agents.get(name).and_then(|agent| agent.report.as_ref());
    let client = report.and_then(|report| report.kubelet.client.as_ref());
    let is_back = server.as_ref().is_some_and(|server| server.presents_certificate_of(new))
        && client.is_none_or(|client| client.authority_key_id == new.subject_key_id);
    set.stage() == Some(Stage::Revoke) && !is_back
}

/// Plans their Secrets, and deletes those that are no longer needed.
pub(crate) fn plan(cluster: &Cluster, cas: &ClusterCas, observed: &Observed, now: Timestamp, plan: &mut Plan) {
    for name in workers(cluster, observed) {
        let secret = names::node_secret(&cluster.name, name);
        let found = match observed.secret(&cluster.name, &secret) {
            Slot::Ours(found) => Some(found),
            Slot::Free => None,
            // A foreign object matters only if the name is needed.
            Slot::Foreign(blocker) if is_cut_off(cas, observed, name) => {
                plan.blockers.push(blocker);
                continue;
            }
            Slot::Foreign(_) => continue,
        };
        if !is_cut_off(cas, observed, name) {
            plan.steps.extend(found.map(|found| removal(found, &secret, name)));
            continue;
        }
        let (Some(leaf), Some(machine)) = (leaf(), machine(cluster, name)) else { continue };
        let inputs = RenewalInputs::of(cluster, found, now);
        let stored = found.and_then(|found| stored_pair(found, leaf));
        let need = need(cluster, &machine, leaf, stored, now);
        // The CA has its key: an external CA can't be revoked by Keyplane.
        let issuer = cas.cluster().issuer(false).facts();
        let source = source_of(need.certificate, need.order, need.terms, need.stored, issuer, &inputs);
        if let (Source::Keep(pair), Some(found)) = (&source, found) {
            let wanted = compose(cluster, name, cas, observed, pair);
            if found.data == wanted.data && objects::has_metadata(&found.metadata, &wanted.metadata) {
                continue;
            }
        }
        let content = Content::WorkerCredential { node: name.clone(), source };
        plan.steps.push(Step::Secret(Box::new(Draft { name: secret, content })));
    }
}

fn removal(found: &SecretObject, secret: &str, node: &str) -> Step {
    Step::Removal(Box::new(Removal {
        kind: Kind::Secret,
        name: secret.to_owned(),
        uid: found.metadata.uid.clone(),
        resource_version: found.metadata.resource_version.clone(),
        reason: reasons::WORKER_RETURNED,
        note: format!("deleted Secret {secret}: the kubelet of {node} manages its own certificate again"),
    }))
}

/// Composes the Secret.
#[must_use]
pub fn compose(cluster: &Cluster, node: &str, cas: &ClusterCas, observed: &Observed, pair: &Pair) -> SecretObject {
    let credential = Credential::Embedded { certificate: &pair.certificate, key: &pair.key.0 };
    let user = format!("system:node:{node}");
    let text = kubeconfig::write(&cluster.endpoint, &cas.trust(), &user, credential);
    let entry = IndexEntry::new(KUBECONFIG, &places::kubeconfig(cluster.layout(), KUBECONFIG), PRIVATE);
    let data = BTreeMap::from([(names::INDEX_KEY.to_owned(), objects::index(&[entry])), (KUBECONFIG.to_owned(), text)]);
    let name = names::node_secret(&cluster.name, node);
    let annotations = [(keys::NOT_AFTER_ANNOTATION, super::node::earliest_end(std::iter::once(pair)))];
    let mut secret = objects::secret(cluster, name, None, "Opaque", data, annotations);
    let labels = secret.metadata.labels.get_or_insert_default();
    labels.insert(keys::NODE_LABEL.to_owned(), node.to_owned());
    let pool = observed.workers.get(node).and_then(|metadata| metadata.labels.as_ref()?.get(keys::NODE_POOL_LABEL));
    // The label deletes the Secret with the pool, or when the node leaves the pool.
    labels.extend(pool.map(|pool| (keys::NODE_POOL_LABEL.to_owned(), pool.clone())));
    let annotations = secret.metadata.annotations.get_or_insert_default();
    annotations.extend(cas.revoked_annotation());
    annotations.extend(cluster.rotate.certificates().answer_annotations());
    secret
}
