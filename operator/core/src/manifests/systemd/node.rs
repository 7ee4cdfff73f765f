//! The files of a node with a kubelet.

use std::collections::BTreeMap;

use serde_json::Value;

use super::unit::Service;
use super::{file, program, restart, setting};
use crate::host_files::{self, File};
use crate::manifests::kube_proxy_configuration;
use crate::model::Cluster;
use crate::pki::places;
use crate::yaml;

const KUBELET_CONFIGURATION: &str = "/var/lib/kubelet/kubelet-config.yaml";
const PROXY_CONFIGURATION: &str = "/var/lib/kube-proxy/kube-proxy-config.yaml";
/// The directory of containerd in Kubernetes the Hard Way and in Debian.
const CONTAINERD_DIRECTORY: &str = "/bin";

/// Renders the files. `kubelet` is the KubeletConfiguration, `sysctls` are the user's kernel parameters, `flags` are
/// the kubelet flags of this node.
#[must_use]
pub fn node_files(
    cluster: &Cluster,
    name: &str,
    kubelet: &Value,
    sysctls: &BTreeMap<String, String>,
    flags: Vec<String>,
) -> Vec<File> {
    let mut files = host_files::common_files(cluster, kubelet, sysctls);
    let containerd = host_files::containerd_unit(CONTAINERD_DIRECTORY);
    files.extend([
        file("containerd.service", host_files::CONTAINERD_UNIT, containerd),
        file("kubelet.service", "/etc/systemd/system/kubelet.service", kubelet_unit(cluster, flags)),
        file("kubelet-config.yaml", KUBELET_CONFIGURATION, yaml::write(kubelet)),
    ]);
    if cluster.spec.addons.kube_proxy.enabled {
        files.extend([
            file("kube-proxy.service", "/etc/systemd/system/kube-proxy.service", proxy_unit()),
            file("kube-proxy-config.yaml", PROXY_CONFIGURATION, proxy_configuration(cluster, name)),
        ]);
    }
    files
}

fn kubelet_unit(cluster: &Cluster, flags: Vec<String>) -> String {
    let kubeconfig = places::kubeconfig(cluster.layout(), "kubelet.conf");
    let mut command =
        vec!["kubelet".to_owned(), format!("--config={KUBELET_CONFIGURATION}"), format!("--kubeconfig={kubeconfig}")];
    command.extend(flags);
    let mut settings = vec![("ExecStart", program(command))];
    settings.extend(restart());
    // The kubelet reports the resource usage of its own unit and of the container runtime's unit.
    settings.extend([setting("CPUAccounting", "true"), setting("MemoryAccounting", "true")]);
    Service {
        description: "kubelet, which runs the Node's Pods",
        documentation: "https://kubernetes.io/docs/reference/command-line-tools-reference/kubelet/",
        after: &["network-online.target", "containerd.service"],
        wants: &["network-online.target"],
        requires: &["containerd.service"],
        settings,
    }
    .text()
}

fn proxy_unit() -> String {
    let mut settings =
        vec![("ExecStart", program(vec!["kube-proxy".to_owned(), format!("--config={PROXY_CONFIGURATION}")]))];
    settings.extend(restart());
    Service {
        description: "kube-proxy, which leads Services' addresses to Pods",
        documentation: "https://kubernetes.io/docs/reference/command-line-tools-reference/kube-proxy/",
        after: &["network-online.target"],
        wants: &["network-online.target"],
        settings,
        ..Service::default()
    }
    .text()
}

/// Renders the configuration of kubeadm clusters with the kubeconfig and the name of this node.
fn proxy_configuration(cluster: &Cluster, name: &str) -> String {
    let mut configuration = kube_proxy_configuration(cluster);
    configuration["clientConnection"]["kubeconfig"] = places::kubeconfig(cluster.layout(), "kube-proxy.conf").into();
    configuration["hostnameOverride"] = name.into();
    yaml::write(&configuration)
}
