//! What the status of a ClusterSpec says.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{
    CertificateStatus, ClusterCondition, ClusterSpecStatus, Condition, ConditionStatus, reasons, set_condition,
};

use super::node_conditions::{nodes_ready, spread_across_failure_domains};
use super::own_credential::{self, OWN};
use super::signing_status as signing;
use super::{departed, encryption, given_authorities, node, plan, rotation_status, user_kubeconfig};
use crate::addons;
use crate::authorities::Authorities;
use crate::blocker::Blocker;
use crate::inventory::{LEAVES, Leaf, Place, USER_ISSUER, cluster_leaves, leaves_of, user_certificate};
use crate::model::{Cluster, Version};
use crate::names;
use crate::observed::Observed;
use crate::observed::Slot;
use crate::pki::{CertificateFacts, first_certificate, renewal};
use crate::rollout::{Drift, KubeletVersions, Progress, Rollout, drift, kubelet_versions, rollout};

/// How long before its end an authority is warned of: kubeadm's leaves live for a year.
const AUTHORITY_WARNING: Duration = Duration::from_hours(24 * 365);

/// What a condition says.
pub(super) struct Outcome {
    status: ConditionStatus,
    reason: String,
    message: String,
}

impl Outcome {
    pub(super) fn good(reason: &str, message: impl Into<String>) -> Self {
        Self { status: ConditionStatus::True, reason: reason.to_owned(), message: message.into() }
    }

    pub(super) fn bad(reason: &str, message: impl Into<String>) -> Self {
        Self { status: ConditionStatus::False, reason: reason.to_owned(), message: message.into() }
    }

    fn unknown(reason: &str, message: impl Into<String>) -> Self {
        Self { status: ConditionStatus::Unknown, reason: reason.to_owned(), message: message.into() }
    }

    fn is_good(&self) -> bool {
        self.status == ConditionStatus::True
    }

