//! What Keyplane and kubeadm need inside a target cluster: a pure function of the cluster and its authorities.
//!
//! kubeadm writes these objects itself at the end of `kubeadm init`; here they are applied through the target's API.
//! Everything that grants rights is applied with the super-admin's credential, once, because nobody can grant what he
//! does not have; from then on Keyplane works with a narrow certificate of its own, which reads these objects and
//! notices when one of them is gone.

mod config_maps;
mod marks;
mod rbac;

use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Map, Value};

pub use marks::{MarkPatch, mark};

use crate::cluster::Cluster;
use crate::pki::Subject;

/// The user that Keyplane is in a target cluster.
pub const USER: &str = "keyplane:controller";

/// The subject of Keyplane's own certificate: a user without a group, whose rights are [`USER`]'s and no more.
#[must_use]
pub fn client_subject() -> Subject {
    Subject { common_name: USER.to_owned(), organization: None }
}

/// An object that belongs in the target.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetObject {
    /// Its kind.
    pub resource: ApiResource,
    /// What it says, and no more than that.
    pub object: DynamicObject,
}

impl TargetObject {
    fn new(group: &str, kind: &str, namespace: Option<&str>, name: &str, content: Value) -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        let mut object = DynamicObject::new(name, &resource).data(content);
        object.metadata.namespace = namespace.map(str::to_owned);
        Self { resource, object }
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
        contains(&found.data, &self.object.data)
    }
}

/// Everything that belongs in the target, rights first. `trust` is the bundle that the target's clients verify with.
#[must_use]
pub fn objects(cluster: &Cluster, trust: &str) -> Vec<TargetObject> {
    let mut objects = rbac::objects(cluster);
    objects.extend(config_maps::objects(cluster, trust));
    objects
}

/// What does not belong in the target, though Keyplane may have put it there under another policy.
#[must_use]
pub fn unwanted(cluster: &Cluster) -> Vec<TargetObject> {
    if cluster.policy.requests.approves_clients() { rbac::auto_approval() } else { vec![] }
}

/// Every field that is wanted is there; lists must be the same, but their objects may have more fields, which the API
/// server fills in.
fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => contains_object(found, wanted),
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| contains(found, wanted))
        }
        (found, wanted) => found == wanted,
    }
}

fn contains_object(found: &Map<String, Value>, wanted: &Map<String, Value>) -> bool {
    wanted.iter().all(|(key, wanted)| found.get(key).is_some_and(|found| contains(found, wanted)))
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
