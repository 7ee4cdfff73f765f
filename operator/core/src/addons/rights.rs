//! The rights that looking after the add-ons takes in the target: by name, and each only while it is needed.
//!
//! `create` can be bound to names because objects are applied: the API server checks an apply that creates with the
//! object's name, which it does not know of a POST.

use std::collections::BTreeMap;

use super::{Addon, KUBE_SYSTEM};
use crate::model::Cluster;

/// A rule of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) names: Vec<String>,
    pub(crate) verbs: Vec<&'static str>,
}

/// The rules for a Role in kube-system, and those for a ClusterRole: what belongs to no namespace, or to Flannel's, which
/// may not be there yet, or no more.
pub(crate) fn rights(cluster: &Cluster) -> (Vec<Rule>, Vec<Rule>) {
    let mut kube_system = BTreeMap::new();
    let mut everywhere = BTreeMap::new();
    for addon in Addon::ALL {
        let objects = addon.objects(cluster, cluster.version);
        let last = objects.len().saturating_sub(1);
        for (index, wanted) in objects.into_iter().enumerate() {
            let namespace = wanted.object.metadata.namespace.as_deref();
            let rules = if namespace == Some(KUBE_SYSTEM) { &mut kube_system } else { &mut everywhere };
            let verbs = match (addon.is_enabled(cluster), wanted.gives_rights()) {
                // A namespace is never deleted.
                (false, _) if wanted.resource.kind == "Namespace" => continue,
                (false, _) => vec!["get", "delete"],
                // Those are the super-admin's to write.
                (true, true) => vec!["get"],
                // It is watched, by its name.
                (true, false) if index == last => vec!["get", "list", "watch", "create", "patch"],
                (true, false) => vec!["get", "create", "patch"],
            };
            let key = (wanted.resource.group, wanted.resource.plural, verbs);
            rules.entry(key).or_insert_with(Vec::new).extend(wanted.object.metadata.name);
        }
    }
    let rules = |rules: BTreeMap<(String, String, Vec<&'static str>), Vec<String>>| {
        rules.into_iter().map(|((group, resource, verbs), names)| Rule { group, resource, names, verbs }).collect()
    };
    (rules(kube_system), rules(everywhere))
}
