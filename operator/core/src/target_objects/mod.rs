//! What Keyplane and kubeadm need inside a target cluster: a pure function of the cluster and its authorities.
//!
//! kubeadm writes these objects itself at the end of `kubeadm init`; here they are applied through the target's API.
//! Everything that grants rights is applied with the super-admin's credential, once, because nobody can grant what he
//! does not have; from then on Keyplane works with a narrow certificate of its own, which reads these objects and
//! notices when one of them is gone.

mod comparison;
mod marks;

use kube::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;

pub use marks::{MarkPatch, mark};

use crate::pki::Subject;

/// The group of bootstrap tokens that kubeadm makes.
pub const BOOTSTRAPPERS: &str = "system:bootstrappers:kubeadm:default-node-token";

/// The API group of roles and bindings.
pub const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// The user that Keyplane is in a target cluster.
pub const USER: &str = "keyplane:controller";

/// The subject of Keyplane's own certificate: a user without a group, whose rights are [`USER`]'s and no more.
#[must_use]
pub fn client_subject() -> Subject {
    Subject::user(USER)
}

/// An object that belongs in the target.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetObject {
    /// Its kind.
    pub resource: ApiResource,
    /// What it says, and no more than that.
    pub object: DynamicObject,
    /// Fields (JSON pointers) that are set only where there are none yet: what is found there stays.
    pub at_first: &'static [&'static str],
}

impl TargetObject {
    pub(crate) fn new(group: &str, kind: &str, namespace: Option<&str>, name: &str, content: Value) -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        let mut object = DynamicObject::new(name, &resource).data(content);
        object.metadata.namespace = namespace.map(str::to_owned);
        Self { resource, object, at_first: &[] }
    }

    /// Kind, namespace and name, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        let name = self.object.metadata.name.as_deref().unwrap_or_default();
        match &self.object.metadata.namespace {
            Some(namespace) => format!("{} {namespace}/{name}", self.resource.kind),
            None => format!("{} {name}", self.resource.kind),
        }
    }

    /// Whether what was found says what it should. Others may add fields, such as the signatures in cluster-info.
    #[must_use]
    pub fn is_satisfied_by(&self, found: &DynamicObject) -> bool {
        let (found_metadata, wanted) = (&found.metadata, &self.object.metadata);
        comparison::has_entries(found_metadata.labels.as_ref(), wanted.labels.as_ref())
            && comparison::has_entries(found_metadata.annotations.as_ref(), wanted.annotations.as_ref())
            && comparison::contains(&found.data, &self.object.data)
    }

    /// Whether only somebody who has all rights may write it: it gives rights away, or lets Pods do what they like.
    #[must_use]
    pub fn gives_rights(&self) -> bool {
        self.resource.group == RBAC_GROUP || self.resource.kind == "Namespace"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_of_others_are_fine_and_a_rule_more_or_less_is_not() {
        let rule = json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]});
        let wanted = TargetObject::new("rbac.authorization.k8s.io", "ClusterRole", None, "a", json!({"rules": [rule]}));
        let found = |content: Value| wanted.is_satisfied_by(&DynamicObject::new("a", &wanted.resource).data(content));
        assert!(found(json!({"rules": [rule], "aggregationRule": {}})));
        assert!(!found(json!({})));
        assert!(!found(json!({"rules": []})));
        assert!(!found(json!({"rules": [rule, {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]})));
        assert!(!found(json!({"rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "delete"]}]})));
    }
}
