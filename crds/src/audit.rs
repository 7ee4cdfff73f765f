//! Audit logging of the target cluster's API servers.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::LocalReference;

/// The audit log of the target cluster. An empty object enables it with the defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// The audit policy: a `Policy` of `audit.k8s.io/v1`, as in a file for `--audit-policy-file`. Not set means
    /// Keyplane's own policy: it logs who read or changed an object. It includes the bodies of changes to workloads,
    /// networks and RBAC objects, but never those of Secrets, ConfigMaps and tokens. It omits health checks, heartbeats
    /// and Events. A change restarts the API servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "policy")]
    pub policy: Option<Map<String, Value>>,

    /// The log file on each control-plane node.
    #[serde(default)]
    pub log: AuditLog,

    /// A server that also receives the audit events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<AuditWebhook>,
}

/// The file to which an API server logs, and its rotation. The numbers are those of the CIS Kubernetes Benchmark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditLog {
    /// The file. Keyplane creates a missing directory and mounts it into the API server's container.
    #[serde(default = "AuditLog::default_path")]
    #[schemars(length(min = 4, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^(/[A-Za-z0-9_-][A-Za-z0-9._-]*){2,}$') && !self.matches('^/(bin|boot|dev|etc|lib|lib64|proc|run|sbin|sys|usr)/')")
        .message("spec.audit.log.path must be an absolute path in a directory for data, for example /var/log/kubernetes/audit/audit.log"))]
    pub path: String,

    /// The number of days for which rotated files are kept.
    #[serde(default = "AuditLog::default_max_age")]
    #[schemars(range(min = 1, max = 3650))]
    pub max_age: i32,

    /// The number of rotated files that are kept.
    #[serde(default = "AuditLog::default_max_backup")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_backup: i32,

    /// The size in megabytes at which the file is rotated.
    #[serde(default = "AuditLog::default_max_size")]
    #[schemars(range(min = 1, max = 10240))]
    pub max_size: i32,
}

impl AuditLog {
    /// The path in Kubernetes' own documentation of auditing. The file has a separate directory, because that directory
    /// is mounted writable.
    fn default_path() -> String {
        "/var/log/kubernetes/audit/audit.log".to_owned()
    }

    /// CIS Kubernetes Benchmark, 1.2.17.
    fn default_max_age() -> i32 {
        30
    }

    /// CIS Kubernetes Benchmark, 1.2.18.
    fn default_max_backup() -> i32 {
        10
    }

    /// CIS Kubernetes Benchmark, 1.2.19.
    fn default_max_size() -> i32 {
        100
    }
}

impl Default for AuditLog {
    fn default() -> Self {
        Self {
            path: Self::default_path(),
            max_age: Self::default_max_age(),
            max_backup: Self::default_max_backup(),
            max_size: Self::default_max_size(),
        }
    }
}

/// A server to which the API servers send audit events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditWebhook {
    /// A Secret in the same namespace. Its key `value` is a kubeconfig that names the server. With the label
    /// `keyplane.io/cluster: <name of the ClusterSpec>`, Keyplane sees a change of the Secret at once, otherwise within
    /// an hour. The API servers read the kubeconfig only when they start.
    pub secret_ref: LocalReference,
}

/// A Policy of `audit.k8s.io/v1`. The API server of the management cluster checks the listed fields and keeps fields
/// that are newer than this list.
fn policy(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let strings = serde_json::json!({"type": "array", "maxItems": 256, "items": {"type": "string", "maxLength": 512}});
    let stages = serde_json::json!({
        "type": "array", "maxItems": 4,
        "items": {"type": "string", "enum": ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"]},
    });
    let resources = serde_json::json!({
        "type": "array", "maxItems": 256,
        "items": {
            "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"group": {"type": "string", "maxLength": 253}, "resources": strings, "resourceNames": strings},
        },
    });
    let rule = serde_json::json!({
        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "required": ["level"],
        "properties": {
            "level": {"type": "string", "enum": ["None", "Metadata", "Request", "RequestResponse"]},
            "users": strings, "userGroups": strings, "verbs": strings, "namespaces": strings, "resources": resources,
            "nonResourceURLs": {
                "type": "array", "maxItems": 256,
                "items": {"type": "string", "maxLength": 512, "pattern": r"^(\*|/[^*]*\*?)$"},
            },
            "omitStages": stages,
            "omitManagedFields": {"type": "boolean"},
        },
    });
    schemars::json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "required": ["apiVersion", "kind", "rules"],
        "properties": {
            "apiVersion": {"type": "string", "enum": ["audit.k8s.io/v1"]},
            "kind": {"type": "string", "enum": ["Policy"]},
            "omitStages": stages,
            "omitManagedFields": {"type": "boolean"},
            "rules": {"type": "array", "minItems": 1, "maxItems": 256, "items": rule},
        },
    })
}
