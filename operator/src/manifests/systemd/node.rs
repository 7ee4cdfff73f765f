//! The units of a machine that runs Pods.

use std::net::IpAddr;

use serde_json::json;

use super::super::File;
use super::super::kubelet::{kubelet_configuration, machine_flags};
use super::unit::{Service, command_line};
use super::{file, program, restart, setting};
use crate::cluster::{Cluster, Node, joined};
use crate::pki::places;
use crate::yaml;

const KUBELET_CONFIGURATION: &str = "/var/lib/kubelet/kubelet-config.yaml";
const PROXY_CONFIGURATION: &str = "/var/lib/kube-proxy/kube-proxy-config.yaml";
/// kubeadm 1.36's and 1.37's `PauseVersion`.
const PAUSE_VERSION: &str = "3.10.2";

pub(super) fn files(cluster: &Cluster, machine: &Node) -> Vec<File> {
    vec![
        file("containerd.service", "/etc/systemd/system/containerd.service", containerd_unit()),
        file("containerd-config.toml", "/etc/containerd/config.toml", containerd_configuration(cluster, machine)),
        file("kubelet.service", "/etc/systemd/system/kubelet.service", kubelet_unit(cluster, machine)),
        file("kubelet-config.yaml", KUBELET_CONFIGURATION, kubelet_configuration(cluster, machine)),
        file("kube-proxy.service", "/etc/systemd/system/kube-proxy.service", proxy_unit()),
        file("kube-proxy-config.yaml", PROXY_CONFIGURATION, proxy_configuration(cluster, machine)),
        file("kubernetes-modules.conf", "/etc/modules-load.d/kubernetes.conf", "overlay\nbr_netfilter\n".to_owned()),
        file("kubernetes-sysctl.conf", "/etc/sysctl.d/kubernetes.conf", sysctls(cluster)),
    ]
}

/// The settings are those of containerd's own unit; the program lies where the hard way and Debian have it.
fn containerd_unit() -> String {
    Service {
        description: "containerd, which runs the containers",
        documentation: "https://containerd.io",
        after: &["network.target", "local-fs.target"],
        settings: vec![
            setting("Type", "notify"),
            setting("ExecStartPre", "-/sbin/modprobe overlay"),
            ("ExecStart", command_line(&["/bin/containerd"])),
            setting("Restart", "always"),
            setting("RestartSec", "5"),
            // Containers have cgroups of their own below this one, and outlive a restart.
            setting("Delegate", "yes"),
            setting("KillMode", "process"),
            setting("OOMScoreAdjust", "-999"),
            setting("LimitNPROC", "infinity"),
            setting("LimitCORE", "infinity"),
            setting("TasksMax", "infinity"),
        ],
        ..Service::default()
    }
    .text()
}

fn containerd_configuration(cluster: &Cluster, machine: &Node) -> String {
    let settings = cluster.spec.control_plane.kubelet.as_ref().filter(|_| cluster.is_control_plane(machine));
    let driver = settings.and_then(|settings| settings.get("cgroupDriver")?.as_str());
    let systemd = driver.is_none_or(|driver| driver == "systemd");
    format!(
        "version = 3

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = \"{}/pause:{PAUSE_VERSION}\"

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = [\"/opt/cni/bin\", \"/usr/lib/cni\"]
  conf_dir = \"/etc/cni/net.d\"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = \"io.containerd.runc.v2\"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = {systemd}
",
        cluster.spec.image_repository
    )
}

fn kubelet_unit(cluster: &Cluster, machine: &Node) -> String {
    let kubeconfig = places::kubeconfig(cluster.layout(), "kubelet.conf");
    let mut command =
        vec!["kubelet".to_owned(), format!("--config={KUBELET_CONFIGURATION}"), format!("--kubeconfig={kubeconfig}")];
    command.extend(machine_flags(cluster, machine));
    let mut settings = vec![("ExecStart", program(command))];
    settings.extend(restart());
    // The kubelet reports what its own unit and the runtime's use.
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

fn proxy_configuration(cluster: &Cluster, machine: &Node) -> String {
    yaml::write(&json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": places::kubeconfig(cluster.layout(), "kube-proxy.conf")},
        "clusterCIDR": joined(&cluster.pod_cidrs),
        "hostnameOverride": machine.name,
        // kubeadm's. What is not set becomes nftables in a version to come.
        "mode": "iptables",
    }))
}

/// What a bridge of Pods needs of the kernel: packets between machines, and kube-proxy's rules on bridged ones.
fn sysctls(cluster: &Cluster) -> String {
    let families = cluster.service_cidrs.iter().map(|range| match range.addr() {
        IpAddr::V4(_) => ["net.bridge.bridge-nf-call-iptables", "net.ipv4.ip_forward"],
        IpAddr::V6(_) => ["net.bridge.bridge-nf-call-ip6tables", "net.ipv6.conf.all.forwarding"],
    });
    families.flatten().map(|name| format!("{name} = 1\n")).collect::<Vec<_>>().concat()
}
