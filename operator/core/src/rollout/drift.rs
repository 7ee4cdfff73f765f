//! Detects changes that were made on a node. Keyplane reports them and does not revert them.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::reasons;

use super::{Rollout, Running, Step};
use crate::agent_access::machines;
use crate::certificate_authorities::ClusterCas;
use crate::model::{Cluster, Version};
use crate::observed::{Observed, version_of};
use crate::pki::{CaName, CertificateFacts, authority_key_id, first_certificate};
use crate::{names, objects};

/// Whether the nodes run the files that Keyplane wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    /// No difference is observed.
    InSync {
        /// The number of API servers whose certificate was observed.
        servers: usize,
    },
    /// The target cluster does not answer.
    Unknown,
    /// At least one node differs.
    Differs {
        /// The condition's reason.
        reason: &'static str,
        /// The differences, and the remedies.
        message: String,
    },
}

/// Compares the state of the target cluster and the agents' reports with the written files.
#[must_use]
pub fn drift(
    cluster: &Cluster,
    observed: &Observed,
    rollout: &Rollout,
    cas: Option<&ClusterCas>,
    now: Timestamp,
) -> Drift {
    let target = &observed.target;
    let node_messages = machines::sync_problems(cluster, observed, now);
    let nodes_reason = node_messages.first().map(|(reason, _)| *reason);
    let node_messages: Vec<_> = node_messages.into_iter().map(|(_, message)| message).collect();
    if !matches!(target.available, Some(Ok(()))) || target.static_pods.is_none() {
        let unknown_cas = unknown_cas(cluster, observed, cas);
        return match nodes_reason {
            _ if !unknown_cas.is_empty() => Drift::Differs {
                reason: reasons::CA_DIFFERS,
                message: [unknown_cas, node_messages].concat().join("; "),
            },
            Some(reason) => Drift::Differs { reason, message: node_messages.join("; ") },
            None => Drift::Unknown,
        };
    }
    let versions = versions(cluster, observed, rollout);
    let certificates = certificates(cluster, observed, cas);
    let manifests = manifests(cluster, rollout);
    let reason = if !versions.is_empty() {
        reasons::VERSION_DIFFERS
    } else if !certificates.is_empty() {
        reasons::CERTIFICATE_DIFFERS
    } else if !manifests.is_empty() {
        reasons::MANIFEST_DIFFERS
    } else if let Some(reason) = nodes_reason {
        reason
    } else {
        return Drift::InSync { servers: target.serving.len() };
    };
    Drift::Differs { reason, message: [versions, certificates, manifests, node_messages].concat().join("; ") }
}

fn ahead(cluster: &Cluster, step: &Step) -> Option<Version> {
    version_of(step.running_image.as_deref()?).filter(|running| *running > cluster.version)
}

/// Returns the nodes that run a newer version, as after `kubeadm upgrade` on the node.
fn versions(cluster: &Cluster, observed: &Observed, rollout: &Rollout) -> Vec<String> {
    let mut newer: BTreeMap<(&str, Version), Vec<&str>> = BTreeMap::new();
    for step in &rollout.steps {
        if let Some(version) = ahead(cluster, step) {
            newer.entry((&step.node, version)).or_default().push(&step.component);
        }
    }
    let mut messages: Vec<_> = newer
        .into_iter()
        .map(|((node, version), components)| {
            let config = names::node_config_map(&cluster.name, node);
            format!(
                "{node}: {} run {version} and the spec says {}, as after `kubeadm upgrade` on the node: set \
                 spec.kubernetesVersion to {version} to adopt the upgrade, or copy the files of ConfigMap {config} to \
                 the node again",
                components.join(", "),
                cluster.version
            )
        })
        .collect();
    // kubeadm's version stays until the spec has the same version. Keyplane never overwrites it with a lower one.
    if let Some(version) = observed.target.configured_ahead.filter(|version| *version > cluster.version) {
        messages.push(format!(
            "kube-system/kubeadm-config has version {version}, as after `kubeadm upgrade apply`: kubeadm-config and \
             kubelet-config stay unchanged until spec.kubernetesVersion is {version} or kubeadm-config has {} again",
            cluster.version
        ));
    }
    messages
}

