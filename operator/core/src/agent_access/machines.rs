//! Checks whether each node has applied its current files, according to its agent's report or to the annotation that
//! the user sets.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_crds::keys::{self, APPLIED_CHECKSUM_ANNOTATION};
use keyplane_crds::reasons;

use crate::model::Cluster;
use crate::names::{self, node_config_map, node_secret, trust_bundle_config_map};
use crate::objects::trust_checksum;
use crate::observed::{AgentFacts, Observed};

/// The time that an agent has to apply a change before a condition reports it.
const APPLY_GRACE_PERIOD: SignedDuration = SignedDuration::from_secs(60);

/// Returns the names of all nodes with objects of their own: the control-plane nodes, and the workers in NodePools.
#[must_use]
pub fn machines(cluster: &Cluster, observed: &Observed) -> BTreeSet<String> {
    cluster.all_nodes().map(|node| node.name.clone()).chain(observed.workers.keys().cloned()).collect()
}

/// Checks whether the node has applied both of its objects. With an agent its report decides, and without an agent the
/// annotation [`keyplane_crds::keys::APPLIED_CHECKSUM_ANNOTATION`] of both objects.
///
/// # Errors
/// Returns a message with the node's name and the remedy.
pub fn check_applied(cluster: &Cluster, observed: &Observed, node: &str, now: Timestamp) -> Result<(), String> {
    let objects = objects(cluster, observed, node)?;
    match agent(observed, node) {
        Some(agent) => {
            check_reporting(cluster, node, agent, now)?;
            check_errors(node, agent)?;
            objects.iter().try_for_each(|object| object.check_report(node, agent))
        }
        None => objects.iter().try_for_each(|object| object.check_annotation(node)),
    }
}

/// Returns the condition's reason and message for each node whose agent has a problem, or whose applied checksum is
/// outdated.
#[must_use]
pub fn sync_problems(cluster: &Cluster, observed: &Observed, now: Timestamp) -> Vec<(&'static str, String)> {
    machines(cluster, observed).iter().filter_map(|node| sync_problem(cluster, observed, node, now)).collect()
}

fn sync_problem(cluster: &Cluster, observed: &Observed, node: &str, now: Timestamp) -> Option<(&'static str, String)> {
    // Another condition reports objects that are not written yet.
    let objects = objects(cluster, observed, node).unwrap_or_default();
    let Some(agent) = agent(observed, node) else {
        let mut stale = objects.iter().filter(|object| object.applied.is_some());
        let stale = stale.find_map(|object| object.check_annotation(node).err());
        return stale.map(|message| (reasons::NOT_APPLIED, message));
    };
    if let Err(message) = check_reporting(cluster, node, agent, now) {
        return Some((if agent.is_silent(now) { reasons::AGENT_SILENT } else { reasons::CLOCK_DIFFERS }, message));
    }
    if let Err(message) = check_errors(node, agent) {
        return Some((reasons::AGENT_REPORTS, message));
    }
    let mut late = objects
        .iter()
        .filter(|object| object.written.is_none_or(|written| now.duration_since(written) > APPLY_GRACE_PERIOD));
    let late = late.find_map(|object| object.check_report(node, agent).err());
    late.map(|message| (reasons::NOT_APPLIED, message))
}

/// Returns the agent of a node after its first report.
fn agent<'a>(observed: &'a Observed, node: &str) -> Option<&'a AgentFacts> {
    observed.agents.get(node).filter(|agent| agent.report.is_some())
}

fn check_reporting(cluster: &Cluster, node: &str, agent: &AgentFacts, now: Timestamp) -> Result<(), String> {
    if agent.is_silent(now) {
        let since = agent.received.map(|received| format!(" since {received}")).unwrap_or_default();
        let lease = names::agent_lease(&cluster.name, node);
        return Err(format!(
            "{node}: its agent has not reported{since}: start keyplane-node on the node; if its credential has \
             expired, delete Lease {lease} and copy the new token from its bootstrap Secret to the node"
        ));
    }
    match agent.clock_difference() {
        Some(off) => {
            let which = if off.is_negative() { "behind" } else { "ahead" };
            Err(format!(
                "{node}: its clock is more than five minutes {which}: synchronize it (chrony, systemd-timesyncd)"
            ))
        }
        None => Ok(()),
    }
}

