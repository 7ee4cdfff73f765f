//! The ConfigMaps from which kubeadm and joining machines learn how the cluster was made.

use kube::DynamicObject;
use serde_json::{Value, json};

use crate::model::{Cluster, Version};
use crate::target_objects::TargetObject;
use crate::{kubeconfig, manifests};

const KUBEADM_CONFIG: &str = "kubeadm-config";
const KUBELET_CONFIG: &str = "kubelet-config";
const CLUSTER_CONFIGURATION: &str = "ClusterConfiguration";

/// kubeadm-config, kubelet-config and cluster-info. kubelet-config has no `component-config.hash` annotation: with it
/// `kubeadm upgrade` would take the content for its own defaults and drop `serverTLSBootstrap`.
pub(super) fn objects(cluster: &Cluster, trust: &str, configuration: Version) -> Vec<TargetObject> {
    let kubeadm = manifests::cluster_configuration(cluster, configuration);
    let kubelet = manifests::shared_kubelet_configuration(cluster);
    let cluster_info = kubeconfig::write_cluster_info(&cluster.endpoint, trust);
    vec![
        config_map("kube-system", KUBEADM_CONFIG, CLUSTER_CONFIGURATION, &kubeadm),
        config_map("kube-system", KUBELET_CONFIG, "kubelet", &kubelet),
        config_map("kube-public", "cluster-info", "kubeconfig", &cluster_info),
    ]
}

fn config_map(namespace: &str, name: &str, key: &str, content: &str) -> TargetObject {
    TargetObject::new("", "ConfigMap", Some(namespace), name, json!({"data": {key: content}}))
}

/// The version that a kubeadm-config says; nothing for another object.
#[must_use]
pub fn configured_version(found: &DynamicObject) -> Option<Version> {
    if found.metadata.name.as_deref() != Some(KUBEADM_CONFIG) {
        return None;
    }
    let text = found.data.get("data")?.get(CLUSTER_CONFIGURATION)?.as_str()?;
    let configuration: Value = serde_saphyr::from_str(text).ok()?;
    Version::reported(configuration.get("kubernetesVersion")?.as_str()?)
}

/// Whether the object is one that `kubeadm upgrade apply` writes for the version that it upgrades to. While kubeadm-config
/// is ahead of what belongs there, neither of the two is put back: that would undo half of an upgrade.
#[must_use]
pub fn belongs_to_kubeadm(wanted: &TargetObject) -> bool {
    let name = wanted.object.metadata.name.as_deref();
    wanted.resource.kind == "ConfigMap" && matches!(name, Some(KUBEADM_CONFIG | KUBELET_CONFIG))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_kubeadm_config_and_from_no_other_object() {
        let found = |name, text| config_map("kube-system", name, "ClusterConfiguration", text).object;
        let version = configured_version(&found("kubeadm-config", "kubernetesVersion: v1.38.1"));
        assert_eq!(version, Some(Version { minor: 38, patch: 1 }));
        assert_eq!(configured_version(&found("kubelet-config", "kubernetesVersion: v1.38.1")), None);
        assert_eq!(configured_version(&found("kubeadm-config", "kind: ClusterConfiguration")), None);
    }
}
