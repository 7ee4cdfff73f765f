//! The systemd units of kubeadm's packages and of containerd.

/// The path of containerd's unit, for containerd from its archive.
pub const CONTAINERD_UNIT: &str = "/etc/systemd/system/containerd.service";

/// Renders the unit of the kubelet. Without its files the kubelet exits, and systemd restarts it until they exist.
pub(super) fn kubelet_unit(program: &str) -> String {
    format!(
        "[Unit]
Description=kubelet: The Kubernetes Node Agent
Documentation=https://kubernetes.io/docs/
Wants=network-online.target
After=network-online.target

[Service]
ExecStart={program}
Restart=always
StartLimitInterval=0
RestartSec=10

[Install]
WantedBy=multi-user.target
"
    )
}

/// Renders the drop-in of kubeadm's packages. The file for user flags has different paths on Debian and Fedora.
pub(super) fn kubeadm_drop_in(program: &str) -> String {
    format!(
        "[Service]
Environment=\"KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf\"
Environment=\"KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml\"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
EnvironmentFile=-/etc/sysconfig/kubelet
ExecStart=
ExecStart={program} $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
"
    )
}

/// Renders the unit of containerd with its programs in `directory`.
#[must_use]
pub fn containerd_unit(directory: &str) -> String {
    format!(
        "[Unit]
Description=containerd container runtime
Documentation=https://containerd.io
After=network.target dbus.service

[Service]
Environment=PATH={directory}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart={directory}/containerd
Type=notify
Delegate=yes
KillMode=process
Restart=always
RestartSec=5
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
OOMScoreAdjust=-999

[Install]
WantedBy=multi-user.target
"
    )
}
