//! Where the files with keys and certificates lie on a machine, by the names that kubeadm has for them.

use keyplane_crds::Layout;

/// Where kubeadm's files lie on a machine.
const KUBERNETES_DIRECTORY: &str = "/etc/kubernetes";

/// Where kubeadm's certificates lie on a machine.
pub const PKI_DIRECTORY: &str = "/etc/kubernetes/pki";

/// Where the hard way keeps what the control plane runs with.
const HARD_WAY_DIRECTORY: &str = "/var/lib/kubernetes";

/// Where the hard way keeps etcd's certificates.
const HARD_WAY_ETCD_DIRECTORY: &str = "/etc/etcd";

/// The file from which the controller-manager signs. It always holds one certificate, so that `ca.crt` can become a
/// bundle in a rotation: the signer refuses a file with two.
pub const SIGNING_CERTIFICATE: &str = "cluster-signing-ca.crt";

/// The authority that a kubelet of the hard way verifies its clients with. It has a file of its own, since a worker has
/// no directory of the control plane's.
pub const HARD_WAY_KUBELET_AUTHORITY: &str = "/var/lib/kubelet/ca.crt";

/// The path of a certificate or key that kubeadm would have below its `pki` directory.
#[must_use]
pub fn pki_file(layout: Layout, file: &str) -> String {
    if layout == Layout::StaticPod {
        return format!("{PKI_DIRECTORY}/{file}");
    }
    match file {
        "apiserver.crt" => format!("{HARD_WAY_DIRECTORY}/kube-api-server.crt"),
        "apiserver.key" => format!("{HARD_WAY_DIRECTORY}/kube-api-server.key"),
        // The hard way has a certificate there, of which the API server takes the public key alone. This is the key, or
        // several while they are rotated.
        "sa.pub" => format!("{HARD_WAY_DIRECTORY}/service-accounts.crt"),
        "sa.key" => format!("{HARD_WAY_DIRECTORY}/service-accounts.key"),
        other => match other.strip_prefix("etcd/") {
            Some(file) => format!("{HARD_WAY_ETCD_DIRECTORY}/{file}"),
            None => format!("{HARD_WAY_DIRECTORY}/{other}"),
        },
    }
}

/// Where the encryption configuration lies: a directory of its own, which is mounted as a whole.
#[must_use]
pub fn encryption_directory(layout: Layout) -> String {
    let directory = if layout == Layout::StaticPod { KUBERNETES_DIRECTORY } else { HARD_WAY_DIRECTORY };
    format!("{directory}/encryption")
}

/// The path of a kubeconfig that kubeadm would have in `/etc/kubernetes`.
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
