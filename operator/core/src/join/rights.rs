//! What Keyplane's own user may do in the target for the sake of workers.

use serde_json::{Value, json};

use super::pool::Pool;
use super::token::{NAMESPACE, SECRET_TYPE, ids, secret_name};
use crate::target_objects::{TargetObject, USER};

/// The name of the roles here.
pub const RIGHTS: &str = "keyplane:join";
/// The name of the admission policy, which may have no colon.
pub const ADMISSION_POLICY: &str = "keyplane-join";
const GROUP: &str = "rbac.authorization.k8s.io";

/// Roles for the tokens of these pools and the labels of their declared machines' Nodes. `leaving` are pools whose tokens are
/// still to be revoked.
///
/// RBAC can't limit the name of what is created, and a Secret of another type in kube-system would be a key to any
/// service account there: an admission policy of the target says no to that.
#[must_use]
pub fn target_objects(namespace: &str, pools: &[Pool], leaving: &[String]) -> Vec<TargetObject> {
    let mut secrets: Vec<String> = pools
        .iter()
        .map(|pool| &pool.name)
        .chain(leaving)
        .flat_map(|pool| ids(namespace, pool))
        .map(|id| secret_name(&id))
        .collect();
    secrets.sort();
    secrets.dedup();
    let mut nodes: Vec<_> = pools
        .iter()
        .flat_map(|pool| pool.machines.iter().filter(|machine| !pool.node_labels(Some(machine)).is_empty()))
        .map(|machine| machine.name.as_str())
        .collect();
    nodes.sort_unstable();
    let of_tokens = if secrets.is_empty() {
        vec![]
    } else {
        vec![
            json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": secrets, "verbs": ["get", "delete"]}),
            json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}),
        ]
    };
    let of_nodes = if nodes.is_empty() {
        vec![]
    } else {
        vec![json!({"apiGroups": [""], "resources": ["nodes"], "resourceNames": nodes, "verbs": ["patch"]})]
    };
    let subjects = json!([{"kind": "User", "apiGroup": GROUP, "name": USER}]);
    let reference = |kind: &str| json!({"apiGroup": GROUP, "kind": kind, "name": RIGHTS});
    let object = TargetObject::new;
    vec![
        object(ADMISSION, "ValidatingAdmissionPolicy", None, ADMISSION_POLICY, policy()),
        object(ADMISSION, "ValidatingAdmissionPolicyBinding", None, ADMISSION_POLICY, binding()),
        object(GROUP, "ClusterRole", None, RIGHTS, json!({"rules": of_nodes})),
        object(
            GROUP,
            "ClusterRoleBinding",
            None,
            RIGHTS,
            json!({"roleRef": reference("ClusterRole"), "subjects": subjects}),
        ),
        object(GROUP, "Role", Some(NAMESPACE), RIGHTS, json!({"rules": of_tokens})),
        object(
            GROUP,
            "RoleBinding",
            Some(NAMESPACE),
            RIGHTS,
            json!({"roleRef": reference("Role"), "subjects": subjects}),
        ),
    ]
}

const ADMISSION: &str = "admissionregistration.k8s.io";

fn policy() -> Value {
    json!({"spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"], "operations": ["CREATE"]},
        ]},
        "matchConditions": [{"name": "by-keyplane", "expression": format!("request.userInfo.username == '{USER}'")}],
        "validations": [{
            "expression": format!("object.type == '{SECRET_TYPE}'"),
            "message": format!("{USER} may create bootstrap tokens and no other Secret"),
        }],
    }})
}

fn binding() -> Value {
    json!({"spec": {"policyName": ADMISSION_POLICY, "validationActions": ["Deny"]}})
}
