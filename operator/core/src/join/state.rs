//! How far each machine has come, from what the target says.

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

/// A kubelet that has been silent for so long is missing: Kubernetes itself moves Pods away after this time
/// (`default-unreachable-toleration-seconds`).
pub const MISSING_AFTER: Duration = Duration::from_mins(5);

/// The condition that tells of kubelets whose requests have no verdict.
const APPROVED: &str = NodePoolCondition::CertificatesApproved.name();

/// Machines that are listed, of those that have joined by a selector: a status is one object.
const LISTED: usize = 200;

/// Length of a message, in characters.
const LONGEST_MESSAGE: usize = 256;

/// The users that bootstrap tokens make.
const TOKEN_USER_PREFIX: &str = "system:bootstrap:";

/// What a Node says of its kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Whether it is Ready; nothing if its kubelet is silent.
    pub ready: Option<bool>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Why, in one word.
    pub reason: String,
    /// The same in a sentence.
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

/// A request for a first client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The Node that it speaks of.
    pub node: String,
    /// When it was made.
    pub created: Timestamp,
    /// What became of it, in one word.
    pub reason: &'static str,
    /// The same in a sentence.
    pub message: String,
}

impl Request {
    /// Reads a request that was made with a bootstrap token; nothing if it is another.
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
            (reasons::REQUEST_DENIED, format!("its request {name} was denied: {why}"))
        } else if let Some(why) = condition("Failed") {
            (reasons::REQUEST_FAILED, format!("its request {name} could not be signed: {why}"))
        } else if issued {
            (
                reasons::CERTIFICATE_ISSUED,
                "its kubelet has a certificate, and has not registered its Node yet".to_owned(),
            )
        } else if condition("Approved").is_some() {
            (
                reasons::NOT_SIGNED,
                format!("its request {name} is approved, and not signed yet by the controller-manager"),
            )
        } else {
            (reasons::NOT_APPROVED, format!("its request {name} is not approved yet"))
        };
        Some(Self { node: request.subject_node()?, created: request.created?, reason, message })
    }
}

/// What became of a pool's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenState {
    /// There is none: no machine is missing, or the pool is going.
    None,
    /// It is in the join data, until then.
    Good(Timestamp),
    /// It could not be made or revoked.
    Failed(String),
}

/// What the target says that matters to the machines of its pools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The Nodes of the pools' machines. Nothing while the target does not answer.
    pub nodes: Option<BTreeMap<String, NodeState>>,
    /// The ranges of Pod addresses that all Nodes have. Nothing while the target does not answer.
    pub pod_ranges: Option<PodRanges>,
    /// Requests for a first certificate, by the Node that they speak of.
    pub requests: BTreeMap<String, Request>,
    /// The pools' tokens.
    pub tokens: BTreeMap<String, TokenState>,
    /// For each pool with a kubelet's request that has waited for long: a condition's reason and message. Nothing while it
    /// is not known.
    pub waiting: Option<BTreeMap<String, (String, String)>>,
}

/// Whether a machine of the pool is still to join. With a selector nobody knows that none will come.
#[must_use]
pub fn is_any_missing(pool: &Pool, nodes: &BTreeMap<String, NodeState>, now: Timestamp) -> bool {
    pool.selector.is_some()
        || pool.machines.iter().any(|machine| nodes.get(&machine.name).is_none_or(|node| node.is_missing(now)))
}

/// The state of each machine: those that are declared, and those that have joined by the selector. `before` is what was
/// known until now.
#[must_use]
pub fn machines(pool: &Pool, facts: &Facts, before: &[MachineStatus], now: Timestamp) -> Vec<MachineStatus> {
    let nodes = facts.nodes.iter().flatten();
    let joined = nodes.map(|(name, _)| name).filter(|name| pool.has(name) && pool.machine(name).is_none());
    let known = |name: &String| before.iter().find(|machine| machine.name == *name);
    // While the target is silent, those that were there are still listed.
    let remembered = before.iter().map(|machine| &machine.name);
    let remembered = remembered.filter(|name| facts.nodes.is_none() && pool.has(name) && pool.machine(name).is_none());
    let declared = pool.machines.iter().map(|machine| &machine.name);
    declared
        .chain(joined.chain(remembered).take(LISTED))
        .map(|name| {
            let old = known(name);
            let (state, reason, message) = state(name, facts, old, now);
            let last_transition_time = match old {
                Some(old) if old.state == state => old.last_transition_time.clone(),
                // To the second, as it comes back.
                _ => Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
            };
            MachineStatus { name: name.clone(), state, last_transition_time, reason, message: shortened(&message) }
        })
        .collect()
}

