//! The state of each node of a NodePool, from the observed state of the target cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{Condition, MachineState, MachineStatus, NodePoolCondition, condition_of, reasons, set_condition};

use super::pool::Pool;
use crate::approval::SigningRequest;
use crate::manifests::systemd::PodRanges;

/// The time without a report after which a node is missing. Kubernetes evicts Pods after the same time
/// (`default-unreachable-toleration-seconds`).
pub const MISSING_AFTER: Duration = Duration::from_mins(5);

/// The condition about kubelet CSRs without a decision.
const APPROVED: &str = NodePoolCondition::CertificatesApproved.name();

/// The limit for nodes in the status that have joined by a selector: the status is part of one object.
const MAX_LISTED_NODES: usize = 200;

/// The maximum length of a message, in characters.
const MAX_MESSAGE_LENGTH: usize = 256;

/// The prefix of the user names of bootstrap tokens.
const TOKEN_USER_PREFIX: &str = "system:bootstrap:";

/// The Ready condition of a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Whether the Node is Ready. `None` if its kubelet does not report.
    pub ready: Option<bool>,
    /// The last transition time.
    pub since: Option<Timestamp>,
    /// The reason of the condition.
    pub reason: String,
    /// The message of the condition.
    pub message: String,
}

impl From<&Node> for NodeState {
    fn from(node: &Node) -> Self {
        let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let Some(ready) = conditions.find(|condition| condition.type_ == "Ready") else {
            let message = "the Node is registered, and its kubelet has not reported yet".to_owned();
            return Self { ready: Some(false), since: None, reason: reasons::NO_STATUS.to_owned(), message };
        };
        Self {
            ready: match ready.status.as_str() {
                "True" => Some(true),
                "False" => Some(false),
                _ => None,
            },
            since: ready.last_transition_time.as_ref().map(|time| time.0),
            reason: ready.reason.clone().unwrap_or_default(),
            message: ready.message.clone().unwrap_or_default(),
        }
    }
}

impl NodeState {
    fn is_missing(&self, now: Timestamp) -> bool {
        self.ready.is_none() && self.missing_from().is_none_or(|from| from <= now)
    }

    fn missing_from(&self) -> Option<Timestamp> {
        self.since?.checked_add(MISSING_AFTER).ok()
    }
}

/// A CSR for the first client certificate of a kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The name of the Node in the CSR.
    pub node: String,
    /// The creation time.
    pub created: Timestamp,
    /// The reason for the status.
    pub reason: &'static str,
    /// The message for the status.
    pub message: String,
}

impl Request {
    /// Reads a CSR that was created with a bootstrap token. `None` for any other CSR.
    #[must_use]
    pub fn of(object: &CertificateSigningRequest) -> Option<Self> {
        let request = SigningRequest::from(object);
        if !request.username.starts_with(TOKEN_USER_PREFIX) {
            return None;
        }
        let name = &request.name;
        let status = object.status.as_ref();
        let condition = |type_: &str| {
            status?
                .conditions
                .iter()
                .flatten()
                .find(|condition| condition.type_ == type_)?
                .message
                .clone()
                .or(Some(String::new()))
        };
        let issued = status.and_then(|status| status.certificate.as_ref()).is_some();
        let (reason, message) = if let Some(why) = condition("Denied") {
            (reasons::REQUEST_DENIED, format!("its CSR {name} was denied: {why}"))
        } else if let Some(why) = condition("Failed") {
            (reasons::REQUEST_FAILED, format!("its CSR {name} could not be signed: {why}"))
        } else if issued {
            (
                reasons::CERTIFICATE_ISSUED,
                "its kubelet has a certificate, but has not registered its Node yet".to_owned(),
            )
        } else if condition("Approved").is_some() {
            (
                reasons::NOT_SIGNED,
                format!("its CSR {name} is approved, but the controller-manager has not signed it yet"),
            )
        } else {
            (reasons::NOT_APPROVED, format!("its CSR {name} is not approved yet"))
        };
        Some(Self { node: request.subject_node()?, created: request.created?, reason, message })
    }
}

/// The state of a pool's bootstrap token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenState {
    /// No token exists: no node is missing, or the pool is being deleted.
    None,
    /// The join data contains a token with this expiry.
    Valid(Timestamp),
    /// Creating or deleting the token failed.
    Failed(String),
}

/// The observed state of the target cluster that decides about the status of its pools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinFacts {
    /// The Nodes of the pools. `None` while the target cluster does not answer.
    pub nodes: Option<BTreeMap<String, NodeState>>,
    /// The Pod CIDRs of all Nodes. `None` while the target cluster does not answer.
    pub pod_ranges: Option<PodRanges>,
    /// The CSRs for a first certificate, by Node name.
    pub requests: BTreeMap<String, Request>,
    /// The bootstrap tokens of the pools.
    pub tokens: BTreeMap<String, TokenState>,
    /// The pools with a kubelet CSR that has been pending for too long, with the reason and message of the condition.
    /// `None` while this is not known.
    pub waiting: Option<BTreeMap<String, (String, String)>>,
}

/// Returns whether a node of the pool has not joined yet. With a selector the number of nodes is unknown, so a node may
/// always be missing.
#[must_use]
pub fn is_any_missing(pool: &Pool, nodes: &BTreeMap<String, NodeState>, now: Timestamp) -> bool {
    pool.selector.is_some()
        || pool.machines.iter().any(|machine| nodes.get(&machine.name).is_none_or(|node| node.is_missing(now)))
}

