//! Computes the status of a ClusterSpec.

mod certificate_authorities;
mod encryption;
mod external_signing;
mod node_conditions;
mod revocation;
mod revocation_steps;
mod rotations;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{
    CertificateStatus, ClusterCondition, ClusterSpecStatus, Condition, ConditionStatus, reasons, set_condition,
};

pub use rotations::is_stuck;

use crate::blocker::Blocker;
use crate::certificate_authorities::ClusterCas;
use crate::inventory::{LEAVES, Leaf, Place, USER_ISSUER, cluster_leaves, leaves_of, user_certificate};
use crate::model::{Cluster, Version};
use crate::observed::{Observed, Slot};
use crate::pki::{CertificateFacts, first_certificate, renewal};
use crate::plan::departed_nodes::departed;
use crate::plan::own_credential::{self, OPERATOR_CREDENTIALS};
use crate::plan::{node, plan, user_kubeconfig};
use crate::rollout::{Drift, KubeletVersions, Progress, Rollout, drift, kubelet_versions, rollout};
use crate::{addons, names};
use node_conditions::{nodes_ready, spread_across_failure_domains};

/// The time before the expiry of a CA at which the condition warns: kubeadm's leaf certificates are valid for a year.
const CA_EXPIRY_WARNING: Duration = Duration::from_hours(24 * 365);

/// Status, reason and message of a condition.
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

/// Returns the status of a cluster after its plan was executed as far as possible.
#[must_use]
pub fn report(
    cluster: &Cluster,
    observed: &Observed,
    blockers: &[Blocker],
    generation: Option<i64>,
    now: Timestamp,
) -> ClusterSpecStatus {
    let cas = ClusterCas::load(cluster, observed);
    let certificates = match &cas {
        Some(cas) => certificates(cluster, observed, cas),
        // The previous list is the trace of missing keys: without the list Keyplane would generate new keys.
        None => observed.status.certificates.clone(),
    };
    let nodes = observed.target.control_plane(cluster);
    let ready =
        cluster.nodes.iter().filter(|node| nodes.and_then(|nodes| nodes.get(&node.name)) == Some(&true)).count();
    let rollout = rollout(cluster, observed);
    let rotation = cas.as_ref().map(|all| rotations::report(cluster, observed, all, rollout.progress.wait(), now));
    let (rotations, rotated, revocation) = match rotation {
        Some(mut report) => {
            report.rotations.extend(encryption::rotation(cluster, observed, now));
            (report.rotations, report.outcome, report.revocation)
        }
        None => (observed.status.rotations.clone(), None, None),
    };
    let waiting = if cluster.external_cas.is_empty() { vec![] } else { plan(cluster, observed, now).waiting };
    let mut status = ClusterSpecStatus {
        signing_requests: external_signing::requests(&waiting),
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
        rotation: rotations::summary(&rotations),
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
            "all objects are written and rolled out, the control plane answers, its nodes are Ready, all certificates \
             are valid",
        ),
        Some(outcome) => Outcome::bad(&outcome.reason, outcome.message.clone()),
    };
    let stalled = match blockers.first() {
        None => Outcome::bad(reasons::NOT_STALLED, "nothing requires user action"),
        Some(_) => Outcome::good(&rendered.reason, rendered.message.clone()),
    };
    let reconciling = match first_bad {
        Some(outcome) if blockers.is_empty() => Outcome::good(&outcome.reason, outcome.message.clone()),
        _ => Outcome::bad(reasons::SETTLED, "no change is in progress"),
    };
    set(&mut status.conditions, ClusterCondition::Rendered, &rendered, generation, now);
    set(&mut status.conditions, ClusterCondition::ControlPlaneAvailable, &available, generation, now);
    set(&mut status.conditions, ClusterCondition::ControlPlaneNodesReady, &nodes, generation, now);
    let spread = (ClusterCondition::SpreadAcrossFailureDomains, spread_across_failure_domains(cluster));
    let encrypted = (ClusterCondition::EncryptedAtRest, encryption::outcome(cluster, observed, now));
    let signed =
        (ClusterCondition::CertificatesSigned, external_signing::outcome(cluster, &waiting, &status.certificates, now));
    let user_provided = certificate_authorities::outcome(cluster, observed, cas.as_ref(), now);
    let user_provided = (ClusterCondition::CertificateAuthoritiesInSync, user_provided);
    for (condition, outcome) in
        [spread, (ClusterCondition::RotationsCompleted, rotated), user_provided, encrypted, signed]
    {
        if let Some(outcome) = outcome {
            set(&mut status.conditions, condition, &outcome, generation, now);
        } else {
            status.conditions.retain(|other| other.type_ != condition.name());
        }
    }
    set(&mut status.conditions, ClusterCondition::CertificatesValid, &valid, generation, now);
    set(&mut status.conditions, ClusterCondition::RolledOut, &rolled_out, generation, now);
    let in_sync = in_sync(drift(cluster, observed, &rollout, cas.as_ref(), now));
    set(&mut status.conditions, ClusterCondition::NodesInSync, &in_sync, generation, now);
    let current = kubelets_current(&rollout, observed);
    set(&mut status.conditions, ClusterCondition::KubeletVersionsMatch, &current, generation, now);
    set(&mut status.conditions, ClusterCondition::AddonsReady, &addons(cluster, observed), generation, now);
    set(&mut status.conditions, ClusterCondition::Ready, &ready, generation, now);
    set(&mut status.conditions, ClusterCondition::Reconciling, &reconciling, generation, now);
    set(&mut status.conditions, ClusterCondition::Stalled, &stalled, generation, now);
    status
}

