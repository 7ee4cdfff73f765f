//! Which machines hold what is written for them, as far as somebody says so.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;

use super::{Observed, objects};
use crate::cluster::Cluster;
use crate::pki::CertificateFacts;

/// Annotation on each of a machine's two objects, by whoever has carried it to the machine: the checksum of the content
/// that is there.
pub const CARRIED_ANNOTATION: &str = "keyplane.io/carried";

/// The machines that do not hold yet what is written for them, each with what is to be done.
#[must_use]
pub fn not_current(cluster: &Cluster, observed: &Observed, _now: Timestamp) -> Vec<String> {
    let of_node = |name: &str| {
        let (secret, config_map) =
            (objects::node_secret(&cluster.name, name), objects::node_config_map(&cluster.name, name));
        let of_secret = observed.secrets.get(&secret).map(|found| ("Secret", &secret, &found.metadata));
        let of_config_map =
            observed.config_maps.get(&config_map).map(|found| ("ConfigMap", &config_map, &found.metadata));
        let missing = of_secret.into_iter().chain(of_config_map).find(|(_, _, metadata)| !is_carried(metadata));
        missing.map(|(kind, object, _)| {
            format!(
                "{name} to hold {kind} {object}: carry it there, then annotate it with {CARRIED_ANNOTATION}=<its {}>",
                objects::CONTENT_CHECKSUM_ANNOTATION
            )
        })
    };
    cluster.machines().filter_map(|node| of_node(&node.name)).collect()
}

fn is_carried(metadata: &ObjectMeta) -> bool {
    let annotation = |name: &str| metadata.annotations.as_ref()?.get(name);
    annotation(CARRIED_ANNOTATION)
        .is_some_and(|carried| annotation(objects::CONTENT_CHECKSUM_ANNOTATION) == Some(carried))
}

/// The kubelets whose client certificates are not of this authority, as far as agents tell.
#[must_use]
pub fn kubelet_clients_not_of(_observed: &Observed, _authority: &CertificateFacts) -> Vec<String> {
    vec![]
}
