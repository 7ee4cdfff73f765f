//! Has components started anew for files that they read only when they start.

use k8s_openapi::api::core::v1::{Pod, Secret};
use keyplane_crds::{keys, reasons};
use kube::ResourceExt;

use super::gate::{self, Wait};
use super::{Step, component_of, written};
use crate::host_files::File;
use crate::model::{Cluster, Node};
use crate::names;
use crate::observed::Observed;
use crate::rotation::reload::{self};
use crate::yaml;

/// The static pod that an agent starts anew in its place: a new pod in the place of the old one costs the API server beside
/// it about a minute.
pub(super) const ETCD: &str = "etcd";

/// Puts the marks of the machine's Secret onto the manifests: another text, and so another pod.
pub(super) fn mark(files: &mut [File], cluster: &Cluster, node: &Node, observed: &Observed) {
    let secret = observed.secrets.get(&names::node_secret(&cluster.name, &node.name));
    let before = written(cluster, node, observed);
    for file in files {
        let Some(component) = component_of(file) else { continue };
        let marked = if component == ETCD && has_agent(node, observed) {
            // The one that is there stays: without it the manifest would be another one.
            let there = before.and_then(|data| mark_in(data.get(file.key.as_ref())?, keys::ETCD_RESTART_ANNOTATION));
            there.and_then(|value| with_mark(&file.content, keys::ETCD_RESTART_ANNOTATION, &value))
        } else {
            marked(component, &file.content, secret)
        };
        if let Some(marked) = marked {
            file.content = marked;
        }
    }
}

/// A manifest with the mark of the machine's Secret; nothing if it has none for the component.
pub(super) fn marked(component: &str, manifest: &str, secret: Option<&Secret>) -> Option<String> {
    let mark = reload::mark_of(component);
    with_mark(manifest, &mark, secret?.annotations().get(&mark)?)
}

fn with_mark(manifest: &str, mark: &str, value: &str) -> Option<String> {
    // What Keyplane has written a moment ago can be read.
    let mut pod = serde_saphyr::from_str::<Pod>(manifest).ok()?;
    pod.annotations_mut().insert(mark.to_owned(), value.to_owned());
    Some(yaml::write_object(&pod))
}

/// For what the machine's agent is to start etcd anew, if its turn has come: once it says that it has done so, and the member
/// is well, everything else goes on. `step` is etcd's on this machine, and `before` are those before it.
pub(super) fn etcds_turn(
    cluster: &Cluster,
    node: &Node,
    step: &Step,
    before: &[Step],
    observed: &Observed,
    at_once: bool,
    held: &mut Option<Wait>,
) -> Option<String> {
    let mark = wanted(cluster, node, observed)?;
    let config = observed.config_maps.get(&names::node_config_map(&cluster.name, &node.name));
    let told = config.and_then(|config| config.annotations().get(keys::ETCD_RESTART_ANNOTATION));
    if told != Some(mark) && !at_once {
        if held.is_none() {
            *held = gate::wait_for_restart(cluster, before, step, observed);
        }
        if held.is_some() {
            return None;
        }
    }
    held.get_or_insert_with(|| {
        let node = &node.name;
        let message = format!("the agent of {node} to start etcd anew, which then is a healthy voter again");
        Wait::new(reasons::WAITING_FOR_NODE_FILES, message)
    });
    Some(mark.clone())
}

/// For what etcd is still to be started anew by the machine's agent, if it is.
fn wanted<'a>(cluster: &Cluster, node: &Node, observed: &'a Observed) -> Option<&'a String> {
    let secret = observed.secrets.get(&names::node_secret(&cluster.name, &node.name))?;
    let wanted = secret.annotations().get(keys::ETCD_RESTART_ANNOTATION)?;
    let report = observed.agents.get(&node.name)?.report.as_ref()?;
    let manifest = written(cluster, node, observed).and_then(|data| data.get("etcd.yaml"));
    if manifest.and_then(|manifest| mark_in(manifest, keys::ETCD_RESTART_ANNOTATION)).as_ref() == Some(wanted) {
        return None;
    }
    let is_done = report.etcd_restart.as_ref() == Some(wanted)
        && !observed.target.ailing_members(cluster).any(|name| name == node.name);
    (!is_done).then_some(wanted)
}

fn has_agent(node: &Node, observed: &Observed) -> bool {
    observed.agents.get(&node.name).is_some_and(|agent| agent.report.is_some())
}

fn mark_in(manifest: &str, mark: &str) -> Option<String> {
    let pod: Pod = serde_saphyr::from_str(manifest).ok()?;
    pod.annotations().get(mark).cloned()
}
