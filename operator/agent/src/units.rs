//! What has to be started anew so that a file takes effect. Static pods are not here: the kubelet makes them anew when
//! their manifest changes, and Keyplane changes it when that is needed.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use keyplane_core::checksum::checksum;

/// A unit that an agent restarts, and the files that it reads only when it starts.
#[derive(Debug)]
pub struct Unit {
    /// Its name.
    pub name: &'static str,
    /// Files that it reads when it starts. One that ends in a slash is a directory.
    files: &'static [&'static str],
}

/// The kubelet. Its bundle for clients it reads anew by itself; the one for the API server is in its kubeconfig, and it
/// builds that connection once.
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

/// In the order in which they are restarted: servers before their clients. Serving pairs, bundles for clients and client
/// pairs in files are read anew while a component runs; authorities of etcd, keys of service accounts, and what is inside
/// a kubeconfig are not.
pub const UNITS: &[Unit] = &[
    Unit { name: "etcd", files: &["/etc/etcd/ca.crt", "/etc/systemd/system/etcd.service"] },
    Unit {
        name: "kube-apiserver",
        files: &[
            "/etc/etcd/ca.crt",
            "/etc/kubernetes/admission/",
            "/etc/kubernetes/audit/",
            "/etc/systemd/system/kube-apiserver.service",
            "/var/lib/kubernetes/service-accounts.crt",
            "/var/lib/kubernetes/service-accounts.key",
        ],
    },
    Unit {
        name: "kube-controller-manager",
        files: &[
            "/etc/systemd/system/kube-controller-manager.service",
            "/var/lib/kubernetes/ca.crt",
            "/var/lib/kubernetes/kube-controller-manager.kubeconfig",
            "/var/lib/kubernetes/service-accounts.key",
        ],
    },
    Unit {
        name: "kube-scheduler",
        files: &[
            "/etc/kubernetes/config/kube-scheduler.yaml",
            "/etc/systemd/system/kube-scheduler.service",
            "/var/lib/kubernetes/kube-scheduler.kubeconfig",
        ],
    },
    KUBELET,
    Unit { name: "kube-proxy", files: &["/etc/systemd/system/kube-proxy.service", "/var/lib/kube-proxy/"] },
    Unit { name: "pod-routes", files: &["/etc/systemd/system/pod-routes.service"] },
];

impl Unit {
    /// Whether it reads the file when it starts.
    #[must_use]
    pub fn reads(&self, path: &str) -> bool {
        self.files.iter().any(|file| path == *file || (file.ends_with('/') && path.starts_with(file)))
    }

    /// Whether the file is the unit's own.
    fn is_unit_file(&self, path: &str) -> bool {
        path.ends_with(&format!("/system/{}.service", self.name))
    }
}

/// Of each unit that the machine's objects bring along the checksum of what it reads when it starts. `files` are those
/// of the objects, as they are on the machine. The kubelet's unit may be its package's.
#[must_use]
pub fn states(files: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, String> {
    let of = |unit: &Unit| {
        let read: Vec<_> = files.iter().filter(|(path, _)| unit.reads(path)).collect();
        let is_there = unit.name == KUBELET.name || read.iter().any(|(path, _)| unit.is_unit_file(path));
        (is_there && !read.is_empty()).then(|| {
            let read: Vec<_> = read.into_iter().map(|(path, content)| (path, relevant(path, content))).collect();
            let sum = checksum(read.iter().map(|(path, content)| (path.as_str(), content.as_slice())));
            (unit.name.to_owned(), sum)
        })
    };
    UNITS.iter().filter_map(of).collect()
}

/// What of a file matters at the start. A kubelet that has a certificate of its own does not look at the credential in
/// its kubeconfig any more.
fn relevant(path: &str, content: &[u8]) -> Vec<u8> {
    if !["/etc/kubernetes/kubelet.conf", "/var/lib/kubelet/kubeconfig"].contains(&path) {
        return content.to_vec();
    }
    let text = String::from_utf8_lossy(content);
    let parsed: Value = serde_saphyr::from_str(&text).unwrap_or_default();
    json!(parsed.get("clusters")).to_string().into_bytes()
}

/// Files that a person has to put into effect: how, for those that were changed on a machine that had others before.
#[must_use]
pub fn by_hand(path: &str) -> Option<&'static str> {
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
    fn a_unit_is_restarted_for_its_own_files_only() {
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
        // The API server reads its serving pair anew while it runs.
        assert!(changed("/var/lib/kubernetes/kube-api-server.crt").is_empty());
        // etcd has no unit here: it is on machines of its own.
        assert_eq!(changed("/etc/etcd/ca.crt"), ["kube-apiserver"]);
        assert!(changed("/etc/kubernetes/manifests/etcd.yaml").is_empty());
    }

    #[test]
    fn a_kubelet_is_not_restarted_for_the_credential_in_its_kubeconfig() {
        let config = |authority: &str, user: &str| {
            let text =
                format!("clusters: [{{cluster: {{certificate-authority-data: {authority}}}}}]\nusers: [{user}]\n");
            states(&files(&[("/etc/kubernetes/kubelet.conf", &text)]))["kubelet"].clone()
        };
        assert_eq!(config("a", "embedded"), config("a", "file"));
        assert_ne!(config("a", "file"), config("b", "file"));
    }

    #[test]
    fn what_an_agent_does_not_restart_is_told() {
        assert!(by_hand("/etc/containerd/config.toml").unwrap().contains("restart containerd"));
        assert!(by_hand("/etc/kubernetes/pki/ca.crt").is_none());
    }
}
