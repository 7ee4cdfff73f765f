//! People and programs that get a kubeconfig for the target cluster.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A user of the target cluster, with a kubeconfig in the Secret `<cluster>-user-<name>-kubeconfig`. RBAC in the target
/// cluster decides about the user's permissions. A certificate can't be revoked. If you remove the user from the list,
/// Keyplane deletes the Secret, but every copy stays valid until the certificate expires. So remove the bindings, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The name of the user in the target cluster.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("!format.dns1123Label().validate(self).hasValue()")
        .message("spec.users[].name must be a lower-case DNS label, for example jane-doe: it is a part of the Secret's name"))]
    pub name: String,

    /// The groups of the user in the target cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(g, !g.startsWith('system:'))")
        .message("spec.users[].groups: groups that begin with system: are reserved for Kubernetes, and membership of system:masters can't be revoked: choose another group and bind a role to it in the target cluster, for example ClusterRoleBinding cluster-admin to platform-admins"))]
    #[x_kube(validation = Rule::new("self.all(g, !g.matches('[[:cntrl:]]'))")
        .message("spec.users[].groups: a group is one line of text, for example platform-admins"))]
    pub groups: Vec<String>,

    /// The lifetime of the certificate, at most a year. Not set means the `leaf.validity` of the CertificatePolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && duration(self) >= duration('10m') && duration(self) <= duration('8760h')")
        .message("spec.users[].validity must be a duration of hours, minutes and seconds from 10m to 8760h, for example 720h"))]
    pub validity: Option<String>,
}