fn check_errors(node: &str, agent: &AgentFacts) -> Result<(), String> {
    let errors = agent.report.iter().flat_map(|report| &report.errors).cloned().collect::<Vec<_>>();
    if errors.is_empty() { Ok(()) } else { Err(format!("{node}: its agent reports: {}", errors.join("; "))) }
}

/// One of the two objects of a node.
#[derive(Debug)]
struct Object {
    kind: &'static str,
    name: String,
    checksum: String,
    applied: Option<String>,
    written: Option<Timestamp>,
}

impl Object {
    fn new(kind: &'static str, name: String, metadata: &ObjectMeta) -> Self {
        let annotation = |key: &str| metadata.annotations.as_ref().and_then(|all| all.get(key)).cloned();
        let times = metadata.managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref());
        Self {
            kind,
            name,
            checksum: annotation(keys::CONTENT_CHECKSUM_ANNOTATION).unwrap_or_default(),
            applied: annotation(keys::APPLIED_CHECKSUM_ANNOTATION),
            written: times.map(|time| time.0).max(),
        }
    }

    fn check_report(&self, node: &str, agent: &AgentFacts) -> Result<(), String> {
        let held = agent.report.as_ref().and_then(|report| match self.kind {
            "Secret" => report.secret.as_ref(),
            _ => report.config.as_ref(),
        });
        if held == Some(&self.checksum) {
            return Ok(());
        }
        Err(format!("{node}: its agent has not applied the current version of {} {}", self.kind, self.name))
    }

    fn check_annotation(&self, node: &str) -> Result<(), String> {
        if self.applied.as_ref() == Some(&self.checksum) {
            return Ok(());
        }
        let Self { kind, name, checksum, .. } = self;
        Err(format!(
            "{node}: it has no agent: copy the files of {kind} {name} to the node, then run `kubectl annotate \
             --overwrite {} {name} {APPLIED_CHECKSUM_ANNOTATION}={checksum}`",
            kind.to_lowercase()
        ))
    }
}

/// Returns the objects of a node.
fn objects(cluster: &Cluster, observed: &Observed, node: &str) -> Result<Vec<Object>, String> {
    let (secret, config) = (node_secret(&cluster.name, node), node_config_map(&cluster.name, node));
    let missing = |kind: &str, name: &str| format!("{node}: {kind} {name} is not written yet");
    let mut objects = vec![];
    if cluster.all_nodes().any(|machine| machine.name == node) {
        let found = observed.secrets.get(&secret).ok_or_else(|| missing("Secret", &secret))?;
        objects.push(Object::new("Secret", secret, &found.metadata));
    } else if let Some(found) = observed.secrets.get(&secret).filter(|_| observed.workers.contains_key(node)) {
        // A worker has a Secret only while its kubelet has no valid certificate.
        objects.push(Object::new("Secret", secret, &found.metadata));
    }
    let metadata = if let Some(found) = observed.config_maps.get(&config) {
        &found.metadata
    } else {
        let found = observed.workers.get(node).ok_or_else(|| missing("ConfigMap", &config))?;
        check_trust_bundle(cluster, observed, node, &config, found)?;
        found
    };
    objects.push(Object::new("ConfigMap", config, metadata));
    Ok(objects)
}

/// Checks whether a worker's ConfigMap contains the current trust bundle. The NodePool controller writes it some time
/// after the bundle.
fn check_trust_bundle(
    cluster: &Cluster,
    observed: &Observed,
    node: &str,
    name: &str,
    found: &ObjectMeta,
) -> Result<(), String> {
    let bundle = observed.config_maps.get(&trust_bundle_config_map(&cluster.name));
    let bundle = bundle.and_then(|bundle| bundle.data.as_ref()).and_then(|data| data.get("ca.crt"));
    let held = found.annotations.as_ref().and_then(|all| all.get(keys::TRUST_CHECKSUM_ANNOTATION));
    if bundle.is_none() || held == bundle.map(|bundle| trust_checksum(bundle)).as_ref() {
        return Ok(());
    }
    Err(format!("{node}: ConfigMap {name} does not contain the current trust bundle yet"))
}
