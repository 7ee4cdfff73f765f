//! Has components started anew for files that they read only when they start.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::{component_of, written};
use crate::cluster::{Cluster, Node};
use crate::manifests::File;
use crate::plan::{Observed, objects};
use crate::rotation::reload::{self, ETCD_MARK};
use crate::yaml;

/// The static pod that an agent starts anew in its place: a new pod in the place of the old one costs the API server beside
/// it about a minute, see [`crate::node`].
pub(super) const ETCD: &str = "etcd";

/// Puts the marks of the machine's Secret onto the manifests: another text, and so another pod.
pub(super) fn mark(files: &mut [File], cluster: &Cluster, node: &Node, observed: &Observed) {
    let Some(secret) = observed.secrets.get(&objects::node_secret(&cluster.name, &node.name)) else { return };
    let before = written(cluster, node, observed);
    for file in files {
        let Some((component, mark)) = component_of(file).map(|component| (component, reload::mark_of(component)))
        else {
            continue;
        };
        let value = if component == ETCD && has_agent(node, observed) {
            // The one that is there stays: without it the manifest would be another one.
            before.and_then(|data| mark_in(data.get(file.key.as_ref())?, &mark))
        } else {
            secret.annotations().get(&mark).cloned()
        };
        let Some(value) = value else { continue };
        // What Keyplane has written a moment ago can be read.
        let Ok(mut pod) = serde_saphyr::from_str::<Pod>(&file.content) else { continue };
        pod.annotations_mut().insert(mark, value);
        file.content = yaml::write_object(&pod);
    }
}

/// A restart of etcd that is still to be done.
pub(super) struct Restart {
    /// For what.
    pub(super) mark: String,
    /// Whether the agent was told already.
    pub(super) is_under_way: bool,
}

/// The restart of a machine's etcd, if there is one to be done by its agent. It is done once the agent says so and the
/// member is well.
pub(super) fn of_etcd(cluster: &Cluster, node: &Node, observed: &Observed) -> Option<Restart> {
    let secret = observed.secrets.get(&objects::node_secret(&cluster.name, &node.name))?;
    let wanted = secret.annotations().get(ETCD_MARK)?;
    if !has_agent(node, observed) {
        return None;
    }
    let manifest = written(cluster, node, observed).and_then(|data| data.get("etcd.yaml"));
    if manifest.and_then(|manifest| mark_in(manifest, ETCD_MARK)).as_ref() == Some(wanted) {
        return None;
    }
    let report = observed.agents.get(&node.name)?.report.as_ref()?;
    let is_restarted = report.etcd_restart.as_ref() == Some(wanted);
    if is_restarted && !observed.target.ailing_members(cluster).any(|name| name == node.name) {
        return None;
    }
    let config = observed.config_maps.get(&objects::node_config_map(&cluster.name, &node.name));
    let told = config.and_then(|config| config.annotations().get(ETCD_MARK));
    Some(Restart { mark: wanted.clone(), is_under_way: told == Some(wanted) })
}

fn has_agent(node: &Node, observed: &Observed) -> bool {
    observed.agents.get(&node.name).is_some_and(|agent| agent.report.is_some())
}

fn mark_in(manifest: &str, mark: &str) -> Option<String> {
    let pod: Pod = serde_saphyr::from_str(manifest).ok()?;
    pod.annotations().get(mark).cloned()
}
