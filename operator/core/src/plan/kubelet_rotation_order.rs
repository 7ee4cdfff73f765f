//! The order in which kubelets get certificates of the new CA: first the control-plane nodes one at a time, and then
//! one pool at a time.

use std::collections::BTreeMap;

use keyplane_crds::keys;

use crate::certificate_authorities::ClusterCas;
use crate::model::{Cluster, Node};
use crate::observed::{AgentFacts, Observed};
use crate::pki::CertificateFacts;
use crate::rotation::Stage;

/// Returns a message for each kubelet whose client certificate is not issued by this CA, according to agent reports.
pub(crate) fn kubelets_without_client_of(observed: &Observed, ca: &CertificateFacts) -> Vec<String> {
    let differs = |(node, agent): (&String, &AgentFacts)| {
        let report = agent.report.as_ref()?;
        let client = report.kubelet.client.as_ref()?;
        (client.authority_key_id != ca.subject_key_id).then(|| {
            let waits = if report.waits.is_empty() { String::new() } else { format!(": {}", report.waits.join("; ")) };
            format!("the kubelet of {node} to get a client certificate of the new CA{waits}")
        })
    };
    observed.agents.iter().filter_map(differs).collect()
}

/// Returns the CA that kubelets need certificates from; `None` while their certificates are still valid.
fn kubelet_ca(cas: &ClusterCas) -> Option<&CertificateFacts> {
    let set = cas.cluster();
    let (_, new) = set.old_and_new().filter(|_| set.stage() >= Some(Stage::Kubelets))?;
    Some(new.facts())
}

/// Returns the fingerprint of that CA if this control-plane node is the next one, or an earlier one.
pub(crate) fn of_node(cluster: &Cluster, node: &Node, cas: &ClusterCas, observed: &Observed) -> Option<String> {
    let new = kubelet_ca(cas)?;
    // After a revocation no kubelet has a valid certificate, so all of them change at once.
    if cas.cluster().stage() == Some(Stage::Revoke) {
        return Some(new.fingerprint());
    }
    let kubelets = observed.target.rotation.kubelets.as_ref()?;
    let is_done = |node: &Node| {
        let kubelet = kubelets.get(&node.name).and_then(Option::as_ref);
        !cluster.has_kubelet(node) || kubelet.is_some_and(|server| server.presents_certificate_of(new))
    };
    let mut earlier = cluster.nodes.iter().take_while(|other| other.name != node.name);
    earlier.all(is_done).then(|| new.fingerprint())
}

/// Returns the fingerprint of that CA for each pool that may change now. The pools change one at a time in the order of
/// their names, after the control plane.
#[must_use]
pub fn of_pools(cas: &ClusterCas, observed: &Observed) -> BTreeMap<String, String> {
    let mut permitted = BTreeMap::new();
    let Some(new) = kubelet_ca(cas) else { return permitted };
    let mut waits = BTreeMap::<Option<&String>, bool>::new();
    for (node, server) in observed.target.rotation.kubelets.iter().flatten() {
        let labels = observed.workers.get(node).and_then(|metadata| metadata.labels.as_ref());
        let pool = labels.and_then(|labels| labels.get(keys::NODE_POOL_LABEL));
        let presents = server.as_ref().is_some_and(|server| server.presents_certificate_of(new));
        *waits.entry(pool).or_default() |= !presents;
    }
    for metadata in observed.workers.values() {
        let pool = metadata.labels.as_ref().and_then(|labels| labels.get(keys::NODE_POOL_LABEL));
        waits.entry(pool).or_default();
    }
    if cas.cluster().stage() == Some(Stage::Revoke) {
        return waits.into_keys().flatten().map(|pool| (pool.clone(), new.fingerprint())).collect();
    }
    // Without an answer of the kubelets no pool may change.
    if observed.target.rotation.kubelets.is_none() {
        return permitted;
    }
    for (pool, waits) in waits {
        permitted.extend(pool.map(|pool| (pool.clone(), new.fingerprint())));
        if waits {
            break;
        }
    }
    permitted
}
