//! Kernel modules and parameters.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::model::Cluster;

/// The kernel modules for containerd's snapshots and for bridged Pod traffic.
pub const KERNEL_MODULES: [&str; 2] = ["overlay", "br_netfilter"];

/// The path of the kernel parameters. The name is that of the Kubernetes documentation, and sorts after the files of
/// distributions.
pub const SYSCTL_FILE: &str = "/etc/sysctl.d/k8s.conf";

/// The parameters for filtering and forwarding of Pod traffic.
const NETWORK: &[(&str, &str)] = &[
    ("net.bridge.bridge-nf-call-ip6tables", "1"),
    ("net.bridge.bridge-nf-call-iptables", "1"),
    ("net.ipv4.ip_forward", "1"),
];

/// The parameters that a kubelet sets itself, or requires with `protectKernelDefaults` (`pkg/util/sysctl` in
/// Kubernetes).
const KUBELET: &[(&str, &str)] = &[
    ("kernel.keys.root_maxbytes", "25000000"),
    ("kernel.keys.root_maxkeys", "1000000"),
    ("kernel.panic", "10"),
    ("kernel.panic_on_oops", "1"),
    ("vm.overcommit_memory", "1"),
    ("vm.panic_on_oom", "0"),
];

pub(super) fn modules_file() -> String {
    format!("# Kernel modules that Kubernetes needs.\n{}\n", KERNEL_MODULES.join("\n"))
}

pub(super) fn sysctl_file(cluster: &Cluster, more: &BTreeMap<String, String>) -> String {
    let mut parameters: BTreeMap<String, &str> =
        NETWORK.iter().chain(KUBELET).map(|(key, value)| ((*key).to_owned(), *value)).collect();
    if cluster.service_cidrs.iter().chain(&cluster.pod_cidrs).any(|range| range.addr().is_ipv6()) {
        parameters.insert("net.ipv6.conf.all.forwarding".to_owned(), "1");
    }
    for (key, value) in more {
        parameters.insert(dotted(key), value);
    }
    let mut text = "# Kernel parameters that kubelet and kube-proxy need, and those of the NodePool.\n".to_owned();
    for (key, value) in parameters {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{key} = {value}");
    }
    text
}

/// Normalizes a key, so that a parameter is not listed twice. In a key with a slash as its first separator, dots are
/// part of names, as in `net/ipv4/conf/eth0.1/forwarding`; such a key with dots stays unchanged.
fn dotted(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key[at..].starts_with('/') && !key.contains('.') => key.replace('/', "."),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalizes_keys_with_slashes() {
        assert_eq!(dotted("net/ipv4/ip_forward"), "net.ipv4.ip_forward");
        assert_eq!(dotted("net.ipv4.ip_forward"), "net.ipv4.ip_forward");
        assert_eq!(dotted("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }
}
