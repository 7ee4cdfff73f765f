//! Restarts components that read changed files only at their start.

use k8s_openapi::api::core::v1::{Pod, Secret};
use keyplane_crds::{keys, reasons};
use kube::ResourceExt;

use super::gate::{self, Wait};
use super::{Step, component_of, written};
use crate::host_files::File;
use crate::model::{Cluster, Node};
use crate::observed::Observed;
use crate::rotation::reload;
use crate::{names, yaml};

/// The static pod that an agent restarts in place. A recreated pod would cost the API server on the same node about a
/// minute.
pub(super) const ETCD: &str = "etcd";

/// Copies the restart annotations of the node's Secret to the manifests, so that the kubelet recreates the pods.
pub(super) fn annotate(files: &mut [File], cluster: &Cluster, node: &Node, observed: &Observed) {
    let secret = observed.secrets.get(&names::node_secret(&cluster.name, &node.name));
    let before = written(cluster, node, observed);
    for file in files {
        let Some(component) = component_of(file) else { continue };
        let annotated = if component == ETCD && has_agent(node, observed) {
            // The existing annotation stays: without it the manifest would differ.
            let there =
                before.and_then(|data| annotation_in(data.get(file.key.as_ref())?, keys::ETCD_RESTART_ANNOTATION));
            there.and_then(|value| with_annotation(&file.content, keys::ETCD_RESTART_ANNOTATION, &value))
        } else {
            annotated(component, &file.content, secret)
        };
        if let Some(annotated) = annotated {
            file.content = annotated;
        }
    }
}

/// Returns the manifest with the restart annotation of the node's Secret; `None` if the Secret has none for the
/// component.
pub(super) fn annotated(component: &str, manifest: &str, secret: Option<&Secret>) -> Option<String> {
    let annotation = reload::restart_annotation(component);
    with_annotation(manifest, &annotation, secret?.annotations().get(&annotation)?)
}

fn with_annotation(manifest: &str, annotation: &str, value: &str) -> Option<String> {
    // Keyplane has rendered this manifest, so it can be parsed.
    let mut pod = serde_saphyr::from_str::<Pod>(manifest).ok()?;
    pod.annotations_mut().insert(annotation.to_owned(), value.to_owned());
    Some(yaml::write_object(&pod))
}

/// Returns the restart permit for etcd on the node, if the node may restart it now. The rollout goes on after the agent
/// has reported the restart and the member is healthy. `step` is the step of etcd on this node, and `before` are the
/// previous steps.
pub(super) fn etcd_restart_permit(
    cluster: &Cluster,
    node: &Node,
    step: &Step,
    before: &[Step],
    observed: &Observed,
    at_once: bool,
    held: &mut Option<Wait>,
) -> Option<String> {
    let checksum = wanted(cluster, node, observed)?;
    let config = observed.config_maps.get(&names::node_config_map(&cluster.name, &node.name));
    let permitted = config.and_then(|config| config.annotations().get(keys::ETCD_RESTART_ANNOTATION));
    if permitted != Some(checksum) && !at_once {
        if held.is_none() {
            *held = gate::wait_for_restart(cluster, before, step, observed);
        }
        if held.is_some() {
            return None;
        }
    }
    held.get_or_insert_with(|| {
        let node = &node.name;
        let message = format!("the agent of {node} to restart etcd, and its member to be a healthy voter again");
        Wait::new(reasons::WAITING_FOR_NODE_FILES, message)
    });
    Some(checksum.clone())
}

/// Returns the checksum of the restart of etcd that the node's agent still has to do.
fn wanted<'a>(cluster: &Cluster, node: &Node, observed: &'a Observed) -> Option<&'a String> {
    let secret = observed.secrets.get(&names::node_secret(&cluster.name, &node.name))?;
    let wanted = secret.annotations().get(keys::ETCD_RESTART_ANNOTATION)?;
    let report = observed.agents.get(&node.name)?.report.as_ref()?;
    let manifest = written(cluster, node, observed).and_then(|data| data.get("etcd.yaml"));
    if manifest.and_then(|manifest| annotation_in(manifest, keys::ETCD_RESTART_ANNOTATION)).as_ref() == Some(wanted) {
        return None;
    }
    let is_done = report.etcd_restart.as_ref() == Some(wanted)
        && !observed.target.unhealthy_members(cluster).any(|name| name == node.name);
    (!is_done).then_some(wanted)
}

fn has_agent(node: &Node, observed: &Observed) -> bool {
    observed.agents.get(&node.name).is_some_and(|agent| agent.report.is_some())
}

fn annotation_in(manifest: &str, annotation: &str) -> Option<String> {
    let pod: Pod = serde_saphyr::from_str(manifest).ok()?;
    pod.annotations().get(annotation).cloned()
}
