//! Which labels a Node may get from a pool, and who sets them.
//!
//! The admission plugin `NodeRestriction` lets a kubelet give its own Node some labels only: otherwise whoever holds one
//! machine could draw to it what is meant for others. The others Keyplane sets through the API, on machines that are
//! declared by name.

use crate::model::is_dns_name;

/// Who may set a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setter {
    /// The kubelet itself, when it registers its Node.
    Kubelet,
    /// Keyplane, through the target's API.
    Keyplane,
    /// Nobody here: it is the kubelet's or the control plane's own.
    Nobody,
}

/// The label of the failure domain.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const REGION_LABEL: &str = "topology.kubernetes.io/region";
const ROLE_NAMESPACE: &str = "node-role.kubernetes.io";
const RESTRICTED_NAMESPACE: &str = "node-restriction.kubernetes.io";
/// Namespaces in which a kubelet may set any label (`KubeletLabelNamespaces` in `k8s.io/kubelet`).
const KUBELET_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Who may set the label of that key.
#[must_use]
pub fn setter(key: &str) -> Setter {
    let Some((namespace, name)) = key.split_once('/') else { return Setter::Kubelet };
    let within =
        |domain: &str| namespace.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if within(RESTRICTED_NAMESPACE) {
        return Setter::Keyplane;
    }
    if namespace == ROLE_NAMESPACE {
        // These two make a machine one of the control plane in the eyes of others.
        return if ["control-plane", "master"].contains(&name) { Setter::Nobody } else { Setter::Keyplane };
    }
    let kubelets = [ZONE_LABEL, REGION_LABEL].contains(&key) || KUBELET_NAMESPACES.into_iter().any(within);
    if kubelets || !(within("kubernetes.io") || within("k8s.io")) { Setter::Kubelet } else { Setter::Nobody }
}

/// Whether the text is a label's key: a name with an optional DNS name before it.
pub(super) fn is_key(key: &str) -> bool {
    let (namespace, name) = key.split_once('/').map_or((None, key), |(namespace, name)| (Some(namespace), name));
    namespace.is_none_or(is_dns_name) && !name.is_empty() && is_value(name)
}

/// Whether the text is a label's value.
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
    fn a_kubelet_sets_what_node_restriction_lets_it_set() {
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
            ("node-role.kubernetes.io/control-plane", Setter::Nobody),
            ("node-role.kubernetes.io/master", Setter::Nobody),
            ("kubernetes.io/hostname", Setter::Nobody),
            ("topology.kubernetes.io/rack", Setter::Nobody),
            ("x.k8s.io/y", Setter::Nobody),
        ] {
            assert_eq!(setter(key), who, "{key}");
        }
    }

    #[test]
    fn keys_and_values_are_those_of_kubernetes() {
        for good in ["a", "A-b_c.1", "example.com/a"] {
            assert!(is_key(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a b", "-a", "a-", "Example.com/a", "a/b/c", "a=b", "a,b"] {
            assert!(!is_key(bad), "{bad}");
        }
        assert!(is_value("") && is_value("rack-3") && !is_value("rack 3") && !is_value(&"a".repeat(64)));
    }
}
