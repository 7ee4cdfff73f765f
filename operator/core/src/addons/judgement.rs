//! The action for an object of an add-on, depending on the object with this name in the target cluster.

use crate::names::{MANAGED_BY, MANAGED_BY_LABEL};
use crate::target_objects::TargetObject;
use keyplane_crds::keys;
use kube::DynamicObject;
use serde_json::Value;

/// The action for an object.
#[derive(Debug, Clone, PartialEq)]
pub enum ObjectAction {
    /// No action: the object has the desired state.
    Keep,
    /// No action: an annotation says that the user manages the object.
    Leave,
    /// No action for any object of the add-on: Keyplane does not manage this object.
    Foreign,
    /// Apply the object.
    Apply(Box<TargetObject>),
}

/// Returns the action for a desired object.
#[must_use]
pub fn action_for(desired: TargetObject, found: Option<&DynamicObject>) -> ObjectAction {
    let Some(found) = found else { return ObjectAction::Apply(Box::new(desired)) };
    if !is_ours(found) {
        return ObjectAction::Foreign;
    }
    if is_unmanaged(found) {
        return ObjectAction::Leave;
    }
    let desired = with_tolerations_of(with_initial_settings_of(desired, found), found);
    if desired.is_satisfied_by(found) { ObjectAction::Keep } else { ObjectAction::Apply(Box::new(desired)) }
}

/// Returns whether Keyplane manages the object, by its label.
#[must_use]
pub fn is_ours(found: &DynamicObject) -> bool {
    found.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY_LABEL)).is_some_and(|by| by == MANAGED_BY)
}

/// Returns whether the user manages the object, by its annotation.
#[must_use]
pub fn is_unmanaged(found: &DynamicObject) -> bool {
    let annotation = found.metadata.annotations.as_ref().and_then(|all| all.get(keys::UNMANAGED_ANNOTATION));
    annotation.is_some_and(|value| value == "true")
}

/// Copies the current values of fields that are set only on creation. Server-side apply removes a field that its owner
/// omits.
fn with_initial_settings_of(mut desired: TargetObject, found: &DynamicObject) -> TargetObject {
    for pointer in desired.initial_only {
        if let (Some(present), Some(value)) = (found.data.pointer(pointer), desired.object.data.pointer_mut(pointer)) {
            value.clone_from(present);
        }
    }
    desired
}

/// Keeps the tolerations that others have added. For server-side apply the list is one value with one owner, but users
/// with tainted Nodes add tolerations in the target cluster, as with kubeadm.
fn with_tolerations_of(mut desired: TargetObject, found: &DynamicObject) -> TargetObject {
    const TOLERATIONS: &str = "/spec/template/spec/tolerations";
    let present = found.data.pointer(TOLERATIONS).and_then(Value::as_array);
    let tolerations = desired.object.data.pointer_mut(TOLERATIONS).and_then(Value::as_array_mut);
    if let (Some(present), Some(tolerations)) = (present, tolerations)
        && tolerations.iter().all(|toleration| present.contains(toleration))
    {
        tolerations.clone_from(present);
    }
    desired
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn desired() -> TargetObject {
        let content = json!({"spec": {"replicas": 2, "template": {"spec": {"tolerations": [{"key": "a"}]}}}});
        let mut desired = TargetObject::new("apps", "Deployment", Some("kube-system"), "coredns", content);
        desired.object.metadata.labels = Some([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())].into());
        desired
    }

    #[test]
    fn applies_missing_or_changed_object() {
        assert!(matches!(action_for(desired(), None), ObjectAction::Apply(_)));
        let mut found = desired().object;
        assert_eq!(action_for(desired(), Some(&found)), ObjectAction::Keep);
        found.data["spec"]["replicas"] = 3.into();
        assert!(matches!(action_for(desired(), Some(&found)), ObjectAction::Apply(_)));
    }

    #[test]
    fn object_without_label_is_foreign() {
        let mut found = desired().object;
        found.data["spec"]["replicas"] = 3.into();
        found.metadata.labels = Some([(MANAGED_BY_LABEL.to_owned(), "Helm".to_owned())].into());
        assert_eq!(action_for(desired(), Some(&found)), ObjectAction::Foreign);
        found.metadata.labels = None;
        assert_eq!(action_for(desired(), Some(&found)), ObjectAction::Foreign);
    }

    #[test]
    fn leaves_object_with_unmanaged_annotation() {
        let mut found = desired().object;
        found.data["spec"]["replicas"] = 3.into();
        found.metadata.annotations = Some([(keys::UNMANAGED_ANNOTATION.to_owned(), "true".to_owned())].into());
        assert_eq!(action_for(desired(), Some(&found)), ObjectAction::Leave);
    }

    #[test]
    fn keeps_current_value_of_initial_only_fields() {
        let mut free = desired();
        free.initial_only = &["/spec/replicas"];
        let mut found = desired().object;
        found.data["spec"]["replicas"] = 7.into();
        assert_eq!(action_for(free.clone(), Some(&found)), ObjectAction::Keep);
        found.data["spec"]["template"]["spec"]["tolerations"] = json!([]);
        let ObjectAction::Apply(applied) = action_for(free, Some(&found)) else { unreachable!("it was changed") };
        assert_eq!(applied.object.data["spec"]["replicas"], 7);
    }

    #[test]
    fn keeps_user_tolerations_and_restores_own() {
        let mut found = desired().object;
        found.data["spec"]["template"]["spec"]["tolerations"] = json!([{"key": "a"}, {"key": "theirs"}]);
        assert_eq!(action_for(desired(), Some(&found)), ObjectAction::Keep);
        found.data["spec"]["template"]["spec"]["tolerations"] = json!([{"key": "theirs"}]);
        assert!(matches!(action_for(desired(), Some(&found)), ObjectAction::Apply(_)));
    }
}
