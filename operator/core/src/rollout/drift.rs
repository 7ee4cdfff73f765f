//! What somebody changed on a machine: seen, told, and not fought.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::reasons;

use super::{Rollout, Running, Step};
use crate::agent_access::machines;
use crate::authorities::Authorities;
use crate::model::{Cluster, Version};
use crate::names;
use crate::objects;
use crate::observed::Observed;
use crate::observed::version_of;
use crate::pki::AuthorityName;
use crate::pki::{CertificateFacts, authority_key_id, first_certificate};

/// Whether the machines hold what Keyplane wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    /// They do, as far as can be seen.
    InSync {
        /// How many API servers showed their certificate.
        servers: usize,
    },
    /// The target does not answer.
    Unknown,
    /// They do not: the condition's reason and message.
    Differs {
        /// The reason.
        reason: &'static str,
        /// What differs, and the cures.
        message: String,
    },
}

/// Compares what the target shows, and what the agents on the machines report, with what is written.
#[must_use]
pub fn drift(
    cluster: &Cluster,
    observed: &Observed,
    rollout: &Rollout,
    authorities: Option<&Authorities>,
    now: Timestamp,
) -> Drift {
    let target = &observed.target;
    let machines = machines::complaints(cluster, observed, now);
    let machines_reason = machines.first().map(|(reason, _)| *reason);
    let machines: Vec<_> = machines.into_iter().map(|(_, message)| message).collect();
    if !matches!(target.available, Some(Ok(()))) || target.static_pods.is_none() {
        let strangers = strangers(cluster, observed, authorities);
        return match machines_reason {
            _ if !strangers.is_empty() => {
                Drift::Differs { reason: reasons::CA_DIFFERS, message: [strangers, machines].concat().join("; ") }
            }
            Some(reason) => Drift::Differs { reason, message: machines.join("; ") },
            None => Drift::Unknown,
        };
    }
    let versions = versions(cluster, observed, rollout);
    let certificates = certificates(cluster, observed, authorities);
    let manifests = manifests(cluster, rollout);
    let reason = if !versions.is_empty() {
        reasons::VERSION_DIFFERS
    } else if !certificates.is_empty() {
        reasons::CERTIFICATE_DIFFERS
    } else if !manifests.is_empty() {
        reasons::MANIFEST_DIFFERS
    } else if let Some(reason) = machines_reason {
        reason
    } else {
        return Drift::InSync { servers: target.serving.len() };
    };
    Drift::Differs { reason, message: [versions, certificates, manifests, machines].concat().join("; ") }
}

fn ahead(cluster: &Cluster, step: &Step) -> Option<Version> {
    version_of(step.running_image.as_deref()?).filter(|running| *running > cluster.version)
}

/// `kubeadm upgrade` on a machine.
fn versions(cluster: &Cluster, observed: &Observed, rollout: &Rollout) -> Vec<String> {
    let mut newer: BTreeMap<(&str, Version), Vec<&str>> = BTreeMap::new();
    for step in &rollout.steps {
        if let Some(version) = ahead(cluster, step) {
            newer.entry((&step.node, version)).or_default().push(&step.component);
        }
    }
    let mut told: Vec<_> = newer
        .into_iter()
        .map(|((node, version), components)| {
            let config = names::node_config_map(&cluster.name, node);
            format!(
                "{node}: {} run {version} and the spec says {}, as after `kubeadm upgrade` on the machine: set \
                 spec.kubernetesVersion to {version} to take the upgrade over, or carry ConfigMap {config} to the \
                 machine again",
                components.join(", "),
                cluster.version
            )
        })
        .collect();
    // What kubeadm wrote there stays until the spec has caught up; a lower version is never written over it.
    if let Some(version) = observed.target.configured_ahead.filter(|version| *version > cluster.version) {
        told.push(format!(
            "kube-system/kubeadm-config says {version}, as after `kubeadm upgrade apply`: it and kubelet-config are left \
             alone until spec.kubernetesVersion is {version} or kubeadm-config says {} again",
            cluster.version
        ));
    }
    told
}

/// A manifest that was in place once and is another one now.
fn manifests(cluster: &Cluster, rollout: &Rollout) -> Vec<String> {
    let changed = rollout.steps.iter().filter(|step| {
        step.running == Running::Other && step.is_proven() && !step.is_pending() && ahead(cluster, step).is_none()
    });
    changed
        .map(|Step { node, component, .. }| {
            let config = names::node_config_map(&cluster.name, node);
            format!(
                "{node}: {component} does not run what Keyplane wrote, so its manifest was changed on the machine: write \
                 the change into the ClusterSpec, or carry ConfigMap {config} to the machine again"
            )
        })
        .collect()
}

/// `kubeadm certs renew` on a machine, or a Secret that was not carried to it.
fn certificates(cluster: &Cluster, observed: &Observed, authorities: Option<&Authorities>) -> Vec<String> {
    let differing = cluster.nodes.iter().filter_map(|node| {
        let presented = observed.target.serving.get(&node.name)?;
        let secret = names::node_secret(&cluster.name, &node.name);
        let held = objects::text(observed.secrets.get(&secret)?, "apiserver.crt")?;
        let held = first_certificate("apiserver", held).ok()?;
        (presented.der != held.der).then(|| {
            let ours = authorities.is_some_and(|all| all.cluster().has_signed(presented));
            format!("{}: {}", node.name, certificate(presented, &held, ours, &secret))
        })
    });
    differing.collect()
}

/// API servers that present certificates of an authority that is not known here, which is why there is no talking to them.
fn strangers(cluster: &Cluster, observed: &Observed, authorities: Option<&Authorities>) -> Vec<String> {
    let Some(authority) = authorities.map(Authorities::cluster) else { return vec![] };
    let strange = observed.target.serving.iter();
    let strange = strange.filter(|(_, presented)| presented.is_of_api_server() && !authority.has_signed(presented));
    strange
        .map(|(node, presented)| {
            let secret = names::authority_secret(&cluster.name, AuthorityName::Cluster);
            let CertificateFacts { serial, issuer, not_before, .. } = presented;
            let key = authority_key_id(presented).unwrap_or_default();
            let since = authority.signing().facts().not_before;
            let cure = if *not_before < since {
                format!("carry Secret {} to the machine", names::node_secret(&cluster.name, node))
            } else {
                format!(
                    "Secret {secret} is from a backup that is older than what the machine has: restore the newest backup; if                      there is none, the machine has the authority's certificate and key in its directory pki"
                )
            };
            format!(
                "{node}: its API server presents a certificate (serial {serial}, of {not_before}) of an authority {issuer}                  with the key {key}, which is not the one in Secret {secret}: {cure}"
            )
        })
        .collect()
}

fn certificate(presented: &CertificateFacts, held: &CertificateFacts, ours: bool, secret: &str) -> String {
    let CertificateFacts { serial, issuer, not_after, .. } = presented;
    if !ours {
        return format!(
            "its API server presents a certificate of another authority (issuer {issuer}, serial {serial}, until \
             {not_after}): carry Secret {secret} to the machine"
        );
    }
    if presented.not_before < held.not_before {
        return format!(
            "its API server still presents an older certificate (serial {serial}, until {not_after}) than Secret {secret} \
             has (serial {}): carry it to the machine",
            held.serial
        );
    }
    format!(
        "its API server presents a certificate of the cluster's authority that Keyplane did not issue (serial {serial}, \
         until {not_after}), as after `kubeadm certs renew`: it serves, but its end is not watched here; carry Secret \
         {secret} to the machine to have it watched and renewed"
    )
}
