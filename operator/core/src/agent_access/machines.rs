//! Whether a machine holds what is written for it now: as its agent reports, or as a person has acknowledged.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_crds::{
    keys::{self, APPLIED_CHECKSUM_ANNOTATION},
    reasons,
};

use crate::checksum::checksum;
use crate::model::Cluster;
use crate::names;
use crate::names::{node_config_map, node_secret, trust_bundle_config_map};
use crate::objects::trust_checksum;
use crate::observed::AgentFacts;
use crate::observed::Observed;

/// An agent has so long to carry what was written before a condition tells of it.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// The name of every machine that has objects of its own: the control plane's, and the workers that pools list.
#[must_use]
pub fn machines(cluster: &Cluster, observed: &Observed) -> BTreeSet<String> {
    cluster.machines().map(|node| node.name.clone()).chain(observed.workers.keys().cloned()).collect()
}

/// Whether both objects of a machine are on it as they are now. With an agent its report says so, without one the
/// annotations [`keyplane_crds::keys::APPLIED_CHECKSUM_ANNOTATION`] of both do.
///
/// # Errors
/// Why not, with the machine's name and the cure.
pub fn holds_current(cluster: &Cluster, observed: &Observed, node: &str, now: Timestamp) -> Result<(), String> {
    let objects = objects(cluster, observed, node)?;
    match agent(observed, node) {
        Some(agent) => {
            hears(cluster, node, agent, now)?;
            says_no_error(node, agent)?;
            objects.iter().try_for_each(|object| object.is_reported(node, agent))
        }
        None => objects.iter().try_for_each(|object| object.is_acknowledged(node)),
    }
}

/// What is to be told of the machines: a reason and a sentence for each that has an agent and is not well, or whose
/// acknowledgement is of something older.
#[must_use]
pub fn complaints(cluster: &Cluster, observed: &Observed, now: Timestamp) -> Vec<(&'static str, String)> {
    machines(cluster, observed).iter().filter_map(|node| complaint(cluster, observed, node, now)).collect()
}

fn complaint(cluster: &Cluster, observed: &Observed, node: &str, now: Timestamp) -> Option<(&'static str, String)> {
    // What is not written yet is told elsewhere.
    let objects = objects(cluster, observed, node).unwrap_or_default();
    let Some(agent) = agent(observed, node) else {
        let mut stale = objects.iter().filter(|object| object.carried.is_some());
        let stale = stale.find_map(|object| object.is_acknowledged(node).err());
        return stale.map(|message| (reasons::NOT_APPLIED, message));
    };
    if let Err(message) = hears(cluster, node, agent, now) {
        return Some((if agent.is_silent(now) { reasons::AGENT_SILENT } else { reasons::CLOCK_DIFFERS }, message));
    }
    if let Err(message) = says_no_error(node, agent) {
        return Some((reasons::AGENT_REPORTS, message));
    }
    let mut late =
        objects.iter().filter(|object| object.written.is_none_or(|written| now.duration_since(written) > GRACE));
    let late = late.find_map(|object| object.is_reported(node, agent).err());
    late.map(|message| (reasons::NOT_APPLIED, message))
}

/// The agent of a machine, once it has reported.
fn agent<'a>(observed: &'a Observed, node: &str) -> Option<&'a AgentFacts> {
    observed.agents.get(node).filter(|agent| agent.report.is_some())
}

fn hears(cluster: &Cluster, node: &str, agent: &AgentFacts, now: Timestamp) -> Result<(), String> {
    if agent.is_silent(now) {
        let since = agent.heard.map(|heard| format!(" since {heard}")).unwrap_or_default();
        let lease = names::agent_lease(&cluster.name, node);
        return Err(format!(
            "{node}: its agent has not reported{since}: start keyplane-node there; if its credential has ended, delete \
             Lease {lease} and carry the new one of its bootstrap Secret to the machine"
        ));
    }
    match agent.clock_is_off() {
        Some(off) => {
            let which = if off.is_negative() { "behind" } else { "ahead" };
            Err(format!(
                "{node}: its clock is more than five minutes {which}: set it right (chrony, systemd-timesyncd)"
            ))
        }
        None => Ok(()),
    }
}

fn says_no_error(node: &str, agent: &AgentFacts) -> Result<(), String> {
    let errors = agent.report.iter().flat_map(|report| &report.errors).cloned().collect::<Vec<_>>();
    if errors.is_empty() { Ok(()) } else { Err(format!("{node}: its agent says: {}", errors.join("; "))) }
}

/// One of the two objects of a machine, as it is now.
#[derive(Debug)]
struct Object {
    kind: &'static str,
    name: String,
    checksum: String,
    carried: Option<String>,
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
            carried: annotation(keys::APPLIED_CHECKSUM_ANNOTATION),
            written: times.map(|time| time.0).max(),
        }
    }

    fn is_reported(&self, node: &str, agent: &AgentFacts) -> Result<(), String> {
        let held = agent.report.as_ref().and_then(|report| match self.kind {
            "Secret" => report.secret.as_ref(),
            _ => report.config.as_ref(),
        });
        if held == Some(&self.checksum) {
            return Ok(());
        }
        Err(format!("{node}: its agent does not hold {} {} as it is now", self.kind, self.name))
    }

    fn is_acknowledged(&self, node: &str) -> Result<(), String> {
        if self.carried.as_ref() == Some(&self.checksum) {
            return Ok(());
        }
        let Self { kind, name, checksum, .. } = self;
        Err(format!(
            "{node}: it has no agent: carry {kind} {name} to it, then `kubectl annotate --overwrite {} {name} \
             {APPLIED_CHECKSUM_ANNOTATION}={checksum}`",
            kind.to_lowercase()
        ))
    }
}

/// The objects of a machine.
fn objects(cluster: &Cluster, observed: &Observed, node: &str) -> Result<Vec<Object>, String> {
    let (secret, config) = (node_secret(&cluster.name, node), node_config_map(&cluster.name, node));
    let missing = |kind: &str, name: &str| format!("{node}: {kind} {name} is not written yet");
    let mut objects = vec![];
    if cluster.machines().any(|machine| machine.name == node) {
        let found = observed.secrets.get(&secret).ok_or_else(|| missing("Secret", &secret))?;
        objects.push(Object::new("Secret", secret, &found.metadata));
    } else if let Some(found) = observed.secrets.get(&secret).filter(|_| observed.workers.contains_key(node)) {
        // A worker has one only while its kubelet has no certificate that is good.
        objects.push(Object::new("Secret", secret, &found.metadata));
    }
    let metadata = if let Some(found) = observed.config_maps.get(&config) {
        &found.metadata
    } else {
        let found = observed.workers.get(node).ok_or_else(|| missing("ConfigMap", &config))?;
        trusts_the_bundle(cluster, observed, node, &config, found)?;
        found
    };
    objects.push(Object::new("ConfigMap", config, metadata));
    Ok(objects)
}

/// A worker's ConfigMap is written by the NodePools' controller, some time after the bundle.
fn trusts_the_bundle(
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
    Err(format!("{node}: ConfigMap {name} is yet to be written with the authorities that hold now"))
}
