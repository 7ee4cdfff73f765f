//! The units that must be restarted so that a file takes effect. Static pods are not in this list: the kubelet
//! recreates them when their manifest changes, and Keyplane changes the manifest when a restart is required.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use keyplane_core::checksum::checksum;
use keyplane_core::rotation::reload;

/// A unit that an agent restarts, and the files that the unit reads only when it starts.
#[derive(Debug)]
pub struct Unit {
    /// Name of the unit.
    pub name: &'static str,
    /// Files that the unit reads when it starts, besides those in the table of `keyplane_core::rotation::reload`. A
    /// path that ends in a slash is a directory.
    files: &'static [&'static str],
}

/// The kubelet. It hot-reloads its client CA bundle. The bundle for the API server is in its kubeconfig, which the
/// kubelet reads once.
pub const KUBELET: Unit = Unit {
    name: "kubelet",
    files: &[
        "/etc/kubernetes/kubelet.conf",
        "/etc/systemd/system/kubelet.service",
        "/usr/lib/systemd/system/kubelet.service",
        "/usr/lib/systemd/system/kubelet.service.d/",
        "/var/lib/kubelet/config.yaml",
        "/var/lib/kubelet/kubeadm-flags.env",
        "/var/lib/kubelet/kubeconfig",
        "/var/lib/kubelet/kubelet-config.yaml",
    ],
};

/// All units in the order of restarts: servers before their clients. The PKI files that require a restart are in the
/// table of `keyplane_core::rotation::reload`.
pub const UNITS: &[Unit] = &[
    Unit { name: "etcd", files: &["/etc/systemd/system/etcd.service"] },
    Unit {
        name: "kube-apiserver",
        files: &["/etc/kubernetes/admission/", "/etc/kubernetes/audit/", "/etc/systemd/system/kube-apiserver.service"],
    },
    Unit { name: "kube-controller-manager", files: &["/etc/systemd/system/kube-controller-manager.service"] },
    Unit {
        name: "kube-scheduler",
        files: &["/etc/kubernetes/config/kube-scheduler.yaml", "/etc/systemd/system/kube-scheduler.service"],
    },
    KUBELET,
    Unit { name: "kube-proxy", files: &["/etc/systemd/system/kube-proxy.service", "/var/lib/kube-proxy/"] },
    Unit { name: "pod-routes", files: &["/etc/systemd/system/pod-routes.service"] },
];

impl Unit {
    /// Returns whether the unit reads the file when it starts.
    #[must_use]
    pub fn reads(&self, path: &str) -> bool {
        self.files.iter().any(|file| path == *file || (file.ends_with('/') && path.starts_with(file)))
            || reload::requires_restart(self.name, path)
    }

    /// Returns whether the file is the unit file.
    fn is_unit_file(&self, path: &str) -> bool {
        path.ends_with(&format!("/system/{}.service", self.name))
    }
}

