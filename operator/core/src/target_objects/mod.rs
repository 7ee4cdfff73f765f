//! Objects in a target cluster: their desired state, and the comparison with the observed state.
//!
//! kubeadm creates these objects at the end of `kubeadm init`; Keyplane applies them through the API of the target
//! cluster. Objects that grant permissions are applied once, with the super-admin credential, because a user can't
//! grant permissions that the user does not have. Afterwards Keyplane uses a certificate of its own with few
//! permissions. With it Keyplane reads these objects and detects missing ones.

mod comparison;
mod node_patch;

use kube::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;

pub use node_patch::{NodePatch, control_plane_patch};

use crate::pki::Subject;

/// The group of kubeadm's bootstrap tokens.
pub const BOOTSTRAPPERS: &str = "system:bootstrappers:kubeadm:default-node-token";

/// The API group of roles and bindings.
pub const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// The user name of Keyplane in a target cluster.
pub const USER: &str = "keyplane:controller";

/// The subject of Keyplane's own certificate: [`USER`] without a group, so the only permissions are those of the user.
#[must_use]
pub fn client_subject() -> Subject {
    Subject::user(USER)
}

/// A desired object in a target cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetObject {
    /// The kind of the object.
    pub resource: ApiResource,
    /// The desired fields, and no others.
    pub object: DynamicObject,
    /// The fields (JSON pointers) that are set only on creation: later values stay.
    pub initial_only: &'static [&'static str],
}

impl TargetObject {
    pub(crate) fn new(group: &str, kind: &str, namespace: Option<&str>, name: &str, content: Value) -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        let mut object = DynamicObject::new(name, &resource).data(content);
        object.metadata.namespace = namespace.map(str::to_owned);
        Self { resource, object, initial_only: &[] }
    }

    /// Returns kind, namespace and name for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        let name = self.object.metadata.name.as_deref().unwrap_or_default();
        match &self.object.metadata.namespace {
            Some(namespace) => format!("{} {namespace}/{name}", self.resource.kind),
            None => format!("{} {name}", self.resource.kind),
        }
    }

    /// Returns whether the found object has all desired fields. Others may add fields, such as the signatures in
    /// cluster-info.
    #[must_use]
    pub fn is_satisfied_by(&self, found: &DynamicObject) -> bool {
        let (found_metadata, desired) = (&found.metadata, &self.object.metadata);
        comparison::has_entries(found_metadata.labels.as_ref(), desired.labels.as_ref())
            && comparison::has_entries(found_metadata.annotations.as_ref(), desired.annotations.as_ref())
            && comparison::contains(&found.data, &self.object.data)
    }

    /// Returns whether only the super-admin credential may write the object: RBAC objects grant permissions, and a
    /// Namespace can allow privileged Pods.
    #[must_use]
    pub fn grants_permissions(&self) -> bool {
        self.resource.group == RBAC_GROUP || self.resource.kind == "Namespace"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn accepts_fields_of_others_but_no_changed_rules() {
        let rule = json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]});
        let desired =
            TargetObject::new("rbac.authorization.k8s.io", "ClusterRole", None, "a", json!({"rules": [rule]}));
        let found = |content: Value| desired.is_satisfied_by(&DynamicObject::new("a", &desired.resource).data(content));
        assert!(found(json!({"rules": [rule], "aggregationRule": {}})));
        assert!(!found(json!({})));
        assert!(!found(json!({"rules": []})));
        assert!(!found(json!({"rules": [rule, {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]})));
        assert!(!found(json!({"rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "delete"]}]})));
    }
}
