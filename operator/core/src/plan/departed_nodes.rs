//! Deletes the objects of nodes that are no longer declared, once nothing depends on them.
//!
//! The status lists the certificates of every node that has a Secret, and so names the departed nodes. Nothing has to
//! be listed, and a node is remembered as long as its member is in etcd.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keyplane_crds::{ClusterSpecStatus, reasons};

use super::{Kind, Plan, Removal, Step, pending_keys};
use crate::model::Cluster;
use crate::names;
use crate::observed::{Observed, Slot};

/// The certificate that every node with an API server has, and no worker.
const API_SERVER: &str = "apiserver";

/// Returns the former control-plane nodes that are no longer declared. The objects of workers are deleted with their
/// NodePool.
#[must_use]
pub fn departed(cluster: &Cluster, status: &ClusterSpecStatus) -> BTreeSet<String> {
    let control_plane = status.certificates.iter().filter(|certificate| certificate.name == API_SERVER);
    let listed = control_plane.filter_map(|certificate| certificate.node.clone());
    listed.filter(|name| cluster.all_nodes().all(|node| node.name != *name)).collect()
}

/// Plans the deletion of their objects.
pub(crate) fn plan(cluster: &Cluster, observed: &Observed, plan: &mut Plan) {
    for node in departed(cluster, &observed.status) {
        let left_etcd = match observed.target.confirmed_members() {
            Some(members) => members.iter().all(|member| member.name != node),
            None => cluster.external_etcd().is_some(),
        };
        if !left_etcd {
            continue;
        }
        if let Slot::Ours(found) = observed.config_map(&cluster.name, &names::node_config_map(&cluster.name, &node)) {
            plan.steps.push(removal(Kind::ConfigMap, &found.metadata, &node));
        }
        for name in pending_keys::published(cluster, Some(&node), &observed.secrets) {
            if let Slot::Ours(found) = observed.config_map(&cluster.name, &name) {
                plan.steps.push(removal(Kind::ConfigMap, &found.metadata, &node));
            }
        }
        for name in names::departed_secret_names(cluster, &node) {
            if let Slot::Ours(found) = observed.secret(&cluster.name, &name) {
                plan.steps.push(removal(Kind::Secret, &found.metadata, &node));
            }
        }
    }
}

fn removal(kind: Kind, found: &ObjectMeta, node: &str) -> Step {
    let name = found.name.clone().unwrap_or_default();
    let note = format!(
        "deleted {} {name}, because node {node} is no longer declared and not in etcd; delete its Node in the target \
         cluster: kubectl delete node {node}",
        kind.name()
    );
    let (uid, resource_version) = (found.uid.clone(), found.resource_version.clone());
    Step::Removal(Box::new(Removal { kind, name, uid, resource_version, reason: reasons::NODE_REMOVED, note }))
}
