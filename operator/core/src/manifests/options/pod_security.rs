//! The option for the cluster-wide defaults of Pod Security admission.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{ApiServerOption, file, mount};
use crate::model::Cluster;
use crate::yaml;

const DIRECTORY: &str = "/etc/kubernetes/admission";
const CONFIGURATION: &str = "/etc/kubernetes/admission/config.yaml";

pub(super) fn option(cluster: &Cluster) -> Option<ApiServerOption> {
    let configuration = yaml::write(&configuration(cluster)?);
    Some(ApiServerOption {
        files: vec![file("admission-config.yaml", CONFIGURATION, configuration.clone())],
        arguments: vec![("admission-control-config-file", CONFIGURATION.to_owned())],
        mounts: vec![mount("admission-config", DIRECTORY, true)],
        read_at_start: Some(("admission", configuration)),
    })
}

fn configuration(cluster: &Cluster) -> Option<Value> {
    let pod_security = cluster.spec.pod_security.as_ref()?;
    let enforce = pod_security.enforce;
    let exemptions = &pod_security.exemptions;
    let namespaces: BTreeSet<_> =
        SYSTEM_NAMESPACES.into_iter().chain(exemptions.namespaces.iter().map(String::as_str)).collect();
    Some(json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [{
            "name": "PodSecurity",
            "configuration": {
                "apiVersion": "pod-security.admission.config.k8s.io/v1",
                "kind": "PodSecurityConfiguration",
                "defaults": {
                    "enforce": enforce.name(),
                    "enforce-version": pod_security.version,
                    "audit": pod_security.audit.unwrap_or(enforce).name(),
                    "audit-version": pod_security.audit_version,
                    "warn": pod_security.warn.unwrap_or(enforce).name(),
                    "warn-version": pod_security.warn_version,
                },
                "exemptions": {
                    "usernames": exemptions.usernames,
                    "namespaces": namespaces,
                    "runtimeClasses": exemptions.runtime_classes,
                },
            },
        }],
    }))
}

/// The exempt namespaces. Mirror Pods of static pods in kube-system use the network and files of the host, and
/// kube-proxy is privileged: every level except `privileged` would reject them.
const SYSTEM_NAMESPACES: [&str; 1] = ["kube-system"];
