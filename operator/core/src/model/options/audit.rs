//! Validation of the audit policy and log (k8s.io/apiserver, `apis/audit/validation` and `audit/policy/reader.go`).

use keyplane_crds::{Argument, Audit, AuditLog};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{FieldError, is_dns_name, refuse_flags};

const POLICY: &str = "spec.audit.policy";
const FLAGS: [&str; 6] = [
    "audit-policy-file",
    "audit-log-path",
    "audit-log-maxage",
    "audit-log-maxbackup",
    "audit-log-maxsize",
    "audit-webhook-config-file",
];
/// System directories. The log's directory is mounted writable over the directory of the API server's image.
const SYSTEM_DIRECTORIES: [&str; 11] =
    ["bin", "boot", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "usr"];

/// The validated part of a policy. Some fields are only checked for their type; newer fields are left to the API
/// server.
#[derive(Deserialize)]
#[allow(dead_code)]
#[serde(rename_all = "camelCase")]
struct Policy {
    api_version: String,
    kind: String,
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Deserialize)]
#[allow(dead_code)]
#[serde(rename_all = "camelCase")]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default, rename = "resources")]
    kinds: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

#[derive(Deserialize)]
enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

#[derive(Deserialize)]
enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

pub(super) fn refuse(audit: &Audit, extra: &[Argument]) -> Result<(), FieldError> {
    refuse_flags(extra, |name| FLAGS.contains(&name), "is set by spec.audit: write it there, or remove spec.audit")?;
    refuse_log(&audit.log)?;
    audit.policy.as_ref().map_or(Ok(()), refuse_policy)
}

fn refuse_log(log: &AuditLog) -> Result<(), FieldError> {
    let segments: Vec<_> = log.path.split('/').skip(1).collect();
    let good = |segment: &&str| {
        !segment.is_empty()
            && !segment.starts_with('.')
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    let absolute = log.path.starts_with('/') && segments.len() > 1 && segments.iter().all(good);
    if !absolute || segments.first().is_some_and(|first| SYSTEM_DIRECTORIES.contains(first)) {
        return Err(FieldError::new(
            "spec.audit.log.path",
            format!(
                "{:?} must be an absolute path in a directory for data, for example /var/log/kubernetes/audit/audit.log",
                log.path
            ),
        ));
    }
    let numbers = [("maxAge", log.max_age), ("maxBackup", log.max_backup), ("maxSize", log.max_size)];
    match numbers.into_iter().find(|(_, number)| *number < 1) {
        Some((name, number)) => {
            Err(FieldError::new(format!("spec.audit.log.{name}"), format!("{number} must be at least 1")))
        }
        None => Ok(()),
    }
}

fn refuse_policy(written: &Map<String, Value>) -> Result<(), FieldError> {
    let policy: Policy = serde_json::from_value(Value::Object(written.clone()))
        .map_err(|error| FieldError::new(POLICY, format!("is not a Policy of audit.k8s.io/v1: {error}")))?;
    if policy.api_version != "audit.k8s.io/v1" || policy.kind != "Policy" {
        return Err(FieldError::new(POLICY, "must have apiVersion: audit.k8s.io/v1 and kind: Policy"));
    }
    if policy.rules.is_empty() {
        return Err(FieldError::new(format!("{POLICY}.rules"), "is empty: write at least one rule"));
    }
    policy.rules.iter().enumerate().try_for_each(|(index, rule)| refuse_rule(&format!("{POLICY}.rules[{index}]"), rule))
}

fn refuse_rule(field: &str, rule: &Rule) -> Result<(), FieldError> {
    let good_url = |url: &&String| {
        let without_star = url.strip_suffix('*').unwrap_or(url);
        url.as_str() == "*" || (url.starts_with('/') && !without_star.contains('*'))
    };
    if let Some(url) = rule.non_resource_urls.iter().find(|url| !good_url(url)) {
        let message = format!("{url:?} must begin with a slash and may have one *, at its end");
        return Err(FieldError::new(format!("{field}.nonResourceURLs"), message));
    }
    if !rule.non_resource_urls.is_empty() && (!rule.resources.is_empty() || !rule.namespaces.is_empty()) {
        return Err(FieldError::new(field, "is either for nonResourceURLs or for resources and namespaces: write two"));
    }
    for resources in &rule.resources {
        let group = &resources.group;
        if !(group.is_empty() || group == "*" || is_dns_name(group)) {
            let message = format!("{group:?} is not an API group: write it without a version, for example apps");
            return Err(FieldError::new(format!("{field}.resources"), message));
        }
        if !resources.resource_names.is_empty() && resources.kinds.is_empty() {
            return Err(FieldError::new(format!("{field}.resources"), "resourceNames need at least one of resources"));
        }
    }
    Ok(())
}
