//! The labels that a pool may set on Nodes, and the component that sets each.
//!
//! The admission plugin `NodeRestriction` limits the labels that a kubelet may set on its own Node: otherwise an
//! attacker on one node could attract Pods that are meant for other nodes. Keyplane sets the other labels through the
//! API, on nodes that are listed by name.

use crate::model::is_dns_name;

/// The component that may set a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setter {
    /// The kubelet, when it registers its Node.
    Kubelet,
    /// Keyplane, through the API of the target cluster.
    Keyplane,
    /// No pool: the kubelet or the control plane owns the label.
    Reserved,
}

/// The label of the failure domain.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const REGION_LABEL: &str = "topology.kubernetes.io/region";
const ROLE_NAMESPACE: &str = "node-role.kubernetes.io";
const RESTRICTED_NAMESPACE: &str = "node-restriction.kubernetes.io";
/// The label prefixes under which a kubelet may set any label (`KubeletLabelNamespaces` in `k8s.io/kubelet`).
const KUBELET_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Returns the component that may set the label with this key.
#[must_use]
pub fn setter(key: &str) -> Setter {
    let Some((namespace, name)) = key.split_once('/') else { return Setter::Kubelet };
    let within =
        |domain: &str| namespace.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if within(RESTRICTED_NAMESPACE) {
        return Setter::Keyplane;
    }
    if namespace == ROLE_NAMESPACE {
        // Other software takes a Node with one of these two labels for a control-plane node.
        return if ["control-plane", "master"].contains(&name) { Setter::Reserved } else { Setter::Keyplane };
    }
    let kubelets = [ZONE_LABEL, REGION_LABEL].contains(&key) || KUBELET_NAMESPACES.into_iter().any(within);
    if kubelets || !(within("kubernetes.io") || within("k8s.io")) { Setter::Kubelet } else { Setter::Reserved }
}

/// Returns whether the text is a label key: a name with an optional DNS prefix.
pub(super) fn is_key(key: &str) -> bool {
    let (namespace, name) = key.split_once('/').map_or((None, key), |(namespace, name)| (Some(namespace), name));
    namespace.is_none_or(is_dns_name) && !name.is_empty() && is_value(name)
}

/// Returns whether the text is a label value.
pub(super) fn is_value(value: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    value.len() <= 63
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && edge(value.bytes().next())
        && edge(value.bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelet_sets_only_labels_that_node_restriction_allows() {
        for (key, who) in [
            ("disk", Setter::Kubelet),
            ("example.com/disk", Setter::Kubelet),
            ("topology.kubernetes.io/zone", Setter::Kubelet),
            ("topology.kubernetes.io/region", Setter::Kubelet),
            ("node.kubernetes.io/pool", Setter::Kubelet),
            ("example.node.kubernetes.io/pool", Setter::Kubelet),
            ("kubelet.kubernetes.io/x", Setter::Kubelet),
            ("notkubernetes.io/x", Setter::Kubelet),
            ("node-role.kubernetes.io/worker", Setter::Keyplane),
            ("node-restriction.kubernetes.io/tenant", Setter::Keyplane),
            ("example.com.node-restriction.kubernetes.io/tenant", Setter::Keyplane),
            ("node-role.kubernetes.io/control-plane", Setter::Reserved),
            ("node-role.kubernetes.io/master", Setter::Reserved),
            ("kubernetes.io/hostname", Setter::Reserved),
            ("topology.kubernetes.io/rack", Setter::Reserved),
            ("x.k8s.io/y", Setter::Reserved),
        ] {
            assert_eq!(setter(key), who, "{key}");
        }
    }

    #[test]
    fn accepts_label_keys_and_values_of_kubernetes() {
        for good in ["a", "A-b_c.1", "example.com/a"] {
            assert!(is_key(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a b", "-a", "a-", "Example.com/a", "a/b/c", "a=b", "a,b"] {
            assert!(!is_key(bad), "{bad}");
        }
        assert!(is_value("") && is_value("rack-3") && !is_value("rack 3") && !is_value(&"a".repeat(64)));
    }
}