    #[cfg(test)]
    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    #[cfg(test)]
    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

/// The status of a cluster whose plan is carried out as far as it could be.
#[must_use]
pub fn report(
    cluster: &Cluster,
    observed: &Observed,
    blockers: &[Blocker],
    generation: Option<i64>,
    now: Timestamp,
) -> ClusterSpecStatus {
    let authorities = Authorities::load(cluster, observed);
    let certificates = match &authorities {
        Some(authorities) => certificates(cluster, observed, authorities),
        // A list that was true is the trace of the keys that are gone: without it they would be made anew.
        None => observed.status.certificates.clone(),
    };
    let nodes = observed.target.control_plane(cluster);
    let ready =
        cluster.nodes.iter().filter(|node| nodes.and_then(|nodes| nodes.get(&node.name)) == Some(&true)).count();
    let rollout = rollout(cluster, observed);
    let rotation =
        authorities.as_ref().map(|all| rotation_status::report(cluster, observed, all, rollout.progress.wait(), now));
    let (rotations, rotated, revocation) = match rotation {
        Some(mut report) => {
            report.rotations.extend(encryption::rotation(cluster, observed, now));
            (report.rotations, report.outcome, report.revocation)
        }
        None => (observed.status.rotations.clone(), None, None),
    };
    let waiting = if cluster.signed_outside.is_empty() { vec![] } else { plan(cluster, observed, now).waiting };
    let mut status = ClusterSpecStatus {
        signing_requests: signing::requests(&waiting),
        observed_generation: generation,
        kubernetes_version: rollout.kubernetes_version.clone(),
        nodes: rollout.nodes.clone(),
        endpoint: Some(cluster.endpoint.to_string()),
        ready_nodes: i32::try_from(ready).ok(),
        desired_nodes: i32::try_from(cluster.nodes.len()).ok(),
        certificates_expire: certificates
            .iter()
            .map(|certificate| certificate.not_after.clone())
            .min_by_key(|time| time.0),
        rotation: rotation_status::summary(&rotations),
        rotations,
        revocation,
        conditions: observed.status.conditions.clone(),
        certificates,
    };
    let rendered = rendered(blockers);
    let available = available(cluster, observed);
    let nodes = nodes_ready(cluster, observed);
    let valid = valid(cluster, &status, rendered.is_good(), now);
    let rolled_out = rolled_out(&rollout);
    let first_bad = [&rendered, &available, &rolled_out, &nodes, &valid].into_iter().find(|outcome| !outcome.is_good());
    let ready = match first_bad {
        None => Outcome::good(
            reasons::READY,
            "everything is written and runs, the control plane answers, its nodes are Ready, all certificates are valid",
        ),
        Some(outcome) => Outcome::bad(&outcome.reason, outcome.message.clone()),
    };
    let stalled = match blockers.first() {
        None => Outcome::bad(reasons::NOT_STALLED, "nothing waits for a person"),
        Some(_) => Outcome::good(&rendered.reason, rendered.message.clone()),
    };
    let reconciling = match first_bad {
        Some(outcome) if blockers.is_empty() => Outcome::good(&outcome.reason, outcome.message.clone()),
        _ => Outcome::bad(reasons::SETTLED, "nothing is under way"),
    };
    set(&mut status.conditions, ClusterCondition::Rendered, &rendered, generation, now);
    set(&mut status.conditions, ClusterCondition::ControlPlaneAvailable, &available, generation, now);
    set(&mut status.conditions, ClusterCondition::ControlPlaneNodesReady, &nodes, generation, now);
    let spread = (ClusterCondition::SpreadAcrossFailureDomains, spread_across_failure_domains(cluster));
    let encrypted = (ClusterCondition::EncryptedAtRest, encryption::outcome(cluster, observed, now));
    let signed = (ClusterCondition::CertificatesSigned, signing::outcome(cluster, &waiting, &status.certificates, now));
    let given = given_authorities::outcome(cluster, observed, authorities.as_ref(), now);
    let given = (ClusterCondition::CertificateAuthoritiesInSync, given);
    for (condition, outcome) in [spread, (ClusterCondition::RotationsCompleted, rotated), given, encrypted, signed] {
        if let Some(outcome) = outcome {
            set(&mut status.conditions, condition, &outcome, generation, now);
        } else {
            status.conditions.retain(|other| other.type_ != condition.name());
        }
    }
    set(&mut status.conditions, ClusterCondition::CertificatesValid, &valid, generation, now);
    set(&mut status.conditions, ClusterCondition::RolledOut, &rolled_out, generation, now);
    let in_sync = in_sync(drift(cluster, observed, &rollout, authorities.as_ref(), now));
    set(&mut status.conditions, ClusterCondition::NodesInSync, &in_sync, generation, now);
    let current = kubelets_current(&rollout, observed);
    set(&mut status.conditions, ClusterCondition::KubeletVersionsMatch, &current, generation, now);
    set(&mut status.conditions, ClusterCondition::AddonsReady, &addons(cluster, observed), generation, now);
    set(&mut status.conditions, ClusterCondition::Ready, &ready, generation, now);
    set(&mut status.conditions, ClusterCondition::Reconciling, &reconciling, generation, now);
    set(&mut status.conditions, ClusterCondition::Stalled, &stalled, generation, now);
    status
}

/// The status of a ClusterSpec that can't be worked on at all: its text makes no sense, or what it refers to is missing.
#[must_use]
pub fn refused(
    previous: &ClusterSpecStatus,
    blocker: &Blocker,
    generation: Option<i64>,
    now: Timestamp,
) -> ClusterSpecStatus {
    let mut status = ClusterSpecStatus { observed_generation: generation, ..previous.clone() };
    let bad = Outcome::bad(blocker.reason, blocker.message.clone());
    let stalled = Outcome::good(blocker.reason, blocker.message.clone());
    let settled = Outcome::bad(reasons::SETTLED, "nothing is under way");
    set(&mut status.conditions, ClusterCondition::Rendered, &bad, generation, now);
    set(&mut status.conditions, ClusterCondition::Ready, &bad, generation, now);
    set(&mut status.conditions, ClusterCondition::Reconciling, &settled, generation, now);
    set(&mut status.conditions, ClusterCondition::Stalled, &stalled, generation, now);
    status
}

/// The status of a ClusterSpec that is to be left alone: as it was, and why nothing happens.
#[must_use]
pub fn paused(
    previous: &ClusterSpecStatus,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> ClusterSpecStatus {
    let mut status = ClusterSpecStatus { observed_generation: generation, ..previous.clone() };
    let paused = Outcome::bad(reasons::PAUSED, message);
    set(&mut status.conditions, ClusterCondition::Reconciling, &paused, generation, now);
    status
}

fn set(
    conditions: &mut Vec<Condition>,
    condition: ClusterCondition,
    outcome: &Outcome,
    generation: Option<i64>,
    now: Timestamp,
) {
    set_condition(conditions, condition.name(), outcome.status, &outcome.reason, &outcome.message, generation, now);
}

fn rendered(blockers: &[Blocker]) -> Outcome {
    match blockers {
        [] => Outcome::good(reasons::RENDERED, "all Secrets and ConfigMaps are written"),
        [first, ..] => {
            let messages: Vec<_> = blockers.iter().map(|blocker| blocker.message.as_str()).collect();
            Outcome::bad(first.reason, messages.join("; "))
        }
    }
}

fn available(cluster: &Cluster, observed: &Observed) -> Outcome {
    match &observed.target.available {
        None => Outcome::bad(
            reasons::NOT_CONTACTED,
            format!("the API server at {} has not been asked yet", cluster.endpoint),
        ),
        Some(Ok(())) => Outcome::good(reasons::AVAILABLE, format!("the API server at {} answers", cluster.endpoint)),
        Some(Err((reason, message))) => Outcome::bad(reason, message.clone()),
    }
}

fn addons(cluster: &Cluster, observed: &Observed) -> Outcome {
    let health = addons::health(cluster, observed.target.addons.as_ref());
    match observed.target.addons {
        None => Outcome::unknown(health.reason, health.message),
        Some(_) if health.good => Outcome::good(health.reason, health.message),
        Some(_) => Outcome::bad(health.reason, health.message),
    }
}

fn valid(cluster: &Cluster, status: &ClusterSpecStatus, rendered: bool, now: Timestamp) -> Outcome {
    let certificates = &status.certificates;
    let named = |certificate: &CertificateStatus| match &certificate.node {
        Some(node) => format!("{} of {node}", certificate.name),
        None => certificate.name.clone(),
    };
    let list = |which: &dyn Fn(&CertificateStatus) -> bool| {
        certificates.iter().filter(|certificate| which(certificate)).map(named).collect::<Vec<_>>().join(", ")
    };
    let ended = list(&|certificate| certificate.not_after.0 <= now);
    let due = list(&|certificate| certificate.renewal_time.0 <= now);
    // Those that live for a short time by the policy are warned of in the last three tenths of it.
    let warned = AUTHORITY_WARNING.min(cluster.policy.authority_validity.mul_f64(0.3));
    let ending = list(&|certificate| {
        let left = Duration::try_from(certificate.not_after.0.duration_since(now)).unwrap_or_default();
        certificate.name == certificate.issuer && left < warned
    });
    if certificates.is_empty() || !rendered {
        Outcome::bad(reasons::NOT_RENDERED, "not all certificates are written")
    } else if !ended.is_empty() {
        Outcome::bad(reasons::EXPIRED, format!("these certificates have ended: {ended}"))
    } else if !due.is_empty() && waits_for_window(cluster, certificates, now) {
        let next = cluster.policy.maintenance_window.as_ref().and_then(|window| window.next_opening(now));
        let next = next.map_or_else(|| "at the next one".to_owned(), |next| format!("from {next} on"));
        Outcome::good(
            reasons::RENEWAL_WAITING,
            format!("these certificates are renewed in the maintenance window, {next}: {due}"),
        )
    } else if !due.is_empty() && signing::is_under_way(status, now) {
        Outcome::good(
            reasons::WAITING_FOR_SIGNER,
            format!("these certificates are past their renewal time, and asked for: {due}"),
        )
    } else if !due.is_empty() {
        Outcome::bad(reasons::RENEWAL_DUE, format!("these certificates are past their renewal time: {due}"))
    } else if !ending.is_empty() {
        Outcome::good(
            reasons::CA_EXPIRES_SOON,
            format!(
                "these authorities end in less than a year: {ending}: rotate or renew them (spec.rotate); those that                  spec.certificateAuthorities gives, by new ones in their Secrets"
            ),
        )
    } else {
        Outcome::good(reasons::VALID, "no certificate is past its renewal time")
    }
}

/// Whether all that is due waits for the maintenance window: what can't wait was issued anew before this is asked. An
/// authority is not renewed by itself.
fn waits_for_window(cluster: &Cluster, certificates: &[CertificateStatus], now: Timestamp) -> bool {
    let closed = cluster.policy.maintenance_window.as_ref().is_some_and(|window| !window.is_open(now));
    let due = certificates.iter().filter(|certificate| certificate.renewal_time.0 <= now);
    closed && due.into_iter().all(|certificate| certificate.name != certificate.issuer)
}

fn rolled_out(rollout: &Rollout) -> Outcome {
    match &rollout.progress {
        Progress::Done => Outcome::good(reasons::ROLLED_OUT, "no static pod waits for a change"),
        Progress::UnderWay { reason, message } => Outcome::bad(reason, message.clone()),
    }
}

fn in_sync(drift: Drift) -> Outcome {
    match drift {
        Drift::InSync { servers } => {
            let seen = format!("static pods are as they were written; certificates seen of {servers} API servers");
            Outcome::good(reasons::IN_SYNC, seen)
        }
        Drift::Unknown => Outcome::unknown(reasons::UNKNOWN, "the target does not answer"),
        Drift::Differs { reason, message } => Outcome::bad(reason, message),
    }
}

fn kubelets_current(rollout: &Rollout, observed: &Observed) -> Outcome {
    let control_plane = rollout.kubernetes_version.as_deref().and_then(Version::reported);
    let (Some(control_plane), Some(_)) = (control_plane, &observed.target.nodes) else {
        return Outcome::unknown(reasons::UNKNOWN, "the target does not answer, or was not seen complete yet");
    };
    match kubelet_versions(control_plane, &observed.target.kubelets) {
        KubeletVersions::Current => {
            Outcome::good(reasons::CURRENT, format!("every kubelet is of the control plane's version, {control_plane}"))
        }
        KubeletVersions::Differ { reason, message } => Outcome::bad(reason, message),
    }
}

/// Every certificate, in the inventory's order: authorities, then the nodes', those of nodes that leave, then the
/// cluster's own, then the users'.
#[must_use]
pub fn certificates(cluster: &Cluster, observed: &Observed, authorities: &Authorities) -> Vec<CertificateStatus> {
    let mut list: Vec<_> = authorities
        .all()
        .map(|(name, authority)| {
            let facts = authority.signing().facts();
            let renewal = renewal::authority_renewal_time(facts, cluster.policy.default_leaf());
            row(name.name(), None, name.name(), facts, renewal)
        })
        .collect();
    let leaf_row = |leaf: &Leaf, node: Option<&str>, certificate: &str| {
        let facts = first_certificate(leaf.name, certificate).ok()?;
        let renewal = renewal::leaf_renewal_time(&facts, cluster.policy.leaf(leaf.name));
        Some(row(leaf.name, node, leaf.issuer.name(), &facts, renewal))
    };
    for node in cluster.machines() {
        let secret = observed.secrets.get(&names::node_secret(&cluster.name, &node.name));
        list.extend(
            leaves_of(cluster, node)
                .filter_map(|leaf| leaf_row(leaf, Some(&node.name), &node::stored_pair(secret?, leaf)?.certificate)),
        );
    }
    // Those of a node that leaves, until they are deleted: the list is how it is remembered.
    for name in departed(cluster, &observed.status) {
        if let Slot::Ours(secret) = observed.secret(&cluster.name, &names::node_secret(&cluster.name, &name)) {
            let leaves = LEAVES.iter().filter(|leaf| leaf.place != Place::Cluster);
            list.extend(
                leaves.filter_map(|leaf| leaf_row(leaf, Some(&name), &node::stored_pair(secret, leaf)?.certificate)),
            );
        }
    }
    let secret = observed.secrets.get(&names::kubeconfig_secret(&cluster.name));
    list.extend(
        cluster_leaves().filter_map(|leaf| leaf_row(leaf, None, &user_kubeconfig::stored_pair(secret?)?.certificate)),
    );
    list.extend(cluster.users.iter().filter_map(|user| {
        let secret = observed.secrets.get(&names::user_secret(&cluster.name, &user.name))?;
        let name = user_certificate(&user.name);
        let facts = first_certificate(&name, &user_kubeconfig::stored_pair(secret)?.certificate).ok()?;
        let renewal = renewal::leaf_renewal_time(&facts, cluster.user_terms(user));
        Some(row(&name, None, USER_ISSUER.name(), &facts, renewal))
    }));
    list.extend(own_rows(cluster, observed, authorities));
    list
}

fn own_rows<'a>(
    cluster: &'a Cluster,
    observed: &'a Observed,
    authorities: &'a Authorities,
) -> impl Iterator<Item = CertificateStatus> + 'a {
    let secret = observed.secrets.get(&names::own_secret(&cluster.name));
    let needed =
        OWN.iter().filter(|own| authorities.get(own.authority).is_some_and(|set| set.signing().key().is_none()));
    needed.filter_map(move |own| {
        let facts = first_certificate(own.id, &own_credential::stored_pair(secret?, own)?.certificate).ok()?;
        let renewal = renewal::leaf_renewal_time(&facts, cluster.policy.leaf(own.id));
        Some(row(own.id, None, own.authority.name(), &facts, renewal))
    })
}

fn row(
    name: &str,
    node: Option<&str>,
    issuer: &str,
    facts: &CertificateFacts,
    renewal: Timestamp,
) -> CertificateStatus {
    CertificateStatus {
        name: name.to_owned(),
        node: node.map(str::to_owned),
        issuer: issuer.to_owned(),
        serial: facts.serial.clone(),
        not_after: Time(facts.not_after),
        renewal_time: Time(renewal),
    }
}
