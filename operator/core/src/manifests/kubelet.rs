//! The kubelet's files (kubeadm's `phases/kubelet` and `componentconfigs/kubelet.go`).

use keyplane_crds::Layout;
use serde_json::{Map, Value, json};

use crate::host_files::CONTAINER_RUNTIME_ENDPOINT;
use crate::model::{Cluster, Node};
use crate::pki::places::{HARD_WAY_KUBELET_AUTHORITY, PKI_DIRECTORY};
use crate::yaml;

/// The kubelet's configuration on a machine: the cluster's, the machine's runtime and, on a control-plane node, the user's
/// settings for these nodes.
#[must_use]
pub fn kubelet_configuration(cluster: &Cluster) -> String {
    yaml::write(&configuration_of_machines(cluster, cluster.spec.control_plane.kubelet.as_ref()))
}

/// The cluster's configuration, the machine's runtime and the user's settings for some machines.
#[must_use]
pub fn configuration_of_machines(cluster: &Cluster, settings: Option<&Map<String, Value>>) -> Value {
    let mut configuration = base(cluster);
    configuration["containerRuntimeEndpoint"] = CONTAINER_RUNTIME_ENDPOINT.into();
    if cluster.layout() == Layout::Systemd {
        configuration["authentication"]["x509"]["clientCAFile"] = HARD_WAY_KUBELET_AUTHORITY.into();
        // Nothing runs as a static pod there.
        configuration.as_object_mut().and_then(|fields| fields.remove("staticPodPath"));
    }
    if let Some(settings) = settings {
        yaml::merge(&mut configuration, &Value::Object(settings.clone()));
    }
    configuration
}

/// The configuration that all kubelets share: the ConfigMap `kube-system/kubelet-config`.
#[must_use]
pub fn shared_kubelet_configuration(cluster: &Cluster) -> String {
    yaml::write(&base(cluster))
}

/// `/var/lib/kubelet/instance-config.yaml`, where kubeadm looks for the container runtime.
#[must_use]
pub fn instance_configuration() -> String {
    format!("containerRuntimeEndpoint: \"{CONTAINER_RUNTIME_ENDPOINT}\"\n")
}

/// What the kubelet is told of its machine. kubeadm asks the machine for its name and lets the kubelet choose its address;
/// here both are declared, and the serving certificate is approved for what is declared.
pub(super) fn machine_flags(cluster: &Cluster, node: &Node) -> [String; 2] {
    let addresses = cluster.node_ips(node.advertise_address, &node.addresses);
    let addresses = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    [format!("--hostname-override={}", node.name), format!("--node-ip={addresses}")]
}

/// `/var/lib/kubelet/kubeadm-flags.env`.
#[must_use]
pub fn flags_env(cluster: &Cluster, node: &Node) -> String {
    format!("KUBELET_KUBEADM_ARGS=\"{}\"\n", machine_flags(cluster, node).join(" "))
}

/// What kubeadm marshals, with the zero values that the API type has no way to leave out.
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
        // Not kubeadm's: a serving certificate that the cluster's authority signed, not one that the kubelet signed itself.
        "serverTLSBootstrap": true,
        "shutdownGracePeriod": "0s",
        "shutdownGracePeriodCriticalPods": "0s",
        "staticPodPath": "/etc/kubernetes/manifests",
        "streamingConnectionIdleTimeout": "0s",
        "syncFrequency": "0s",
        "volumeStatsAggPeriod": "0s",
    })
}
