//! The RBAC rules in the target cluster that Keyplane needs for the add-ons: by object name, and only while needed.
//!
//! `create` can be limited to names because Keyplane uses server-side apply: the API server authorizes an apply that
//! creates an object with its name. For a POST it does not know the name.

use std::collections::BTreeMap;

use super::{Addon, KUBE_SYSTEM};
use crate::model::Cluster;

/// A rule of a Role or ClusterRole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) names: Vec<String>,
    pub(crate) verbs: Vec<&'static str>,
}

/// Returns the rules for a Role in kube-system, and those for a ClusterRole: for cluster-scoped objects, and for
/// objects in Flannel's namespace, which may not exist.
pub(crate) fn rights(cluster: &Cluster) -> (Vec<Rule>, Vec<Rule>) {
    let mut kube_system = BTreeMap::new();
    let mut everywhere = BTreeMap::new();
    for addon in Addon::ALL {
        let objects = addon.objects(cluster, cluster.version);
        let last = objects.len().saturating_sub(1);
        for (index, desired) in objects.into_iter().enumerate() {
            let namespace = desired.object.metadata.namespace.as_deref();
            let rules = if namespace == Some(KUBE_SYSTEM) { &mut kube_system } else { &mut everywhere };
            let verbs = match (addon.is_enabled(cluster), desired.grants_permissions()) {
                // Keyplane never deletes a namespace.
                (false, _) if desired.resource.kind == "Namespace" => continue,
                (false, _) => vec!["get", "delete"],
                // Only the super-admin credential writes these objects.
                (true, true) => vec!["get"],
                // Keyplane watches the workload by its name.
                (true, false) if index == last => vec!["get", "list", "watch", "create", "patch"],
                (true, false) => vec!["get", "create", "patch"],
            };
            let key = (desired.resource.group, desired.resource.plural, verbs);
            rules.entry(key).or_insert_with(Vec::new).extend(desired.object.metadata.name);
        }
    }
    let rules = |rules: BTreeMap<(String, String, Vec<&'static str>), Vec<String>>| {
        rules.into_iter().map(|((group, resource, verbs), names)| Rule { group, resource, names, verbs }).collect()
    };
    (rules(kube_system), rules(everywhere))
}
