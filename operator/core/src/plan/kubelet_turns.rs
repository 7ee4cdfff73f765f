//! Whose kubelets get certificates from another authority now: the control plane's one machine after the other, and then
//! one pool after the other.

use std::collections::BTreeMap;

use keyplane_crds::keys;

use crate::authorities::Authorities;
use crate::model::{Cluster, Node};
use crate::observed::AgentFacts;
use crate::observed::Observed;
use crate::pki::CertificateFacts;
use crate::rotation::Stage;

/// The kubelets whose client certificates are not of this authority, as far as agents tell.
pub(super) fn clients_not_of(observed: &Observed, authority: &CertificateFacts) -> Vec<String> {
    let differs = |(node, agent): (&String, &AgentFacts)| {
        let report = agent.report.as_ref()?;
        let client = report.kubelet.client.as_ref()?;
        (client.authority_key_id != authority.subject_key_id).then(|| {
            let waits = if report.waits.is_empty() { String::new() } else { format!(": {}", report.waits.join("; ")) };
            format!("the kubelet of {node} to get a client certificate of the new authority{waits}")
        })
    };
    observed.agents.iter().filter_map(differs).collect()
}

/// The authority from which kubelets are to get certificates; nothing while theirs are good as they are.
fn authority(authorities: &Authorities) -> Option<&CertificateFacts> {
    let set = authorities.cluster();
    let (_, new) = set.old_and_new().filter(|_| set.stage() >= Some(Stage::Kubelets))?;
    Some(new.facts())
}

/// The fingerprint of that authority, if it is the turn of this control-plane machine: one after the other.
pub(super) fn of_machine(
    cluster: &Cluster,
    node: &Node,
    authorities: &Authorities,
    observed: &Observed,
) -> Option<String> {
    let new = authority(authorities)?;
    // Nothing is left that others would have to wait for.
    if authorities.cluster().stage() == Some(Stage::Revoke) {
        return Some(new.fingerprint());
    }
    let kubelets = observed.target.rotation.kubelets.as_ref()?;
    let is_done = |node: &Node| {
        let kubelet = kubelets.get(&node.name).and_then(Option::as_ref);
        !cluster.has_kubelet(node) || kubelet.is_some_and(|server| server.presents_one_of(new))
    };
    let mut earlier = cluster.nodes.iter().take_while(|other| other.name != node.name);
    earlier.all(is_done).then(|| new.fingerprint())
}

/// The fingerprint of the authority from which kubelets are to get certificates, for each pool whose turn has come: one
/// pool after the other, by their names, and the control plane before all of them.
#[must_use]
pub fn of_pools(authorities: &Authorities, observed: &Observed) -> BTreeMap<String, String> {
    let mut turns = BTreeMap::new();
    let Some(new) = authority(authorities) else { return turns };
    let mut waits = BTreeMap::<Option<&String>, bool>::new();
    for (node, server) in observed.target.rotation.kubelets.iter().flatten() {
        let labels = observed.workers.get(node).and_then(|metadata| metadata.labels.as_ref());
        let pool = labels.and_then(|labels| labels.get(keys::NODE_POOL_LABEL));
        let presents = server.as_ref().is_some_and(|server| server.presents_one_of(new));
        *waits.entry(pool).or_default() |= !presents;
    }
    for metadata in observed.workers.values() {
        let pool = metadata.labels.as_ref().and_then(|labels| labels.get(keys::NODE_POOL_LABEL));
        waits.entry(pool).or_default();
    }
    if authorities.cluster().stage() == Some(Stage::Revoke) {
        return waits.into_keys().flatten().map(|pool| (pool.clone(), new.fingerprint())).collect();
    }
    // Without an answer of the kubelets it is nobody's turn.
    if observed.target.rotation.kubelets.is_none() {
        return turns;
    }
    for (pool, waits) in waits {
        turns.extend(pool.map(|pool| (pool.clone(), new.fingerprint())));
        if waits {
            break;
        }
    }
    turns
}
