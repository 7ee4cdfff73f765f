//! The files that belong on each kind of machine, with their modes.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};

use super::report::Report;
use super::scene::Scene;
use crate::machine::Machine;

/// What every control-plane machine has: path, and mode as `stat` prints it with the type before it.
const CONTROL_PLANE: &[(&str, &str)] = &[
    ("/etc/containerd/config.toml", "file 644"),
    ("/run/containerd/containerd.sock", "socket 660"),
    ("/etc/kubernetes/admin.conf", "file 600"),
    ("/etc/kubernetes/controller-manager.conf", "file 600"),
    ("/etc/kubernetes/kubelet.conf", "file 600"),
    ("/etc/kubernetes/scheduler.conf", "file 600"),
    ("/etc/kubernetes/manifests/etcd.yaml", "file 600"),
    ("/etc/kubernetes/manifests/kube-apiserver.yaml", "file 600"),
    ("/etc/kubernetes/manifests/kube-controller-manager.yaml", "file 600"),
    ("/etc/kubernetes/manifests/kube-scheduler.yaml", "file 600"),
    ("/etc/kubernetes/pki/ca.crt", "file 644"),
    ("/etc/kubernetes/pki/ca.key", "file 600"),
    ("/etc/kubernetes/pki/apiserver.crt", "file 644"),
    ("/etc/kubernetes/pki/apiserver.key", "file 600"),
    ("/etc/kubernetes/pki/apiserver-kubelet-client.crt", "file 644"),
    ("/etc/kubernetes/pki/apiserver-kubelet-client.key", "file 600"),
    ("/etc/kubernetes/pki/apiserver-etcd-client.crt", "file 644"),
    ("/etc/kubernetes/pki/apiserver-etcd-client.key", "file 600"),
    ("/etc/kubernetes/pki/front-proxy-ca.crt", "file 644"),
    ("/etc/kubernetes/pki/front-proxy-ca.key", "file 600"),
    ("/etc/kubernetes/pki/front-proxy-client.crt", "file 644"),
    ("/etc/kubernetes/pki/front-proxy-client.key", "file 600"),
    ("/etc/kubernetes/pki/sa.key", "file 600"),
    ("/etc/kubernetes/pki/sa.pub", "file 600"),
    ("/etc/kubernetes/pki/etcd/ca.crt", "file 644"),
    ("/etc/kubernetes/pki/etcd/ca.key", "file 600"),
    ("/etc/kubernetes/pki/etcd/server.crt", "file 644"),
    ("/etc/kubernetes/pki/etcd/server.key", "file 600"),
    ("/etc/kubernetes/pki/etcd/peer.crt", "file 644"),
    ("/etc/kubernetes/pki/etcd/peer.key", "file 600"),
    ("/etc/kubernetes/pki/etcd/healthcheck-client.crt", "file 644"),
    ("/etc/kubernetes/pki/etcd/healthcheck-client.key", "file 600"),
    ("/var/lib/etcd/member", "directory 700"),
    ("/var/lib/etcd/member/snap/db", "file 600"),
    ("/var/lib/kubelet/config.yaml", "file 644"),
    ("/var/lib/kubelet/instance-config.yaml", "file 644"),
    ("/var/lib/kubelet/kubeadm-flags.env", "file 644"),
    ("/var/lib/kubelet/pki/kubelet-client-current.pem", "file 600"),
    // serverTLSBootstrap: kubelet.crt and kubelet.key, which a kubelet signs itself, don't arise.
    ("/var/lib/kubelet/pki/kubelet-server-current.pem", "file 600"),
    ("/etc/cni/net.d/10-flannel.conflist", "file 644"),
    ("/opt/cni/bin/bridge", "file 755"),
    ("/opt/cni/bin/flannel", "file 755"),
];

/// What a worker has.
const WORKER: &[(&str, &str)] = &[
    ("/etc/containerd/config.toml", "file 644"),
    ("/run/containerd/containerd.sock", "socket 660"),
    ("/etc/kubernetes/kubelet.conf", "file 600"),
    ("/etc/kubernetes/pki/ca.crt", "file 644"),
    ("/etc/kubernetes/manifests", "directory"),
    ("/var/lib/kubelet/config.yaml", "file 644"),
    ("/var/lib/kubelet/instance-config.yaml", "file 644"),
    ("/var/lib/kubelet/kubeadm-flags.env", "file 644"),
    ("/var/lib/kubelet/pki/kubelet-client-current.pem", "file 600"),
    ("/var/lib/kubelet/pki/kubelet-server-current.pem", "file 600"),
    ("/etc/cni/net.d/10-flannel.conflist", "file 644"),
    ("/opt/cni/bin/bridge", "file 755"),
    ("/opt/cni/bin/flannel", "file 755"),
];

/// All that a worker has below `/etc/kubernetes`: no key of the cluster's, and no token once it has joined.
const WORKER_KUBERNETES: &[&str] = &["/etc/kubernetes/kubelet.conf", "/etc/kubernetes/pki/ca.crt"];

pub(super) fn check(scene: &Scene, report: &mut Report) {
    for machine in scene.control_plane() {
        report.step(&format!("each path of the file map is on {} with its mode", machine.name()), || {
            look(machine, CONTROL_PLANE)
        });
    }
    report.step("super-admin.conf is on the first control-plane machine only", || {
        let mut holders = vec![];
        for machine in scene.control_plane() {
            if machine.read_file("/etc/kubernetes/super-admin.conf").is_ok() {
                holders.push(machine.name());
            }
        }
        ensure!(holders == ["cp1"], "{holders:?}");
        Ok(holders.join(" "))
    });
    let worker = scene.worker();
    report.step("each path of the file map is on the worker with its mode", || look(worker, WORKER));
    report.step("the worker holds nothing of the cluster's beyond its own", || {
        let found = worker.run(&["find", "/etc/kubernetes", "-type", "f"])?;
        let found: BTreeSet<_> = found.lines().collect();
        ensure!(found == WORKER_KUBERNETES.iter().copied().collect(), "{found:?}");
        let keys = worker.run(&["sh", "-c", "grep -rlsE 'PRIVATE KEY|token:' /etc /var/lib/kubelet/pki | sort"])?;
        let strangers: Vec<_> = keys
            .lines()
            .filter(|path| {
                !path.starts_with("/var/lib/kubelet/pki/") && !path.starts_with("/etc/ssl") && !path.contains("/ssh/")
            })
            .collect();
        ensure!(strangers.is_empty(), "{strangers:?}");
        Ok(found.into_iter().collect::<Vec<_>>().join("\n"))
    });
}

fn look(machine: &Machine, wanted: &[(&str, &str)]) -> Result<String> {
    let mut wrong = vec![];
    for (path, expected) in wanted {
        let said = machine.run(&["stat", "--dereference", "--format", "%F %a", path]);
        let found = match said {
            Ok(text) => text.trim().replace("regular empty file", "file").replace("regular file", "file"),
            Err(_) => "missing".to_owned(),
        };
        if !found.starts_with(expected) {
            wrong.push(format!("{path} is {found}, not {expected}"));
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    Ok(format!("{} paths", wanted.len()))
}
