//! The objects that kubeadm and Keyplane need in a target cluster.

mod config_maps;
mod rbac;

pub use config_maps::{belongs_to_kubeadm, configured_version};

use crate::model::{Cluster, Version};
use crate::target_objects::TargetObject;

/// Returns all desired objects, RBAC objects first. `trust` is the CA bundle for clients of the target cluster,
/// `configuration` is the version in kubeadm-config.
#[must_use]
pub fn objects(cluster: &Cluster, trust: &str, configuration: Version, is_rotating: bool) -> Vec<TargetObject> {
    let mut objects = rbac::objects(cluster, is_rotating);
    objects.extend(config_maps::objects(cluster, trust, configuration));
    objects
}

/// Returns the objects to delete, which Keyplane may have created with another policy.
#[must_use]
pub fn obsolete_objects(cluster: &Cluster) -> Vec<TargetObject> {
    if cluster.policy.requests.approves_clients() { rbac::auto_approval() } else { vec![] }
}
