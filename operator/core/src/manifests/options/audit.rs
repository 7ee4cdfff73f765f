//! The option for audit logging.

use serde_json::{Value, json};

use super::{ApiServerOption, file, mount};
use crate::model::Cluster;
use crate::yaml;

const DIRECTORY: &str = "/etc/kubernetes/audit";
const POLICY: &str = "/etc/kubernetes/audit/policy.yaml";

/// The path of the kubeconfig of the audit webhook. The file may contain credentials, so its content is in the node's
/// Secret.
pub const WEBHOOK_KUBECONFIG: &str = "/etc/kubernetes/audit/webhook.conf";

pub(super) fn option(cluster: &Cluster) -> Option<ApiServerOption> {
    let audit = cluster.spec.audit.as_ref()?;
    let policy = yaml::write(&audit.policy.clone().map_or_else(default_policy, Value::Object));
    let log = &audit.log;
    let mut arguments = vec![
        ("audit-policy-file", POLICY.to_owned()),
        ("audit-log-path", log.path.clone()),
        ("audit-log-maxage", log.max_age.to_string()),
        ("audit-log-maxbackup", log.max_backup.to_string()),
        ("audit-log-maxsize", log.max_size.to_string()),
    ];
    if audit.webhook.is_some() {
        arguments.push(("audit-webhook-config-file", WEBHOOK_KUBECONFIG.to_owned()));
    }
    let log_directory = log.path.rsplit_once('/').map_or(log.path.as_str(), |(directory, _)| directory);
    Some(ApiServerOption {
        files: vec![file("audit-policy.yaml", POLICY, policy.clone())],
        arguments,
        mounts: vec![mount("audit-config", DIRECTORY, true), mount("audit-log", log_directory, false)],
        read_at_start: Some(("audit", policy)),
    })
}

/// Returns the default policy: the minimum of the CIS Kubernetes Benchmark (3.2.2), without the routine requests of
/// nodes and controllers. The first matching rule decides.
fn default_policy() -> Value {
    let nothing = |more: Value| rule("None", more);
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        // With this stage every request would be logged twice.
        "omitStages": ["RequestReceived"],
        "omitManagedFields": true,
        "rules": [
            nothing(json!({"nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi/*"]})),
            nothing(json!({"resources": [{"group": "", "resources": ["events"]}, {"group": "events.k8s.io", "resources": ["events"]}]})),
            nothing(json!({
                "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"],
                "verbs": ["get", "update", "patch"],
                "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}],
            })),
            nothing(json!({
                "users": ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"],
                "verbs": ["get", "update", "patch"],
                "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}],
            })),
            nothing(json!({
                "userGroups": ["system:nodes"],
                "verbs": ["update", "patch"],
                "resources": [{"group": "", "resources": ["nodes/status", "pods/status"]}],
            })),
            // Metadata only: the request bodies contain secrets.
            rule("Metadata", json!({
                "resources": [
                    {"group": "", "resources": ["secrets", "configmaps", "serviceaccounts/token"]},
                    {"group": "authentication.k8s.io", "resources": ["tokenreviews"]},
                ],
            })),
            rule("Metadata", json!({"verbs": ["get", "list", "watch"]})),
            // Request bodies for changes to workloads and permissions.
            rule("Request", json!({
                "resources": [
                    {"group": ""},
                    {"group": "admissionregistration.k8s.io"},
                    {"group": "apiextensions.k8s.io"},
                    {"group": "apiregistration.k8s.io"},
                    {"group": "apps"},
                    {"group": "autoscaling"},
                    {"group": "batch"},
                    {"group": "certificates.k8s.io"},
                    {"group": "networking.k8s.io"},
                    {"group": "policy"},
                    {"group": "rbac.authorization.k8s.io"},
                    {"group": "scheduling.k8s.io"},
                    {"group": "storage.k8s.io"},
                ],
            })),
            // Bodies of other resources, such as custom resources, may contain secrets too.
            rule("Metadata", json!({})),
        ],
    })
}

fn rule(level: &str, mut rule: Value) -> Value {
    rule["level"] = level.into();
    rule
}
