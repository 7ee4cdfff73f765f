//! Types of conditions, and a setter that leaves unchanged conditions as they are.

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// The conditions of a `ClusterSpec`. All are positive: `True` is the good state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClusterCondition {
    /// All files for the nodes are in Secrets and ConfigMaps.
    Rendered,
    /// The target cluster's API server answers, and the objects that Keyplane needs in it exist.
    ControlPlaneAvailable,
    /// Every declared control-plane node is Ready in the target cluster, and its etcd member is a healthy voting
    /// member.
    ControlPlaneNodesReady,
    /// The loss of any one failure domain leaves the control plane working. Not set while no node declares a failure
    /// domain.
    SpreadAcrossFailureDomains,
    /// No certificate has expired or is past its renewal time.
    CertificatesValid,
    /// Every static pod runs its current manifest. False while a change is rolled out from node to node.
    RolledOut,
    /// The nodes hold the files that Keyplane wrote. False after somebody has changed a file on a node, for example
    /// with kubeadm. Informational: Ready does not depend on it.
    NodesInSync,
    /// No kubelet has another version than the control plane. Informational: Ready does not depend on it.
    KubeletVersionsMatch,
    /// The add-ons run in the target cluster as declared. Ready does not depend on it: without a worker node for its
    /// Pods, a cluster's DNS may have no place to run.
    AddonsReady,
    /// All objects that `spec.encryptionAtRest` lists are encrypted with one key. Not set without that field, once
    /// everything is decrypted. Informational: Ready does not depend on it.
    EncryptedAtRest,
    /// No CA or key is being rotated. While one is, the condition is False, and its message says what the rotation
    /// waits for. Not set before the first rotation. Informational: Ready does not depend on it.
    RotationsCompleted,
    /// No certificate waits for an external signer. Only set with an external CA. Informational: Ready depends on the
    /// certificates themselves.
    CertificatesSigned,
    /// The CAs are those in `spec.certificateAuthorities`. Not set without that field. Informational: Ready does not
    /// depend on it.
    CertificateAuthoritiesInSync,
    /// All other conditions hold, except the informational ones. kstatus, and so most `GitOps` tools, wait for this
    /// condition.
    Ready,
    /// Reconciliation is in progress. kstatus reads `True` as "in progress".
    Reconciling,
    /// Nothing will change until a person acts. The message says what to do. kstatus reads `True` as "failed".
    Stalled,
}

impl ClusterCondition {
    /// All conditions.
    pub const ALL: [Self; 16] = [
        Self::Rendered,
        Self::ControlPlaneAvailable,
        Self::ControlPlaneNodesReady,
        Self::SpreadAcrossFailureDomains,
        Self::CertificatesValid,
        Self::RolledOut,
        Self::NodesInSync,
        Self::KubeletVersionsMatch,
        Self::AddonsReady,
        Self::EncryptedAtRest,
        Self::RotationsCompleted,
        Self::CertificatesSigned,
        Self::CertificateAuthoritiesInSync,
        Self::Ready,
        Self::Reconciling,
        Self::Stalled,
    ];

    /// The condition's `type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rendered => "Rendered",
            Self::ControlPlaneAvailable => "ControlPlaneAvailable",
            Self::ControlPlaneNodesReady => "ControlPlaneNodesReady",
            Self::SpreadAcrossFailureDomains => "SpreadAcrossFailureDomains",
            Self::CertificatesValid => "CertificatesValid",
            Self::RolledOut => "RolledOut",
            Self::NodesInSync => "NodesInSync",
            Self::KubeletVersionsMatch => "KubeletVersionsMatch",
            Self::AddonsReady => "AddonsReady",
            Self::EncryptedAtRest => "EncryptedAtRest",
            Self::RotationsCompleted => "RotationsCompleted",
            Self::CertificatesSigned => "CertificatesSigned",
            Self::CertificateAuthoritiesInSync => "CertificateAuthoritiesInSync",
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
        }
    }
}

/// The conditions of a `NodePool`. All are positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodePoolCondition {
    /// The declaration is in force.
    Ready,
    /// All nodes of the pool are Ready.
    NodesReady,
    /// No CSR of a kubelet has waited for long. Not set before the first CSR to report.
    CertificatesApproved,
}

impl NodePoolCondition {
    /// All conditions.
    pub const ALL: [Self; 3] = [Self::Ready, Self::NodesReady, Self::CertificatesApproved];

    /// The condition's `type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::NodesReady => "NodesReady",
            Self::CertificatesApproved => "CertificatesApproved",
        }
    }
}

/// The conditions of a `CertificatePolicy`. All are positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificatePolicyCondition {
    /// The policy is valid.
    Ready,
    /// The policy decides about CSRs of Keyplane's own cluster. Not set without `spec.approver`.
    ApproverInForce,
}

impl CertificatePolicyCondition {
    /// All conditions.
    pub const ALL: [Self; 2] = [Self::Ready, Self::ApproverInForce];

    /// The condition's `type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::ApproverInForce => "ApproverInForce",
        }
    }
}

/// The `status` of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionStatus {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// The state can't be observed.
    Unknown,
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl ConditionStatus {
    const fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Returns the condition of that type, if it exists.
#[must_use]
pub fn condition_of<'a>(conditions: &'a [Condition], name: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == name)
}

/// Sets a condition. `lastTransitionTime` changes only with the status, so an unchanged state needs no write.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    name: &str,
    status: impl Into<ConditionStatus>,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = status.into().name();
    let last_transition_time = match condition_of(conditions, name) {
        Some(old) if old.status == status => old.last_transition_time.clone(),
        // A condition's time has whole seconds in JSON. A finer time would never equal the stored one.
        _ => Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
    };
    let condition = Condition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time,
    };
    match conditions.iter_mut().find(|old| old.type_ == name) {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_changes_only_with_the_status() {
        let mut conditions = vec![];
        let (t0, t1) = (Timestamp::from_second(1000).unwrap(), Timestamp::from_second(2000).unwrap());
        set_condition(&mut conditions, "Ready", false, "A", "a", Some(1), t0);
        set_condition(&mut conditions, "Ready", false, "B", "b", Some(2), t1);
        assert_eq!(conditions[0].last_transition_time, Time(t0));
        assert_eq!((conditions[0].reason.as_str(), conditions[0].observed_generation), ("B", Some(2)));
        set_condition(&mut conditions, "Ready", true, "C", "c", Some(2), t1);
        assert_eq!(conditions[0].last_transition_time, Time(t1));
        assert_eq!(conditions.len(), 1);
    }
}
