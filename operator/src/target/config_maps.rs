//! The ConfigMaps from which kubeadm and joining machines learn how the cluster was made.

use serde_json::json;

use super::TargetObject;
use crate::cluster::Cluster;
use crate::{kubeconfig, manifests};

/// kubeadm-config, kubelet-config and cluster-info. kubelet-config has no `component-config.hash` annotation: with it
/// `kubeadm upgrade` would take the content for its own defaults and drop `serverTLSBootstrap`.
pub(super) fn objects(cluster: &Cluster, trust: &str) -> Vec<TargetObject> {
    let kubeadm = manifests::cluster_configuration(cluster);
    let kubelet = manifests::shared_kubelet_configuration(cluster);
    let cluster_info = kubeconfig::write_cluster_info(&cluster.endpoint, trust);
    vec![
        config_map("kube-system", "kubeadm-config", "ClusterConfiguration", &kubeadm),
        config_map("kube-system", "kubelet-config", "kubelet", &kubelet),
        config_map("kube-public", "cluster-info", "kubeconfig", &cluster_info),
    ]
}

fn config_map(namespace: &str, name: &str, key: &str, content: &str) -> TargetObject {
    TargetObject::new("", "ConfigMap", Some(namespace), name, json!({"data": {key: content}}))
}
