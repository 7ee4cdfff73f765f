//! The configuration of kube-proxy.

use serde_json::{Value, json};

use crate::model::{Cluster, joined};
use crate::yaml;

/// The directory of kube-proxy's files in its Pods, as in kubeadm.
pub const DIRECTORY: &str = "/var/lib/kube-proxy";

/// Returns the configuration that kubeadm marshals, with the zero values that the Go type can't omit, and the user's
/// settings.
#[must_use]
pub fn kube_proxy_configuration(cluster: &Cluster) -> Value {
    let written = &cluster.spec.addons.kube_proxy;
    let mode = if written.mode.is_empty() { "iptables" } else { written.mode.as_str() };
    let ipv6 = cluster.nodes.first().is_some_and(|node| node.advertise_address.is_ipv6());
    let mut configuration = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": if ipv6 { "::" } else { "0.0.0.0" },
        "bindAddressHardFail": false,
        "clientConnection": {
            "acceptContentTypes": "",
            "burst": 0,
            "contentType": "",
            "kubeconfig": format!("{DIRECTORY}/kubeconfig.conf"),
            "qps": 0,
        },
        "clusterCIDR": joined(&cluster.pod_cidrs),
        "configSyncPeriod": "0s",
        "conntrack": {
            "maxPerCore": null,
            "min": null,
            "tcpBeLiberal": false,
            "tcpCloseWaitTimeout": null,
            "tcpEstablishedTimeout": null,
            "udpStreamTimeout": "0s",
            "udpTimeout": "0s",
        },
        "detectLocal": {"bridgeInterface": "", "interfaceNamePrefix": ""},
        "detectLocalMode": "",
        "enableProfiling": false,
        "healthzBindAddress": "",
        "hostnameOverride": "",
        "iptables": {
            "localhostNodePorts": null,
            "masqueradeAll": false,
            "masqueradeBit": null,
            "minSyncPeriod": "0s",
            "syncPeriod": "0s",
        },
        "ipvs": {
            "excludeCIDRs": null,
            "minSyncPeriod": "0s",
            "scheduler": "",
            "strictARP": false,
            "syncPeriod": "0s",
            "tcpFinTimeout": "0s",
            "tcpTimeout": "0s",
            "udpTimeout": "0s",
        },
        "logging": {
            "flushFrequency": 0,
            "options": {"json": {"infoBufferSize": "0"}, "text": {"infoBufferSize": "0"}},
            "verbosity": 0,
        },
        "metricsBindAddress": "",
        "mode": mode,
        "nftables": {"masqueradeAll": false, "masqueradeBit": null, "minSyncPeriod": "0s", "syncPeriod": "0s"},
        "nodePortAddresses": null,
        "oomScoreAdj": null,
        "portRange": "",
        "showHiddenMetricsForVersion": "",
        "winkernel": {
            "enableDSR": false,
            "forwardHealthCheckVip": false,
            "networkName": "",
            "rootHnsEndpointName": "",
            "sourceVip": "",
        },
    });
    if let Some(settings) = &written.config {
        yaml::merge(&mut configuration, &Value::Object(settings.clone()));
    }
    configuration
}
