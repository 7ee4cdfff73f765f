//! The paths of key and certificate files on a node, by their kubeadm names.

use keyplane_crds::Layout;

const KUBERNETES_DIRECTORY: &str = "/etc/kubernetes";

/// The directory of kubeadm's certificates on a node.
pub const PKI_DIRECTORY: &str = "/etc/kubernetes/pki";

/// The control-plane directory of the hard way.
const HARD_WAY_DIRECTORY: &str = "/var/lib/kubernetes";

const HARD_WAY_ETCD_DIRECTORY: &str = "/etc/etcd";

/// The CA certificate file of the controller-manager's signer. The signer rejects a file with two certificates, so the
/// signer has a file of its own, and `ca.crt` can become a bundle during a rotation.
pub const SIGNING_CERTIFICATE: &str = "cluster-signing-ca.crt";

/// The client CA file of a hard-way kubelet. A worker node has no control-plane directory, so this is a separate file.
pub const HARD_WAY_KUBELET_CA: &str = "/var/lib/kubelet/ca.crt";

/// Returns the path of a certificate or key that kubeadm keeps below the `pki` directory.
#[must_use]
pub fn pki_file(layout: Layout, file: &str) -> String {
    if layout == Layout::StaticPod {
        return format!("{PKI_DIRECTORY}/{file}");
    }
    match file {
        "apiserver.crt" => format!("{HARD_WAY_DIRECTORY}/kube-api-server.crt"),
        "apiserver.key" => format!("{HARD_WAY_DIRECTORY}/kube-api-server.key"),
        // The hard way has a certificate in this file, and the API server reads only its public key. Keyplane writes
        // the public key, or several keys during a rotation.
        "sa.pub" => format!("{HARD_WAY_DIRECTORY}/service-accounts.crt"),
        "sa.key" => format!("{HARD_WAY_DIRECTORY}/service-accounts.key"),
        other => match other.strip_prefix("etcd/") {
            Some(file) => format!("{HARD_WAY_ETCD_DIRECTORY}/{file}"),
            None => format!("{HARD_WAY_DIRECTORY}/{other}"),
        },
    }
}

/// Returns the directory of the encryption configuration. The whole directory is mounted, so it holds nothing else.
#[must_use]
pub fn encryption_directory(layout: Layout) -> String {
    let directory = if layout == Layout::StaticPod { KUBERNETES_DIRECTORY } else { HARD_WAY_DIRECTORY };
    format!("{directory}/encryption")
}

/// Returns the path of a kubeconfig that kubeadm keeps in `/etc/kubernetes`.
#[must_use]
pub fn kubeconfig(layout: Layout, file: &str) -> String {
    if layout == Layout::StaticPod {
        return format!("{KUBERNETES_DIRECTORY}/{file}");
    }
    match file {
        "kubelet.conf" => "/var/lib/kubelet/kubeconfig".to_owned(),
        "kube-proxy.conf" => "/var/lib/kube-proxy/kubeconfig".to_owned(),
        "controller-manager.conf" => format!("{HARD_WAY_DIRECTORY}/kube-controller-manager.kubeconfig"),
        "scheduler.conf" => format!("{HARD_WAY_DIRECTORY}/kube-scheduler.kubeconfig"),
        other => format!("{HARD_WAY_DIRECTORY}/{}.kubeconfig", other.trim_end_matches(".conf")),
    }
}