/// Returns the status of a ClusterSpec that can't be reconciled: its spec is invalid, or a referenced object is
/// missing.
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
    let settled = Outcome::bad(reasons::SETTLED, "no change is in progress");
    set(&mut status.conditions, ClusterCondition::Rendered, &bad, generation, now);
    set(&mut status.conditions, ClusterCondition::Ready, &bad, generation, now);
    set(&mut status.conditions, ClusterCondition::Reconciling, &settled, generation, now);
    set(&mut status.conditions, ClusterCondition::Stalled, &stalled, generation, now);
    status
}

/// Returns the status of a paused ClusterSpec: the previous status, and the reason why nothing happens.
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
            format!("the API server at {} has not been contacted yet", cluster.endpoint),
        ),
        Some(Ok(())) => Outcome::good(reasons::AVAILABLE, format!("the API server at {} answers", cluster.endpoint)),
        Some(Err((reason, message))) => Outcome::bad(reason, message.clone()),
    }
}

fn addons(cluster: &Cluster, observed: &Observed) -> Outcome {
    let health = addons::health(cluster, observed.target.addons.as_ref());
    match observed.target.addons {
        None => Outcome::unknown(health.reason, health.message),
        Some(_) if health.ready => Outcome::good(health.reason, health.message),
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
    // CAs with a short validity by policy are warned about in the last 30 % of it.
    let warned = CA_EXPIRY_WARNING.min(cluster.policy.ca_validity.mul_f64(0.3));
    let ending = list(&|certificate| {
        let left = Duration::try_from(certificate.not_after.0.duration_since(now)).unwrap_or_default();
        certificate.name == certificate.issuer && left < warned
    });
    if certificates.is_empty() || !rendered {
        Outcome::bad(reasons::NOT_RENDERED, "not all certificates are written")
    } else if !ended.is_empty() {
        Outcome::bad(reasons::EXPIRED, format!("these certificates have expired: {ended}"))
    } else if !due.is_empty() && waits_for_window(cluster, certificates, now) {
        let next = cluster.policy.maintenance_window.as_ref().and_then(|window| window.next_opening(now));
        let next = next.map_or_else(|| "at the next one".to_owned(), |next| format!("from {next}"));
        Outcome::good(
            reasons::RENEWAL_WAITING,
            format!("these certificates are renewed in the maintenance window, {next}: {due}"),
        )
    } else if !due.is_empty() && external_signing::is_under_way(status, now) {
        Outcome::good(
            reasons::WAITING_FOR_SIGNER,
            format!("these certificates are past their renewal time and are requested from the external signer: {due}"),
        )
    } else if !due.is_empty() {
        Outcome::bad(reasons::RENEWAL_DUE, format!("these certificates are past their renewal time: {due}"))
    } else if !ending.is_empty() {
        Outcome::good(
            reasons::CA_EXPIRES_SOON,
            format!(
                "these CAs expire in less than a year: {ending}; rotate or renew them with spec.rotate; replace \
                 user-provided CAs in their Secrets"
            ),
        )
    } else {
        Outcome::good(reasons::VALID, "no certificate is past its renewal time")
    }
}

/// Returns whether all due certificates wait for the maintenance window. Urgent certificates were reissued before. A CA
/// is never renewed automatically.
fn waits_for_window(cluster: &Cluster, certificates: &[CertificateStatus], now: Timestamp) -> bool {
    let closed = cluster.policy.maintenance_window.as_ref().is_some_and(|window| !window.is_open(now));
    let due = certificates.iter().filter(|certificate| certificate.renewal_time.0 <= now);
    closed && due.into_iter().all(|certificate| certificate.name != certificate.issuer)
}

fn rolled_out(rollout: &Rollout) -> Outcome {
    match &rollout.progress {
        Progress::Done => Outcome::good(reasons::ROLLED_OUT, "all static pods are up to date"),
        Progress::UnderWay { reason, message } => Outcome::bad(reason, message.clone()),
    }
}

fn in_sync(drift: Drift) -> Outcome {
    match drift {
        Drift::InSync { servers } => {
            let seen =
                format!("static pods match their manifests; {servers} API servers present their current certificates");
            Outcome::good(reasons::IN_SYNC, seen)
        }
        Drift::Unknown => Outcome::unknown(reasons::UNKNOWN, "the target cluster does not answer"),
        Drift::Differs { reason, message } => Outcome::bad(reason, message),
    }
}

fn kubelets_current(rollout: &Rollout, observed: &Observed) -> Outcome {
    let control_plane = rollout.kubernetes_version.as_deref().and_then(Version::reported);
    let (Some(control_plane), Some(_)) = (control_plane, &observed.target.nodes) else {
        return Outcome::unknown(
            reasons::UNKNOWN,
            "the target cluster does not answer, or is not completely observed yet",
        );
    };
    match kubelet_versions(control_plane, &observed.target.kubelets) {
        KubeletVersions::Current => {
            Outcome::good(reasons::CURRENT, format!("every kubelet has the control plane's version, {control_plane}"))
        }
        KubeletVersions::Differ { reason, message } => Outcome::bad(reason, message),
    }
}

/// Returns every certificate in the order of the inventory: CAs, nodes, departing nodes, cluster, users.
#[must_use]
pub fn certificates(cluster: &Cluster, observed: &Observed, cas: &ClusterCas) -> Vec<CertificateStatus> {
    let mut list: Vec<_> = cas
        .all()
        .map(|(name, ca)| {
            let facts = ca.signing().facts();
            let renewal = renewal::ca_renewal_time(facts, cluster.policy.default_leaf());
            row(name.name(), None, name.name(), facts, renewal)
        })
        .collect();
    let leaf_row = |leaf: &Leaf, node: Option<&str>, certificate: &str| {
        let facts = first_certificate(leaf.name, certificate).ok()?;
        let renewal = renewal::leaf_renewal_time(&facts, cluster.policy.leaf(leaf.name));
        Some(row(leaf.name, node, leaf.issuer.name(), &facts, renewal))
    };
    for node in cluster.all_nodes() {
        let secret = observed.secrets.get(&names::node_secret(&cluster.name, &node.name));
        list.extend(
            leaves_of(cluster, node)
                .filter_map(|leaf| leaf_row(leaf, Some(&node.name), &node::stored_pair(secret?, leaf)?.certificate)),
        );
    }
    // The certificates of a departing node stay in the list until they are deleted: the list records the node.
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
    list.extend(own_rows(cluster, observed, cas));
    list
}

fn own_rows<'a>(
    cluster: &'a Cluster,
    observed: &'a Observed,
    cas: &'a ClusterCas,
) -> impl Iterator<Item = CertificateStatus> + 'a {
    let secret = observed.secrets.get(&names::own_secret(&cluster.name));
    let needed =
        OPERATOR_CREDENTIALS.iter().filter(|own| cas.get(own.ca).is_some_and(|set| set.signing().key().is_none()));
    needed.filter_map(move |own| {
        let facts = first_certificate(own.id, &own_credential::stored_pair(secret?, own)?.certificate).ok()?;
        let renewal = renewal::leaf_renewal_time(&facts, cluster.policy.leaf(own.id));
        Some(row(own.id, None, own.ca.name(), &facts, renewal))
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
