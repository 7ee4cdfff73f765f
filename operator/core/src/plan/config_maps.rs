//! ConfigMaps derived from the spec.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

use super::{Plan, Step, kubelet_rotation_order};
use crate::certificate_authorities::ClusterCas;
use crate::manifests::{self, systemd};
use crate::model::{Cluster, Node};
use crate::names::{INDEX_KEY, KUBEADM_CONFIG_KEY, node_config_map, trust_bundle_config_map};
use crate::objects::{IndexEntry, config_map, config_map_to_write, index};
use crate::observed::{Observed, Slot};
use crate::rollout::{Rollout, initial_cluster};
use keyplane_crds::keys;

/// Returns the trust bundle: the CA certificates that sign for the cluster's API. The roots above them have a key of
/// their own and are not in the bundle: every other CA below such a root would be trusted too.
pub(crate) fn trust_bundle(cluster: &Cluster, cas: &ClusterCas) -> ConfigMap {
    let roots = cas.cluster().roots().map(|roots| ("root.crt".to_owned(), roots));
    let data = std::iter::once(("ca.crt".to_owned(), cas.trust())).chain(roots).collect();
    config_map(cluster, trust_bundle_config_map(&cluster.name), None, data)
}

/// Returns the files of a control-plane node that are not secret, as far as they are rolled out.
pub(crate) fn node_config(
    cluster: &Cluster,
    node: &Node,
    cas: &ClusterCas,
    rollout: &Rollout,
    observed: &Observed,
) -> ConfigMap {
    let name = node_config_map(&cluster.name, &node.name);
    let before = match observed.config_map(&cluster.name, &name) {
        Slot::Ours(found) => found.data.as_ref(),
        Slot::Free | Slot::Foreign(_) => None,
    };
    let network = systemd::pod_network(cluster, node, observed.target.pod_ranges.as_ref(), before);
    let files: Vec<_> = rollout.files(node).iter().chain(&network).collect();
    let entries: Vec<_> = files.iter().map(|file| IndexEntry::new(&file.key, &file.path, file.mode)).collect();
    let configuration = manifests::cluster_configuration(cluster, rollout.configuration);
    let mut data =
        BTreeMap::from([(INDEX_KEY.to_owned(), index(&entries)), (KUBEADM_CONFIG_KEY.to_owned(), configuration)]);
    data.extend(files.iter().map(|file| (file.key.to_string(), file.content.clone())));
    let joins = initial_cluster::of(cluster, node, observed);
    let mut config_map = config_map(cluster, name, Some(node), data);
    let ca = kubelet_rotation_order::of_node(cluster, node, cas, observed);
    config_map.annotations_mut().extend(ca.map(|ca| (keys::KUBELET_CA_ANNOTATION.to_owned(), ca)));
    let restart =
        rollout.etcd_restart(node).map(|checksum| (keys::ETCD_RESTART_ANNOTATION.to_owned(), checksum.to_owned()));
    config_map.annotations_mut().extend(restart);
    if cluster.spec.node_agent.is_some() {
        config_map
            .annotations_mut()
            .insert(keys::RESTART_PERMIT_ANNOTATION.to_owned(), rollout.restart_permit(node).to_owned());
    }
    if cluster.external_etcd().is_none() {
        config_map.metadata.annotations.get_or_insert_default().extend([
            (keys::ETCD_INITIAL_CLUSTER_ANNOTATION.to_owned(), joins.flags.to_text()),
            (keys::ETCD_MEMBER_ANNOTATION.to_owned(), joins.known.name().to_owned()),
        ]);
    }
    config_map
}

/// Plans a ConfigMap that is derived from the spec.
pub(crate) fn plan_config_map(wanted: ConfigMap, observed: &Observed, plan: &mut Plan) {
    let name = wanted.metadata.name.as_deref().unwrap_or_default();
    let cluster = wanted.metadata.labels.as_ref().and_then(|labels| labels.get(keys::CLUSTER_LABEL));
    match observed.config_map(cluster.map_or("", String::as_str), name) {
        Slot::Foreign(blocker) => plan.blockers.push(blocker),
        Slot::Ours(found) => {
            let write = config_map_to_write(Some(found), wanted);
            plan.steps.extend(write.map(|wanted| Step::ConfigMap(Box::new(wanted))));
        }
        Slot::Free => plan.steps.push(Step::ConfigMap(Box::new(wanted))),
    }
}
