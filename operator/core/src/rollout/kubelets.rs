//! Compares the kubelets' versions with the control plane's. The owner of the host installs the kubelet; Keyplane only
//! reports the difference.

use std::collections::BTreeMap;

use crate::model::Version;
use keyplane_crds::reasons;

/// The number of minor versions by which a kubelet may be older than its API servers. A kubelet must never be newer
/// (Kubernetes' version skew policy since 1.28).
const MAX_MINOR_SKEW: u8 = 3;

/// The number of nodes that a message names; the others are counted.
const MAX_NAMED: usize = 5;

/// The result of comparing the kubelets' versions with that of the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubeletVersions {
    /// All kubelets have the version of the control plane.
    Current,
    /// Some kubelets are older or newer.
    Differ {
        /// The condition's reason.
        reason: &'static str,
        /// The kubelets, and the remedy.
        message: String,
    },
}

/// Compares the kubelets' versions, by Node, with the version that all control-plane nodes run.
#[must_use]
pub fn kubelet_versions(control_plane: Version, kubelets: &BTreeMap<String, String>) -> KubeletVersions {
    let mut by_version: BTreeMap<Version, Vec<&str>> = BTreeMap::new();
    for (node, reported) in kubelets {
        if let Some(version) = Version::reported(reported) {
            by_version.entry(version).or_default().push(node);
        }
    }
    let mut problems =
        [(reasons::KUBELET_NEWER, vec![]), (reasons::KUBELET_TOO_OLD, vec![]), (reasons::KUBELET_OLDER, vec![])];
    for (version, nodes) in &by_version {
        let (place, cure) = if version.minor > control_plane.minor {
            (0, "is newer than its API servers, which Kubernetes does not support: install an older package")
        } else if version.minor + MAX_MINOR_SKEW < control_plane.minor {
            (
                1,
                "is more than three minor versions older than its API servers, which Kubernetes does not support: \
                 upgrade the package and restart it",
            )
        } else if *version < control_plane {
            (2, "is older than the control plane: upgrade the package and restart it")
        } else {
            continue;
        };
        let problem = format!("kubelet {version} on {} {cure}", named(nodes));
        problems[place].1.push(problem);
    }
    let Some((reason, _)) = problems.iter().find(|(_, problems)| !problems.is_empty()) else {
        return KubeletVersions::Current;
    };
    let messages: Vec<_> = problems.iter().flat_map(|(_, problems)| problems).cloned().collect();
    KubeletVersions::Differ {
        reason,
        message: format!("the control plane runs {control_plane}; {}", messages.join("; ")),
    }
}

fn named(nodes: &[&str]) -> String {
    match nodes.split_at_checked(MAX_NAMED) {
        Some((first, rest)) if !rest.is_empty() => format!("{} and {} more", first.join(", "), rest.len()),
        _ => nodes.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(kubelets: &[(&str, &str)]) -> KubeletVersions {
        let kubelets = kubelets.iter().map(|(node, version)| ((*node).to_owned(), (*version).to_owned()));
        kubelet_versions(Version { minor: 37, patch: 2 }, &kubelets.collect())
    }

    #[test]
    fn names_kubelets_of_another_version_and_the_remedy() {
        assert_eq!(compare(&[("cp1", "v1.37.2"), ("w1", "v1.37.3"), ("w2", "strange")]), KubeletVersions::Current);
        for (kubelets, expected, words) in [
            (&[("w1", "v1.36.4"), ("cp1", "v1.37.2")][..], "KubeletOlder", "kubelet v1.36.4 on w1 is older"),
            (&[("w1", "v1.37.1")], "KubeletOlder", "upgrade the package"),
            (&[("w1", "v1.33.9"), ("w2", "v1.36.4")], "KubeletTooOld", "kubelet v1.33.9 on w1 is more than three"),
            (&[("w1", "v1.38.0"), ("w2", "v1.36.4")], "KubeletNewer", "kubelet v1.38.0 on w1 is newer"),
        ] {
            let KubeletVersions::Differ { reason, message } = compare(kubelets) else {
                panic!("{kubelets:?} is current")
            };
            assert!(reason == expected && message.contains(words), "{reason}: {message}");
        }
    }

    #[test]
    fn message_counts_the_kubelets_of_a_large_cluster() {
        let names: Vec<_> = (0..1000).map(|n| format!("w{n:04}")).collect();
        let kubelets: Vec<_> = names.iter().map(|name| (name.as_str(), "v1.36.0")).collect();
        let KubeletVersions::Differ { message, .. } = compare(&kubelets) else { panic!("all are current") };
        assert!(message.contains("w0004 and 995 more") && message.len() < 200, "{message}");
    }
}
