//! The Pod Security Standards that hold in namespaces without labels of their own.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The defaults of the target's Pod Security admission; a namespace's `pod-security.kubernetes.io` labels go before
/// them. A change restarts the API servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSecurity {
    /// Pods that break this level are refused. Not set means `privileged`, Kubernetes' default: none is.
    #[serde(default)]
    pub enforce: PodSecurityLevel,

    /// Pods that break this level are noted in the audit log. Not set means the level of `enforce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<PodSecurityLevel>,

    /// Who makes something that breaks this level is warned. Not set means the level of `enforce`: then the makers of
    /// Deployments are warned too, whose Pods would be refused later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn: Option<PodSecurityLevel>,

    /// The Kubernetes version whose standards are enforced, for example `v1.37`, or `latest`.
    #[serde(default = "PodSecurity::default_version")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^(latest|v1[.](0|[1-9][0-9]{0,2}))$')")
        .message("spec.podSecurity.version must be latest or a minor version, for example v1.37"))]
    pub version: String,

    /// As `version`, for `audit`. Not set means `latest`: with `enforce` at a fixed version it shows what the next one
    /// would refuse.
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

    /// Who and what is not looked at.
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
    /// Everything is allowed.
    #[default]
    Privileged,
    /// No known way to more rights on the machine.
    Baseline,
    /// What hardened workloads need, and no more.
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

/// Who and what Pod Security admission does not look at. The namespace `kube-system` is always exempt: the control
/// plane itself runs there, in Pods with the machine's network and files, which every level but `privileged` refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSecurityExemptions {
    /// Users. Most Pods are made by controllers, whose names would exempt everybody.
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
