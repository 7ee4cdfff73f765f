//! The files of the kubelet (kubeadm's `phases/kubelet` and `componentconfigs/kubelet.go`).

use keyplane_crds::Layout;
use serde_json::{Map, Value, json};

use crate::host_files::CONTAINER_RUNTIME_ENDPOINT;
use crate::model::{Cluster, Node};
use crate::pki::places::{HARD_WAY_KUBELET_CA, PKI_DIRECTORY};
use crate::yaml;

/// Renders the KubeletConfiguration of control-plane nodes: the shared one, the container runtime endpoint and the
/// settings in `spec.controlPlane.kubelet`.
#[must_use]
pub fn kubelet_configuration(cluster: &Cluster) -> String {
    yaml::write(&node_kubelet_configuration(cluster, cluster.spec.control_plane.kubelet.as_ref()))
}

/// Returns the KubeletConfiguration of a group of nodes: the shared one, the container runtime endpoint and the user's
/// settings for these nodes.
#[must_use]
pub fn node_kubelet_configuration(cluster: &Cluster, settings: Option<&Map<String, Value>>) -> Value {
    let mut configuration = base(cluster);
    configuration["containerRuntimeEndpoint"] = CONTAINER_RUNTIME_ENDPOINT.into();
    if cluster.layout() == Layout::Systemd {
        configuration["authentication"]["x509"]["clientCAFile"] = HARD_WAY_KUBELET_CA.into();
        // The layout Systemd has no static pods.
        configuration.as_object_mut().and_then(|fields| fields.remove("staticPodPath"));
    }
    if let Some(settings) = settings {
        yaml::merge(&mut configuration, &Value::Object(settings.clone()));
    }
    configuration
}

/// Renders the shared KubeletConfiguration in the ConfigMap `kube-system/kubelet-config`.
#[must_use]
pub fn shared_kubelet_configuration(cluster: &Cluster) -> String {
    yaml::write(&base(cluster))
}

/// Renders `/var/lib/kubelet/instance-config.yaml`, from which kubeadm reads the container runtime endpoint.
#[must_use]
pub fn instance_configuration() -> String {
    format!("containerRuntimeEndpoint: \"{CONTAINER_RUNTIME_ENDPOINT}\"\n")
}

/// Returns the flags for the name and the addresses of a node. kubeadm uses the host name and lets the kubelet choose
/// its address. Keyplane declares both, because it approves serving certificates only for declared names and addresses.
pub(super) fn node_flags(cluster: &Cluster, node: &Node) -> [String; 2] {
    let addresses = cluster.node_ips(node.advertise_address, &node.addresses);
    let addresses = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    [format!("--hostname-override={}", node.name), format!("--node-ip={addresses}")]
}

/// Renders `/var/lib/kubelet/kubeadm-flags.env`.
#[must_use]
pub fn flags_env(cluster: &Cluster, node: &Node) -> String {
    format!("KUBELET_KUBEADM_ARGS=\"{}\"\n", node_flags(cluster, node).join(" "))
}

/// Returns the configuration that kubeadm marshals, with the zero values that the Go type can't omit.
fn base(cluster: &Cluster) -> Value {
    let cluster_dns: Vec<_> = cluster.dns_service_address().iter().map(ToString::to_string).collect();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"cacheTTL": "0s", "enabled": true},
            "x509": {"clientCAFile": format!("{PKI_DIRECTORY}/ca.crt")},
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": {"cacheAuthorizedTTL": "0s", "cacheUnauthorizedTTL": "0s"},
        },
        "cgroupDriver": "systemd",
        "clusterDNS": cluster_dns,
        "clusterDomain": cluster.spec.network.dns_domain,
        "containerRuntimeEndpoint": "",
        "cpuManagerReconcilePeriod": "0s",
        "crashLoopBackOff": {},
        "evictionPressureTransitionPeriod": "0s",
        "fileCheckFrequency": "0s",
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        "httpCheckFrequency": "0s",
        "imageMaximumGCAge": "0s",
        "imageMinimumGCAge": "0s",
        "logging": {
            "flushFrequency": 0,
            "options": {"json": {"infoBufferSize": "0"}, "text": {"infoBufferSize": "0"}},
            "verbosity": 0,
        },
        "memorySwap": {},
        "nodeStatusReportFrequency": "0s",
        "nodeStatusUpdateFrequency": "0s",
        "rotateCertificates": true,
        "runtimeRequestTimeout": "0s",
        // Not kubeadm's: the cluster CA signs the serving certificate, in place of a self-signed one.
        "serverTLSBootstrap": true,
        "shutdownGracePeriod": "0s",
        "shutdownGracePeriodCriticalPods": "0s",
        "staticPodPath": "/etc/kubernetes/manifests",
        "streamingConnectionIdleTimeout": "0s",
        "syncFrequency": "0s",
        "volumeStatsAggPeriod": "0s",
    })
}
