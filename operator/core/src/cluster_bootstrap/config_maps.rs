//! The ConfigMaps from which kubeadm and joining nodes read the configuration of the cluster.

use kube::DynamicObject;
use serde_json::{Value, json};

use crate::model::{Cluster, Version};
use crate::target_objects::TargetObject;
use crate::{kubeconfig, manifests};

const KUBEADM_CONFIG: &str = "kubeadm-config";
const KUBELET_CONFIG: &str = "kubelet-config";
const CLUSTER_CONFIGURATION: &str = "ClusterConfiguration";

/// Returns kubeadm-config, kubelet-config and cluster-info. kubelet-config has no `component-config.hash` annotation:
/// with the annotation `kubeadm upgrade` would take the content for kubeadm's defaults and remove `serverTLSBootstrap`.
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

/// Returns the version in kubeadm-config. `None` for any other object.
#[must_use]
pub fn configured_version(found: &DynamicObject) -> Option<Version> {
    if found.metadata.name.as_deref() != Some(KUBEADM_CONFIG) {
        return None;
    }
    let text = found.data.get("data")?.get(CLUSTER_CONFIGURATION)?.as_str()?;
    let configuration: Value = serde_saphyr::from_str(text).ok()?;
    Version::reported(configuration.get("kubernetesVersion")?.as_str()?)
}

/// Returns whether `kubeadm upgrade apply` writes the object for the new version. While the version in kubeadm-config
/// is newer than desired, Keyplane changes neither of the two objects: a change would undo half of an upgrade.
#[must_use]
pub fn belongs_to_kubeadm(desired: &TargetObject) -> bool {
    let name = desired.object.metadata.name.as_deref();
    desired.resource.kind == "ConfigMap" && matches!(name, Some(KUBEADM_CONFIG | KUBELET_CONFIG))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_version_from_kubeadm_config_only() {
        let found = |name, text| config_map("kube-system", name, "ClusterConfiguration", text).object;
        let version = configured_version(&found("kubeadm-config", "kubernetesVersion: v1.38.1"));
        assert_eq!(version, Some(Version { minor: 38, patch: 1 }));
        assert_eq!(configured_version(&found("kubelet-config", "kubernetesVersion: v1.38.1")), None);
        assert_eq!(configured_version(&found("kubeadm-config", "kind: ClusterConfiguration")), None);
    }
}
