//! Validation of Pod Security admission (k8s.io/pod-security-admission, `admission/api/validation`).

use std::collections::BTreeSet;

use keyplane_crds::{Argument, PodSecurity};

use super::{FieldError, is_dns_name, refuse_flags};

pub(super) fn refuse(pod_security: &PodSecurity, extra: &[Argument]) -> Result<(), FieldError> {
    refuse_flags(
        extra,
        |name| name == "admission-control-config-file",
        "excludes spec.podSecurity: remove one of them",
    )?;
    let versions = [
        ("version", &pod_security.version),
        ("auditVersion", &pod_security.audit_version),
        ("warnVersion", &pod_security.warn_version),
    ];
    if let Some((name, version)) = versions.into_iter().find(|(_, version)| !is_version(version)) {
        let message = format!("{version:?} must be latest or a minor version, for example v1.37");
        return Err(FieldError::new(format!("spec.podSecurity.{name}"), message));
    }
    let exemptions = &pod_security.exemptions;
    let label = |name: &str| is_dns_name(name) && !name.contains('.') && name.len() <= 63;
    refuse_names("usernames", &exemptions.usernames, |name| !name.is_empty())?;
    refuse_names("namespaces", &exemptions.namespaces, label)?;
    refuse_names("runtimeClasses", &exemptions.runtime_classes, is_dns_name)
}

fn is_version(text: &str) -> bool {
    let minor = text.strip_prefix("v1.").and_then(|minor| minor.parse::<u16>().ok());
    // Formatting the number refuses text that the integer parser accepts, such as v1.037.
    text == "latest" || minor.is_some_and(|minor| format!("v1.{minor}") == text)
}

fn refuse_names(field: &str, names: &[String], good: impl Fn(&str) -> bool) -> Result<(), FieldError> {
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !good(name) || !seen.insert(*name)) {
        None => Ok(()),
        Some(name) => Err(FieldError::new(
            format!("spec.podSecurity.exemptions.{field}"),
            format!("{name:?} is not a valid name, or is listed twice"),
        )),
    }
}
