//! The Pod Security Standards for namespaces without their own labels.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The defaults of Pod Security admission in the target cluster. A namespace's `pod-security.kubernetes.io` labels take
/// precedence. A change restarts the API servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSecurity {
    /// The level that Pods must meet: others are refused. Not set means `privileged`, Kubernetes' default, which
    /// refuses none.
    #[serde(default)]
    pub enforce: PodSecurityLevel,

    /// The level for the audit log: it notes Pods that violate the level. Not set means the level of `enforce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<PodSecurityLevel>,

    /// The level for warnings: a client that creates a violating object gets a warning. Not set means the level of
    /// `enforce`. A client that creates a Deployment then gets a warning, too, if its Pods would be refused later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn: Option<PodSecurityLevel>,

    /// The Kubernetes version whose standards are enforced, for example `v1.37`, or `latest`.
    #[serde(default = "PodSecurity::default_version")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^(latest|v1[.](0|[1-9][0-9]{0,2}))$')")
        .message("spec.podSecurity.version must be latest or a minor version, for example v1.37"))]
    pub version: String,

    /// As `version`, for `audit`. Not set means `latest`. If `enforce` has a fixed version, the audit log then shows
    /// the Pods that the next version would refuse.
    #[serde(default = "PodSecurity::default_version")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^(latest|v1[.](0|[1-9][0-9]{0,2}))$')")
        .message("spec.podSecurity.auditVersion must be latest or a minor version, for example v1.37"))]
    pub audit_version: String,

    /// As `version`, for `warn`. Not set means `latest`.
    #[serde(default = "PodSecurity::default_version")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^(latest|v1[.](0|[1-9][0-9]{0,2}))$')")
        .message("spec.podSecurity.warnVersion must be latest or a minor version, for example v1.37"))]
    pub warn_version: String,

    /// Users, namespaces and runtime classes that Pod Security admission ignores.
    #[serde(default)]
    pub exemptions: PodSecurityExemptions,
}

impl PodSecurity {
    /// Kubernetes' default.
    fn default_version() -> String {
        "latest".to_owned()
    }
}

/// A level of the Pod Security Standards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PodSecurityLevel {
    /// Allows everything.
    #[default]
    Privileged,
    /// Prevents known privilege escalations on the node.
    Baseline,
    /// Allows only the rights of hardened workloads.
    Restricted,
}

impl PodSecurityLevel {
    /// The level as Kubernetes writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// Users, namespaces and runtime classes that Pod Security admission ignores. The namespace `kube-system` is always
/// exempt: its control-plane Pods use the network and the files of the node. Every level but `privileged` refuses such
/// Pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSecurityExemptions {
    /// Users. Controllers create most Pods, so the name of a controller would exempt all users of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub usernames: Vec<String>,

    /// Namespaces, besides `kube-system`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(n, !format.dns1123Label().validate(n).hasValue())")
        .message("spec.podSecurity.exemptions.namespaces: each must be the name of a namespace, for example monitoring"))]
    pub namespaces: Vec<String>,

    /// Runtime classes of Pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(n, !format.dns1123Subdomain().validate(n).hasValue())")
        .message("spec.podSecurity.exemptions.runtimeClasses: each must be the name of a RuntimeClass, for example gvisor"))]
    pub runtime_classes: Vec<String>,
}