/// Returns the static pods that matched their manifest before and differ from it now.
fn manifests(cluster: &Cluster, rollout: &Rollout) -> Vec<String> {
    let changed = rollout.steps.iter().filter(|step| {
        step.running == Running::Other && step.is_proven() && !step.is_pending() && ahead(cluster, step).is_none()
    });
    changed
        .map(|Step { node, component, .. }| {
            let config = names::node_config_map(&cluster.name, node);
            format!(
                "{node}: {component} does not run the manifest that Keyplane wrote, so it was changed on the node: put \
                 the change into the ClusterSpec, or copy the files of ConfigMap {config} to the node again"
            )
        })
        .collect()
}

/// Returns the API servers that present another certificate, as after `kubeadm certs renew` on the node, or because the
/// node has not applied its Secret.
fn certificates(cluster: &Cluster, observed: &Observed, cas: Option<&ClusterCas>) -> Vec<String> {
    let differing = cluster.nodes.iter().filter_map(|node| {
        let presented = observed.target.serving.get(&node.name)?;
        let secret = names::node_secret(&cluster.name, &node.name);
        let held = objects::text(observed.secrets.get(&secret)?, "apiserver.crt")?;
        let held = first_certificate("apiserver", held).ok()?;
        (presented.der != held.der).then(|| {
            let ours = cas.is_some_and(|all| all.cluster().has_signed(presented));
            format!("{}: {}", node.name, certificate(presented, &held, ours, &secret))
        })
    });
    differing.collect()
}

/// Returns the API servers that present certificates of an unknown CA. Keyplane can't connect to them for that reason.
fn unknown_cas(cluster: &Cluster, observed: &Observed, cas: Option<&ClusterCas>) -> Vec<String> {
    let Some(ca) = cas.map(ClusterCas::cluster) else { return vec![] };
    let unknown = observed.target.serving.iter();
    let unknown = unknown.filter(|(_, presented)| presented.is_of_api_server() && !ca.has_signed(presented));
    unknown
        .map(|(node, presented)| {
            let secret = names::ca_secret(&cluster.name, CaName::Cluster);
            let CertificateFacts { serial, issuer, not_before, .. } = presented;
            let key = authority_key_id(presented).unwrap_or_default();
            let since = ca.signing().facts().not_before;
            let cure = if *not_before < since {
                format!("copy the files of Secret {} to the node", names::node_secret(&cluster.name, node))
            } else {
                format!(
                    "Secret {secret} is from a backup that is older than the node's files: restore the newest backup; \
                     without one, copy the CA certificate and key from the directory pki of the node"
                )
            };
            format!(
                "{node}: its API server presents a certificate (serial {serial}, valid from {not_before}) of a CA \
                 {issuer} with the key {key}, which differs from the CA in Secret {secret}: {cure}"
            )
        })
        .collect()
}

fn certificate(presented: &CertificateFacts, held: &CertificateFacts, ours: bool, secret: &str) -> String {
    let CertificateFacts { serial, issuer, not_after, .. } = presented;
    if !ours {
        return format!(
            "its API server presents a certificate of another CA (issuer {issuer}, serial {serial}, expires at \
             {not_after}): copy the files of Secret {secret} to the node"
        );
    }
    if presented.not_before < held.not_before {
        return format!(
            "its API server still presents an older certificate (serial {serial}, expires at {not_after}) than Secret \
             {secret} has (serial {}): copy the files of the Secret to the node",
            held.serial
        );
    }
    format!(
        "its API server presents a certificate of the cluster CA that Keyplane did not issue (serial {serial}, expires \
         at {not_after}), as after `kubeadm certs renew`: Keyplane does not renew this certificate; copy the files of \
         Secret {secret} to the node to have it renewed"
    )
}
