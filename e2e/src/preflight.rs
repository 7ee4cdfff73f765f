//! What the host must have before a lab can start, and the one line that gets it.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, bail};

/// A program or file that the lab needs, and the Debian package that brings it.
struct Need {
    what: &'static str,
    package: &'static str,
}

const PROGRAMS: &[Need] = &[
    Need { what: "runc", package: "runc" },
    Need { what: "iptables", package: "iptables" },
    Need { what: "nft", package: "nftables" },
    Need { what: "haproxy", package: "haproxy" },
    Need { what: "conntrack", package: "conntrack" },
    Need { what: "ethtool", package: "ethtool" },
    Need { what: "socat", package: "socat" },
    Need { what: "ip", package: "iproute2" },
    Need { what: "nsenter", package: "util-linux" },
    Need { what: "unshare", package: "util-linux" },
    Need { what: "mount", package: "mount" },
    Need { what: "openssl", package: "openssl" },
    Need { what: "sha256sum", package: "coreutils" },
];

const FILES: &[Need] = &[
    Need { what: "/usr/lib/cni/bridge", package: "containernetworking-plugins" },
    Need { what: "/usr/lib/cni/host-local", package: "containernetworking-plugins" },
    Need { what: "/usr/lib/cni/portmap", package: "containernetworking-plugins" },
    Need { what: "/usr/lib/cni/loopback", package: "containernetworking-plugins" },
    Need { what: "/bin/busybox", package: "busybox-static" },
    Need { what: "/usr/bin/faketime", package: "faketime" },
];

/// Looks for everything at once, so that one answer cures all.
///
/// # Errors
/// When something is missing: the message lists it and says what to install.
pub fn check() -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let has_program =
        |name: &str| path.split(':').chain(["/usr/sbin", "/sbin"]).any(|folder| Path::new(folder).join(name).is_file());
    let mut missing: Vec<&Need> = PROGRAMS.iter().filter(|need| !has_program(need.what)).collect();
    missing.extend(FILES.iter().filter(|need| !Path::new(need.what).exists()));
    let mut facts = Vec::new();
    if !rustix::process::geteuid().is_root() {
        facts.push("root: a machine is made of namespaces, mounts and a bridge; run this with sudo".to_owned());
    }
    if !has_program("go") {
        facts.push("Go, in the version that e2e/kubernetes/go.mod names: it builds Kubernetes, once".to_owned());
    }
    if !Path::new("/dev/kmsg").exists() {
        facts.push("/dev/kmsg: the kubelet reads the kernel's log".to_owned());
    }
    match complaint(&facts, &missing) {
        Some(text) => bail!(text),
        None => Ok(()),
    }
}

fn complaint(facts: &[String], missing: &[&Need]) -> Option<String> {
    if facts.is_empty() && missing.is_empty() {
        return None;
    }
    let mut text = "the lab cannot start here; missing:".to_owned();
    for fact in facts {
        let _ = write!(text, "\n  {fact}");
    }
    for need in missing {
        let _ = write!(text, "\n  {}", need.what);
    }
    if !missing.is_empty() {
        let mut packages: Vec<_> = missing.iter().map(|need| need.package).collect();
        packages.sort_unstable();
        packages.dedup();
        let _ = write!(text, "\nOn Debian: apt-get install {}", packages.join(" "));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_host_gets_no_complaint() {
        assert_eq!(complaint(&[], &[]), None);
    }

    #[test]
    fn each_package_is_named_once() {
        let text = complaint(&[], &[&FILES[0], &FILES[1], &PROGRAMS[0]]).unwrap();
        assert!(text.ends_with("apt-get install containernetworking-plugins runc"), "{text}");
        assert!(text.contains("\n  /usr/lib/cni/bridge\n"), "{text}");
    }
}
