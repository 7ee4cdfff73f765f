//! The audit log.

use serde_json::{Value, json};

use super::{ApiServerOption, file, mount};
use crate::model::Cluster;
use crate::yaml;

const DIRECTORY: &str = "/etc/kubernetes/audit";
const POLICY: &str = "/etc/kubernetes/audit/policy.yaml";

/// The kubeconfig of the server that gets audit events. It may hold credentials, so it is in the node's Secret.
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

/// What the CIS Kubernetes Benchmark asks for (3.2.2), without what machines repeat all day long. The first rule that
/// fits a request decides.
fn default_policy() -> Value {
    let nothing = |more: Value| rule("None", more);
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        // Every request would be there twice.
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
            // Who touched it, never what it is: these bodies are secrets.
            rule("Metadata", json!({
                "resources": [
                    {"group": "", "resources": ["secrets", "configmaps", "serviceaccounts/token"]},
                    {"group": "authentication.k8s.io", "resources": ["tokenreviews"]},
                ],
            })),
            rule("Metadata", json!({"verbs": ["get", "list", "watch"]})),
            // What was changed in what decides about code and rights.
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
            // Bodies of kinds that others have brought may be secrets too.
            rule("Metadata", json!({})),
        ],
    })
}

fn rule(level: &str, mut rule: Value) -> Value {
    rule["level"] = level.into();
    rule
}
