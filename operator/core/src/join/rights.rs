//! The RBAC rules and the admission policy of Keyplane's user in the target cluster for joining nodes.

use serde_json::{Value, json};

use super::pool::Pool;
use super::token::{NAMESPACE, SECRET_TYPE, ids, secret_name};
use crate::target_objects::{TargetObject, USER};

/// The name of the roles and bindings.
pub const JOIN_ROLE: &str = "keyplane:join";
/// The name of the admission policy. A colon is not allowed in this name.
pub const ADMISSION_POLICY: &str = "keyplane-join";
const GROUP: &str = "rbac.authorization.k8s.io";

/// Returns the roles for the tokens of these pools and for the labels of their listed nodes. `leaving` are deleted
/// pools whose tokens are not revoked yet.
///
/// RBAC can't limit the names of created objects, and with a Secret of another type in kube-system Keyplane could get a
/// token of any service account there. An admission policy in the target cluster denies such Secrets.
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
    let token_rules = if secrets.is_empty() {
        vec![]
    } else {
        vec![
            json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": secrets, "verbs": ["get", "delete"]}),
            json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}),
        ]
    };
    let node_rules = if nodes.is_empty() {
        vec![]
    } else {
        vec![json!({"apiGroups": [""], "resources": ["nodes"], "resourceNames": nodes, "verbs": ["patch"]})]
    };
    let subjects = json!([{"kind": "User", "apiGroup": GROUP, "name": USER}]);
    let reference = |kind: &str| json!({"apiGroup": GROUP, "kind": kind, "name": JOIN_ROLE});
    let object = TargetObject::new;
    vec![
        object(ADMISSION, "ValidatingAdmissionPolicy", None, ADMISSION_POLICY, policy()),
        object(ADMISSION, "ValidatingAdmissionPolicyBinding", None, ADMISSION_POLICY, binding()),
        object(GROUP, "ClusterRole", None, JOIN_ROLE, json!({"rules": node_rules})),
        object(
            GROUP,
            "ClusterRoleBinding",
            None,
            JOIN_ROLE,
            json!({"roleRef": reference("ClusterRole"), "subjects": subjects}),
        ),
        object(GROUP, "Role", Some(NAMESPACE), JOIN_ROLE, json!({"rules": token_rules})),
        object(
            GROUP,
            "RoleBinding",
            Some(NAMESPACE),
            JOIN_ROLE,
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
