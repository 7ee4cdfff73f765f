//! What is to be done with an object of an add-on, seen what the target has under its name.

use crate::names::{MANAGED_BY, MANAGED_BY_LABEL};
use crate::target_objects::TargetObject;
use keyplane_crds::keys;
use kube::DynamicObject;
use serde_json::Value;

/// What is to be done with an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Judgement {
    /// Nothing: it says what it should.
    Keep,
    /// Nothing: its annotation says that it is the user's.
    Leave,
    /// Nothing, here or with the rest of the add-on: it is somebody else's.
    Foreign,
    /// It is applied.
    Apply(Box<TargetObject>),
}

/// Judges an object that is wanted.
#[must_use]
pub fn judge(wanted: TargetObject, found: Option<&DynamicObject>) -> Judgement {
    let Some(found) = found else { return Judgement::Apply(Box::new(wanted)) };
    if !is_ours(found) {
        return Judgement::Foreign;
    }
    if is_to_be_left(found) {
        return Judgement::Leave;
    }
    let wanted = with_tolerations_of(with_first_settings_of(wanted, found), found);
    if wanted.is_satisfied_by(found) { Judgement::Keep } else { Judgement::Apply(Box::new(wanted)) }
}

/// Whether Keyplane has made the object, or was handed it over with the label.
#[must_use]
pub fn is_ours(found: &DynamicObject) -> bool {
    found.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY_LABEL)).is_some_and(|by| by == MANAGED_BY)
}

/// Whether the user has taken the object over.
#[must_use]
pub fn is_to_be_left(found: &DynamicObject) -> bool {
    let annotation = found.metadata.annotations.as_ref().and_then(|all| all.get(keys::UNMANAGED_ANNOTATION));
    annotation.is_some_and(|value| value == "true")
}

/// What is set at first only is taken over as it is by now. To leave it out would take it away: server-side apply removes
/// what its owner no longer mentions.
fn with_first_settings_of(mut wanted: TargetObject, found: &DynamicObject) -> TargetObject {
    for pointer in wanted.at_first {
        if let (Some(present), Some(value)) = (found.data.pointer(pointer), wanted.object.data.pointer_mut(pointer)) {
            value.clone_from(present);
        }
    }
    wanted
}

/// The tolerations that others have added stay. To server-side apply the list is one value, so that it would be theirs or
/// ours; but whose Nodes have taints adds to it in the target, as with kubeadm.
fn with_tolerations_of(mut wanted: TargetObject, found: &DynamicObject) -> TargetObject {
    const TOLERATIONS: &str = "/spec/template/spec/tolerations";
    let present = found.data.pointer(TOLERATIONS).and_then(Value::as_array);
    let tolerations = wanted.object.data.pointer_mut(TOLERATIONS).and_then(Value::as_array_mut);
    if let (Some(present), Some(tolerations)) = (present, tolerations)
        && tolerations.iter().all(|toleration| present.contains(toleration))
    {
        tolerations.clone_from(present);
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wanted() -> TargetObject {
        let content = json!({"spec": {"replicas": 2, "template": {"spec": {"tolerations": [{"key": "a"}]}}}});
        let mut wanted = TargetObject::new("apps", "Deployment", Some("kube-system"), "coredns", content);
        wanted.object.metadata.labels = Some([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())].into());
        wanted
    }

    #[test]
    fn what_is_missing_or_was_changed_is_applied() {
        assert!(matches!(judge(wanted(), None), Judgement::Apply(_)));
        let mut found = wanted().object;
        assert_eq!(judge(wanted(), Some(&found)), Judgement::Keep);
        found.data["spec"]["replicas"] = 3.into();
        assert!(matches!(judge(wanted(), Some(&found)), Judgement::Apply(_)));
    }

    #[test]
    fn what_somebody_else_has_made_is_foreign_until_it_has_the_label() {
        let mut found = wanted().object;
        found.data["spec"]["replicas"] = 3.into();
        found.metadata.labels = Some([(MANAGED_BY_LABEL.to_owned(), "Helm".to_owned())].into());
        assert_eq!(judge(wanted(), Some(&found)), Judgement::Foreign);
        found.metadata.labels = None;
        assert_eq!(judge(wanted(), Some(&found)), Judgement::Foreign);
    }

    #[test]
    fn what_the_user_has_taken_over_is_left() {
        let mut found = wanted().object;
        found.data["spec"]["replicas"] = 3.into();
        found.metadata.annotations = Some([(keys::UNMANAGED_ANNOTATION.to_owned(), "true".to_owned())].into());
        assert_eq!(judge(wanted(), Some(&found)), Judgement::Leave);
    }

    #[test]
    fn what_is_set_at_first_only_stays_as_it_is_found() {
        let mut free = wanted();
        free.at_first = &["/spec/replicas"];
        let mut found = wanted().object;
        found.data["spec"]["replicas"] = 7.into();
        assert_eq!(judge(free.clone(), Some(&found)), Judgement::Keep);
        found.data["spec"]["template"]["spec"]["tolerations"] = json!([]);
        let Judgement::Apply(applied) = judge(free, Some(&found)) else { unreachable!("it was changed") };
        assert_eq!(applied.object.data["spec"]["replicas"], 7);
    }

    #[test]
    fn a_toleration_of_the_users_stays_and_one_of_ours_comes_back() {
        let mut found = wanted().object;
        found.data["spec"]["template"]["spec"]["tolerations"] = json!([{"key": "a"}, {"key": "theirs"}]);
        assert_eq!(judge(wanted(), Some(&found)), Judgement::Keep);
        found.data["spec"]["template"]["spec"]["tolerations"] = json!([{"key": "theirs"}]);
        assert!(matches!(judge(wanted(), Some(&found)), Judgement::Apply(_)));
    }
}