/// Returns, for each unit in the node's objects, the checksum of the files that the unit reads when it starts. `files`
/// are the files of the objects with their content on the node. The kubelet's unit file may come from its package.
#[must_use]
pub fn states(files: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, String> {
    let of = |unit: &Unit| {
        let read: Vec<_> = files.iter().filter(|(path, _)| unit.reads(path)).collect();
        let exists = unit.name == KUBELET.name || read.iter().any(|(path, _)| unit.is_unit_file(path));
        (exists && !read.is_empty()).then(|| {
            let read: Vec<_> = read.into_iter().map(|(path, content)| (path, relevant(path, content))).collect();
            let sum = checksum(read.iter().map(|(path, content)| (path.as_str(), content.as_slice())));
            (unit.name.to_owned(), sum)
        })
    };
    UNITS.iter().filter_map(of).collect()
}

/// Returns the part of a file that matters at the start. A kubelet with its own certificate no longer uses the
/// credential in its kubeconfig.
fn relevant(path: &str, content: &[u8]) -> Vec<u8> {
    if !["/etc/kubernetes/kubelet.conf", "/var/lib/kubelet/kubeconfig"].contains(&path) {
        return content.to_vec();
    }
    let text = String::from_utf8_lossy(content);
    let parsed: Value = serde_saphyr::from_str(&text).unwrap_or_default();
    json!(parsed.get("clusters")).to_string().into_bytes()
}

/// Returns the command with which the node's owner puts a changed file into effect; `None` if the agent does it.
#[must_use]
pub fn manual_command(path: &str) -> Option<&'static str> {
    match path {
        "/etc/containerd/config.toml" | "/etc/systemd/system/containerd.service" => {
            Some("systemctl daemon-reload && systemctl restart containerd")
        }
        "/etc/sysctl.d/k8s.conf" => Some("sysctl -p /etc/sysctl.d/k8s.conf"),
        "/etc/modules-load.d/k8s.conf" => Some("systemctl restart systemd-modules-load"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        list.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn restarts_unit_only_for_its_own_files() {
        let before = files(&[
            ("/etc/systemd/system/kube-scheduler.service", "a"),
            ("/var/lib/kubernetes/kube-scheduler.kubeconfig", "a"),
            ("/etc/systemd/system/kube-apiserver.service", "a"),
            ("/var/lib/kubernetes/kube-api-server.crt", "a"),
            ("/var/lib/kubelet/kubelet-config.yaml", "a"),
        ]);
        let changed = |path: &str| {
            let mut after = before.clone();
            after.insert(path.to_owned(), b"b".to_vec());
            let (before, after) = (states(&before), states(&after));
            after
                .into_iter()
                .filter(|(unit, sum)| before.get(unit) != Some(sum))
                .map(|(unit, _)| unit)
                .collect::<Vec<_>>()
        };
        assert_eq!(changed("/var/lib/kubernetes/kube-scheduler.kubeconfig"), ["kube-scheduler"]);
        assert_eq!(changed("/var/lib/kubelet/kubelet-config.yaml"), ["kubelet"]);
        // The API server hot-reloads its serving pair.
        assert!(changed("/var/lib/kubernetes/kube-api-server.crt").is_empty());
        // This node has no etcd unit: etcd is external.
        assert_eq!(changed("/etc/etcd/ca.crt"), ["kube-apiserver"]);
        assert!(changed("/etc/kubernetes/manifests/etcd.yaml").is_empty());
    }

    #[test]
    fn units_read_pki_files_of_reload_table() {
        let reads = |unit: &str, path: &str| UNITS.iter().any(|one| one.name == unit && one.reads(path));
        for (unit, path) in [
            ("etcd", "/etc/etcd/ca.crt"),
            ("kube-apiserver", "/etc/etcd/ca.crt"),
            ("kube-apiserver", "/var/lib/kubernetes/service-accounts.crt"),
            ("kube-apiserver", "/var/lib/kubernetes/service-accounts.key"),
            ("kube-controller-manager", "/var/lib/kubernetes/ca.crt"),
            ("kube-controller-manager", "/var/lib/kubernetes/service-accounts.key"),
            ("kube-controller-manager", "/var/lib/kubernetes/kube-controller-manager.kubeconfig"),
            ("kube-scheduler", "/var/lib/kubernetes/kube-scheduler.kubeconfig"),
        ] {
            assert!(reads(unit, path), "{unit} {path}");
        }
        assert!(!reads("kube-apiserver", "/var/lib/kubernetes/ca.crt"));
        assert!(!reads("etcd", "/etc/etcd/server.crt"));
    }

    #[test]
    fn kubelet_is_not_restarted_for_kubeconfig_credential() {
        let config = |ca: &str, user: &str| {
            let text = format!("clusters: [{{cluster: {{certificate-authority-data: {ca}}}}}]\nusers: [{user}]\n");
            states(&files(&[("/etc/kubernetes/kubelet.conf", &text)]))["kubelet"].clone()
        };
        assert_eq!(config("a", "embedded"), config("a", "file"));
        assert_ne!(config("a", "file"), config("b", "file"));
    }

    #[test]
    fn reports_files_that_need_a_manual_restart() {
        assert!(manual_command("/etc/containerd/config.toml").unwrap().contains("restart containerd"));
        assert!(manual_command("/etc/kubernetes/pki/ca.crt").is_none());
    }
}
