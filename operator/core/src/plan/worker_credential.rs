//! A client certificate for the kubelet of a worker whose own is refused, because the authority that it is from was
//! revoked. A kubelet without one can't ask for another. Its Secret bears the name that the machine's agent may read anyway,
//! and goes as soon as the kubelet is back.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret as SecretObject;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{keys, reasons};

use super::node::{Asked, PRIVATE, need, source_of, stored_pair};
use super::{Content, Draft, Kind, Pair, Plan, Removal, Source, Step};
use crate::authorities::Authorities;
use crate::inventory::{LEAVES, Leaf};
use crate::kubeconfig::{self, Credential};
use crate::model::{Cluster, Node};
use crate::names;
use crate::objects;
use crate::objects::IndexEntry;
use crate::observed::Observed;
use crate::observed::Slot;
use crate::pki::places;
use crate::rotation::Stage;

/// Its file, and the leaf in it.
const KUBECONFIG: &str = "kubelet.conf";

/// The kubeconfig of a kubelet.
pub(super) fn leaf() -> Option<&'static Leaf> {
    LEAVES.iter().find(|leaf| leaf.name == KUBECONFIG)
}

/// The worker as far as its kubelet's certificate needs it.
pub(super) fn machine(cluster: &Cluster, name: &str) -> Option<Node> {
    let first = cluster.nodes.first()?;
    Some(Node {
        name: name.to_owned(),
        addresses: vec![],
        advertise_address: first.advertise_address,
        failure_domain: None,
    })
}

/// The names of the workers that have no Secret otherwise.
pub(super) fn workers<'a>(cluster: &'a Cluster, observed: &'a Observed) -> impl Iterator<Item = &'a String> {
    observed.workers.keys().filter(|name| cluster.machines().all(|machine| machine.name != **name))
}

/// Whether the worker's kubelet can't come back by itself: it is a Node, and nothing shows that it has a certificate of the
/// authority that holds now.
fn is_cut_off(authorities: &Authorities, observed: &Observed, name: &str) -> bool {
    let set = authorities.cluster();
    let Some(server) = observed.target.rotation.kubelets.as_ref().and_then(|kubelets| kubelets.get(name)) else {
        return false;
    };
    let new = set.signing().facts();
    let report = observed.agents.get(name).and_then(|agent| agent.report.as_ref());
    let client = report.and_then(|report| report.kubelet.client.as_ref());
    let is_back = server.as_ref().is_some_and(|server| server.presents_one_of(new))
        && client.is_none_or(|client| client.authority_key_id == new.subject_key_id);
    set.stage() == Some(Stage::Revoke) && !is_back
}

/// Plans their Secrets, and the end of those that are not needed any more.
pub(super) fn plan(cluster: &Cluster, authorities: &Authorities, observed: &Observed, now: Timestamp, plan: &mut Plan) {
    for name in workers(cluster, observed) {
        let secret = names::node_secret(&cluster.name, name);
        let found = match observed.secret(&cluster.name, &secret) {
            Slot::Ours(found) => Some(found),
            Slot::Free => None,
            // It is told of only if it is in the way.
            Slot::Foreign(blocker) if is_cut_off(authorities, observed, name) => {
                plan.blockers.push(blocker);
                continue;
            }
            Slot::Foreign(_) => continue,
        };
        if !is_cut_off(authorities, observed, name) {
            plan.steps.extend(found.map(|found| removal(found, &secret, name)));
            continue;
        }
        let (Some(leaf), Some(machine)) = (leaf(), machine(cluster, name)) else { continue };
        let asked = Asked::of(cluster, found, now);
        let stored = found.and_then(|found| stored_pair(found, leaf));
        let need = need(cluster, &machine, leaf, stored, now);
        // Its key is here: one whose owner signs outside is not revoked here.
        let issuer = authorities.cluster().issuer(false).facts();
        let source = source_of(need.certificate, need.order, need.terms, need.stored, issuer, &asked);
        if let (Source::Keep(pair), Some(found)) = (&source, found) {
            let wanted = compose(cluster, name, authorities, observed, pair);
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
        note: format!("deleted Secret {secret}: the kubelet of {node} has a certificate of its own again"),
    }))
}

/// The Secret.
#[must_use]
pub fn compose(
    cluster: &Cluster,
    node: &str,
    authorities: &Authorities,
    observed: &Observed,
    pair: &Pair,
) -> SecretObject {
    let credential = Credential::Embedded { certificate: &pair.certificate, key: &pair.key.0 };
    let user = format!("system:node:{node}");
    let text = kubeconfig::write(&cluster.endpoint, &authorities.trust(), &user, credential);
    let entry = IndexEntry::new(KUBECONFIG, &places::kubeconfig(cluster.layout(), KUBECONFIG), PRIVATE);
    let data = BTreeMap::from([(names::INDEX_KEY.to_owned(), objects::index(&[entry])), (KUBECONFIG.to_owned(), text)]);
    let name = names::node_secret(&cluster.name, node);
    let annotations = [(keys::NOT_AFTER_ANNOTATION, super::node::earliest_end(std::iter::once(pair)))];
    let mut secret = objects::secret(cluster, name, None, "Opaque", data, annotations);
    let labels = secret.metadata.labels.get_or_insert_default();
    labels.insert(keys::NODE_LABEL.to_owned(), node.to_owned());
    let pool = observed.workers.get(node).and_then(|metadata| metadata.labels.as_ref()?.get(keys::NODE_POOL_LABEL));
    // With its pool, or when it leaves it, the Secret goes too.
    labels.extend(pool.map(|pool| (keys::NODE_POOL_LABEL.to_owned(), pool.clone())));
    let annotations = secret.metadata.annotations.get_or_insert_default();
    annotations.extend(authorities.revoked_annotation());
    annotations.extend(cluster.rotate.certificates().marks());
    secret
}
