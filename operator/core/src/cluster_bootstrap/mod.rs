//! The objects that kubeadm and Keyplane need inside a target cluster.

mod config_maps;
mod rbac;

pub use config_maps::{belongs_to_kubeadm, configured_version};

use crate::model::{Cluster, Version};
use crate::target_objects::TargetObject;

/// Everything that belongs in the target, rights first. `trust` is the bundle that the target's clients verify with,
/// `configuration` the version that kubeadm-config says.
#[must_use]
pub fn objects(cluster: &Cluster, trust: &str, configuration: Version, is_rotating: bool) -> Vec<TargetObject> {
    let mut objects = rbac::objects(cluster, is_rotating);
    objects.extend(config_maps::objects(cluster, trust, configuration));
    objects
}

/// What does not belong in the target, though Keyplane may have put it there under another policy.
#[must_use]
pub fn unwanted(cluster: &Cluster) -> Vec<TargetObject> {
    if cluster.policy.requests.approves_clients() { rbac::auto_approval() } else { vec![] }
}