fn state(name: &str, facts: &Facts, old: Option<&MachineStatus>, now: Timestamp) -> (MachineState, String, String) {
    let Some(nodes) = &facts.nodes else {
        return match old {
            Some(old) => (old.state, old.reason.clone(), old.message.clone()),
            None => {
                (MachineState::Declared, reasons::NOT_SEEN.to_owned(), "the target has not answered yet".to_owned())
            }
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
    let was_there =
        old.filter(|old| matches!(old.state, MachineState::Joined | MachineState::Ready | MachineState::Missing));
    // A request that is older than the loss is the one with which the machine had joined.
    let request = facts.requests.get(name).filter(|request| {
        was_there.is_none_or(|old| old.state == MachineState::Missing && request.created > old.last_transition_time.0)
    });
    match (request, was_there) {
        (Some(request), _) => (MachineState::Bootstrapping, request.reason.to_owned(), request.message.clone()),
        (None, Some(_)) => (MachineState::Missing, reasons::NODE_GONE.to_owned(), "its Node is gone".to_owned()),
        (None, None) => {
            let message = "the machine has not asked for a certificate: give it the join data".to_owned();
            (MachineState::Declared, reasons::NOT_SEEN.to_owned(), message)
        }
    }
}

/// When a machine will be missing by the clock alone.
#[must_use]
pub fn next_check(pool: &Pool, facts: &Facts, now: Timestamp) -> Option<Timestamp> {
    let silent = facts.nodes.iter().flatten().filter(|(name, node)| pool.has(name) && node.ready.is_none());
    silent.filter_map(|(_, node)| node.missing_from()).filter(|from| *from > now).min()
}

/// Sets the condition `NodesReady`.
pub fn report(
    conditions: &mut Vec<Condition>,
    machines: &[MachineStatus],
    facts: &Facts,
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
            "the target does not answer; the machines are listed as they were".to_owned(),
        )
    } else if let Some(first) = waiting.first() {
        let more = waiting.len() - 1;
        let message = if more == 0 { first.clone() } else { format!("{first}; and {more} more") };
        (false, reasons::NODES_NOT_READY, message)
    } else if machines.is_empty() {
        (true, reasons::NO_NODES, "no machine has joined yet, and none is declared by name".to_owned())
    } else {
        (true, reasons::ALL_READY, format!("all {} machines are Ready", machines.len()))
    };
    set_condition(conditions, NodePoolCondition::NodesReady.name(), ready, reason, &message, generation, now);
}

/// Says whether the kubelets of the pool have the certificates that they have asked for. A pool of which there was never
/// anything to tell has no such condition.
pub fn report_waiting(
    conditions: &mut Vec<Condition>,
    pool: &str,
    facts: &Facts,
    generation: Option<i64>,
    now: Timestamp,
) {
    let Some(waiting) = &facts.waiting else { return };
    if let Some((reason, message)) = waiting.get(pool) {
        set_condition(conditions, APPROVED, false, reason, message, generation, now);
    } else if condition_of(conditions, APPROVED).is_some() {
        let message = "no kubelet's request has waited for long";
        set_condition(conditions, APPROVED, true, reasons::NO_PENDING_REQUESTS, message, generation, now);
    }
}

/// The number of machines whose Node is Ready.
#[must_use]
pub fn ready(machines: &[MachineStatus]) -> usize {
    machines.iter().filter(|machine| machine.state == MachineState::Ready).count()
}

fn shortened(message: &str) -> String {
    if message.chars().count() <= LONGEST_MESSAGE {
        return message.to_owned();
    }
    format!("{}...", message.chars().take(LONGEST_MESSAGE - 3).collect::<String>())
}