/// Returns the state of the listed nodes and of the nodes that have joined by the selector. `before` is the previous
/// status.
#[must_use]
pub fn machines(pool: &Pool, facts: &JoinFacts, before: &[MachineStatus], now: Timestamp) -> Vec<MachineStatus> {
    let nodes = facts.nodes.iter().flatten();
    let joined = nodes.map(|(name, _)| name).filter(|name| pool.has(name) && pool.machine(name).is_none());
    let known = |name: &String| before.iter().find(|machine| machine.name == *name);
    // While the target cluster does not answer, the status keeps the nodes that were listed before.
    let remembered = before.iter().map(|machine| &machine.name);
    let remembered = remembered.filter(|name| facts.nodes.is_none() && pool.has(name) && pool.machine(name).is_none());
    let declared = pool.machines.iter().map(|machine| &machine.name);
    declared
        .chain(joined.chain(remembered).take(MAX_LISTED_NODES))
        .map(|name| {
            let old = known(name);
            let (state, reason, message) = state(name, facts, old, now);
            let last_transition_time = match old {
                Some(old) if old.state == state => old.last_transition_time.clone(),
                // In whole seconds, because the API server stores no fractions.
                _ => Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
            };
            MachineStatus { name: name.clone(), state, last_transition_time, reason, message: shortened(&message) }
        })
        .collect()
}

fn state(name: &str, facts: &JoinFacts, old: Option<&MachineStatus>, now: Timestamp) -> (MachineState, String, String) {
    let Some(nodes) = &facts.nodes else {
        return match old {
            Some(old) => (old.state, old.reason.clone(), old.message.clone()),
            None => (
                MachineState::Declared,
                reasons::NOT_SEEN.to_owned(),
                "the target cluster has not answered yet".to_owned(),
            ),
        };
    };
    if let Some(node) = nodes.get(name) {
        let state = match node.ready {
            Some(true) => return (MachineState::Ready, String::new(), String::new()),
            _ if node.is_missing(now) => MachineState::Missing,
            _ => MachineState::Joined,
        };
        return (state, node.reason.clone(), node.message.clone());
    }
    let had_joined =
        old.filter(|old| matches!(old.state, MachineState::Joined | MachineState::Ready | MachineState::Missing));
    // A CSR from before the Node was lost is the one with which the node had joined.
    let request = facts.requests.get(name).filter(|request| {
        had_joined.is_none_or(|old| old.state == MachineState::Missing && request.created > old.last_transition_time.0)
    });
    match (request, had_joined) {
        (Some(request), _) => (MachineState::Bootstrapping, request.reason.to_owned(), request.message.clone()),
        (None, Some(_)) => (MachineState::Missing, reasons::NODE_GONE.to_owned(), "its Node is gone".to_owned()),
        (None, None) => {
            let message = "its kubelet has not requested a certificate: run the join data on the node".to_owned();
            (MachineState::Declared, reasons::NOT_SEEN.to_owned(), message)
        }
    }
}

/// Returns the next time at which a node becomes missing without another event.
#[must_use]
pub fn next_check(pool: &Pool, facts: &JoinFacts, now: Timestamp) -> Option<Timestamp> {
    let unreported = facts.nodes.iter().flatten().filter(|(name, node)| pool.has(name) && node.ready.is_none());
    unreported.filter_map(|(_, node)| node.missing_from()).filter(|from| *from > now).min()
}

/// Sets the condition `NodesReady`.
pub fn report(
    conditions: &mut Vec<Condition>,
    machines: &[MachineStatus],
    facts: &JoinFacts,
    generation: Option<i64>,
    now: Timestamp,
) {
    let waiting: Vec<_> = machines
        .iter()
        .filter(|machine| machine.state != MachineState::Ready)
        .map(|machine| {
            let why = if machine.message.is_empty() { &machine.reason } else { &machine.message };
            format!("{} is {:?}: {why}", machine.name, machine.state)
        })
        .collect();
    let (ready, reason, message) = if facts.nodes.is_none() {
        (
            false,
            reasons::TARGET_UNREACHABLE,
            "the target cluster does not answer; the status shows the last observed nodes".to_owned(),
        )
    } else if let Some(first) = waiting.first() {
        let more = waiting.len() - 1;
        let message = if more == 0 { first.clone() } else { format!("{first}; and {more} more") };
        (false, reasons::NODES_NOT_READY, message)
    } else if machines.is_empty() {
        (true, reasons::NO_NODES, "no node has joined yet, and spec.machines lists none".to_owned())
    } else {
        (true, reasons::ALL_READY, format!("all {} nodes are Ready", machines.len()))
    };
    set_condition(conditions, NodePoolCondition::NodesReady.name(), ready, reason, &message, generation, now);
}

/// Sets the condition about pending kubelet CSRs of the pool. A pool without such a CSR never gets the condition.
pub fn report_waiting(
    conditions: &mut Vec<Condition>,
    pool: &str,
    facts: &JoinFacts,
    generation: Option<i64>,
    now: Timestamp,
) {
    let Some(waiting) = &facts.waiting else { return };
    if let Some((reason, message)) = waiting.get(pool) {
        set_condition(conditions, APPROVED, false, reason, message, generation, now);
    } else if condition_of(conditions, APPROVED).is_some() {
        let message = "no kubelet CSR has been pending for too long";
        set_condition(conditions, APPROVED, true, reasons::NO_PENDING_REQUESTS, message, generation, now);
    }
}

/// Returns the number of nodes that are Ready.
#[must_use]
pub fn ready(machines: &[MachineStatus]) -> usize {
    machines.iter().filter(|machine| machine.state == MachineState::Ready).count()
}

fn shortened(message: &str) -> String {
    if message.chars().count() <= MAX_MESSAGE_LENGTH {
        return message.to_owned();
    }
    format!("{}...", message.chars().take(MAX_MESSAGE_LENGTH - 3).collect::<String>())
}
