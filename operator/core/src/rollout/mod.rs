//! The order in which changes of static pods reach the nodes: a pure function of the desired manifests, the written
//! manifests, and the observed static pods.
//!
//! The order is kubeadm's: one node at a time, and on it etcd, kube-apiserver, kube-controller-manager, kube-scheduler.
//! A manifest changes only while every earlier component runs its written manifest and is Ready, and while all other
//! nodes are Ready and their etcd members healthy. So an invalid flag takes down a single API server, and an upgrade
//! never costs etcd its quorum. A manifest that was never observed to run is replaced at once, so that a mistake can be
//! fixed even if it took the target cluster down. For the same reason a cluster that was never available changes
//! without waiting.
//!
//! The version in kubeadm-config and kubelet-config follows after the first node, and the add-ons after the last, as in
//! `kubeadm upgrade`.

mod drift;
mod gate;
pub mod initial_cluster;
mod kubelets;
mod restart;
mod units;

use std::collections::BTreeMap;

use keyplane_crds::{ClusterSpecStatus, ComponentStatus, NodeStatus};
use serde_json::Value;

pub use drift::{Drift, drift};
pub use kubelets::{KubeletVersions, kubelet_versions};

use crate::certificate_authorities::is_revoking_any;
use crate::host_files::File;
use crate::model::{Cluster, Node, Restore, Version};
use crate::observed::{Observed, StaticPod, image_of, tag_of};
use crate::{manifests, names};

/// The kubelet's directory for static pods (kubeadm's `staticPodPath`).
const MANIFESTS_DIRECTORY: &str = "/etc/kubernetes/manifests/";

impl Progress {
    /// Returns the condition that the rollout waits for.
    #[must_use]
    pub fn wait(&self) -> Option<&str> {
        match self {
            Self::Done => None,
            Self::UnderWay { message, .. } => Some(message),
        }
    }
}

/// The manifests and versions to write now.
#[derive(Debug)]
pub struct Rollout {
    /// The version for kubeadm-config and kubelet-config: the spec's once the first node runs it.
    pub configuration: Version,
    /// The version for the add-ons: the spec's once all nodes run it.
    pub addons: Version,
    /// Whether all desired manifests are written and observed to run.
    pub progress: Progress,
    /// For the status: the version that all nodes were observed to run.
    pub kubernetes_version: Option<String>,
    /// For the status: the components that each node was observed to run.
    pub nodes: Vec<NodeStatus>,
    files: BTreeMap<String, Vec<File>>,
    steps: Vec<Step>,
    etcd_restarts: BTreeMap<String, String>,
    restart_permits: BTreeMap<String, String>,
}

/// The progress of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// No change is in progress.
    Done,
    /// A change is in progress.
    UnderWay {
        /// The condition's reason.
        reason: &'static str,
        /// The current step, and the condition that it waits for.
        message: String,
    },
}

/// One static pod on one node.
#[derive(Debug)]
struct Step {
    node: String,
    component: String,
    /// The desired manifest.
    wanted: String,
    /// The written manifest.
    text: String,
    /// The component that was last observed to run.
    proof: Option<ComponentStatus>,
    running: Running,
    /// The image of the observed pod, regardless of its manifest.
    running_image: Option<String>,
}

/// The observed state of a static pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Running {
    /// The target cluster does not answer.
    Unknown,
    /// The pod does not exist.
    Absent,
    /// The pod has another manifest.
    Other,
    /// The pod has the written manifest and is not Ready.
    NotReady,
    /// The pod has the written manifest and is Ready.
    Ready,
}

impl Step {
    fn is_pending(&self) -> bool {
        self.text != self.wanted
    }

    /// Returns whether the written manifest was observed to run.
    fn is_proven(&self) -> bool {
        self.running == Running::Ready
            || self.proof.as_ref().is_some_and(|proof| proof.manifest_checksum.as_ref() == Some(&checksum(&self.text)))
    }

    /// Returns whether the written manifest is being applied on the node.
    fn is_under_way(&self) -> bool {
        let seen = matches!(self.running, Running::Other | Running::NotReady);
        !self.is_proven() && (seen || self.proof.is_some())
    }
}

impl Rollout {
    /// Returns the files of a node that are not secret.
    #[must_use]
    pub fn files(&self, node: &Node) -> &[File] {
        self.files.get(&node.name).map_or(&[], Vec::as_slice)
    }

    /// Returns the current or last restart permit for the node's systemd units; empty before the first.
    #[must_use]
    pub fn restart_permit(&self, node: &Node) -> &str {
        self.restart_permits.get(&node.name).map_or("", String::as_str)
    }

    /// Returns the restart permit for etcd on the node, if there is one.
    #[must_use]
    pub fn etcd_restart(&self, node: &Node) -> Option<&str> {
        self.etcd_restarts.get(&node.name).map(String::as_str)
    }
}

/// Decides the manifests and versions to write now.
#[must_use]
pub fn rollout(cluster: &Cluster, observed: &Observed) -> Rollout {
    let mut files: BTreeMap<_, _> =
        cluster.nodes.iter().map(|node| (node.name.clone(), wanted_files(cluster, node, observed))).collect();
    let mut steps: Vec<Step> = vec![];
    let mut held = None;
    let (mut etcd_restarts, mut restart_permits) = (BTreeMap::new(), BTreeMap::new());
    let revoking = is_revoking_any(cluster, observed);
    let at_once = observed.at_once || revoking;
    for node in &cluster.nodes {
        let permit = units::restart_permit(cluster, node, &steps, observed, at_once, &mut held);
        restart_permits.extend(permit.map(|permit| (node.name.clone(), permit)));
        let secret = observed.secrets.get(&names::node_secret(&cluster.name, &node.name));
        for file in files.get_mut(&node.name).into_iter().flatten() {
            let Some(component) = component_of(file).map(str::to_owned) else { continue };
            let written = written(cluster, node, observed).and_then(|data| data.get(file.key.as_ref()));
            let mut step = step(node, &component, file, written, observed);
            // With a revoked CA or key the components can't become Ready, so its restarts don't wait. All other changes
            // wait.
            let revoked = revoking.then(|| restart::annotated(&component, &step.text, secret)).flatten();
            if step.is_pending()
                && !is_free(cluster, &step, observed, revoking)
                && revoked.as_ref() != Some(&step.wanted)
            {
                if held.is_none() {
                    held = gate::wait(cluster, &steps, &step, observed);
                }
                if held.is_some() {
                    file.content.clone_from(revoked.as_ref().unwrap_or(&step.text));
                }
            }
            if file.content != step.text {
                step.text.clone_from(&file.content);
                step.running = running(&step, observed);
            }
            if component == restart::ETCD {
                let permit = restart::etcd_restart_permit(cluster, node, &step, &steps, observed, at_once, &mut held);
                etcd_restarts.extend(permit.map(|permit| (node.name.clone(), permit)));
            }
            steps.push(step);
        }
    }
    let proven = |node: &Node| {
        let mut of_node = steps.iter().filter(|step| step.node == node.name);
        of_node.all(|step| !step.is_pending() && step.is_proven())
            || cluster.restore != Restore::Expected && never_observed(&node.name, observed)
    };
    let all_proven = cluster.nodes.iter().all(proven);
    let first_proven = cluster.nodes.first().is_none_or(proven);
    let before = observed.status.kubernetes_version.as_deref().and_then(Version::reported);
    let progress = match held {
        Some(wait) => gate::held(&steps, &wait),
        None => gate::under_way(cluster, &steps),
    };
    Rollout {
        configuration: configured(cluster, observed).filter(|_| !first_proven).unwrap_or(cluster.version),
        addons: before.filter(|_| !all_proven).unwrap_or(cluster.version),
        progress,
        kubernetes_version: if all_proven && steps.iter().any(Step::is_proven) {
            Some(cluster.version.to_string())
        } else {
            observed.status.kubernetes_version.clone()
        },
        nodes: nodes(cluster, &steps),
        files,
        steps,
        etcd_restarts,
        restart_permits,
    }
}

/// Returns the desired files. etcd's initial flags are part of them and do not wait for other nodes.
fn wanted_files(cluster: &Cluster, node: &Node, observed: &Observed) -> Vec<File> {
    let mut files = manifests::files(cluster, node, &initial_cluster::of(cluster, node, observed).flags);
    restart::annotate(&mut files, cluster, node, observed);
    files
}

/// Describes the changes of existing static pods between two versions of a node's ConfigMap. An example is
/// `kube-apiserver v1.36.4 -> v1.37.2`.
#[must_use]
pub fn changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let changed = after.iter().filter_map(|(key, text)| Some((key, before.get(key)?, text)));
    let changed = changed.filter(|(_, before, after)| before != after && !image_of(after).is_empty());
    changed
        .map(|(key, before, after)| {
            let component = key.trim_end_matches(".yaml");
            let (before, after) = (image_of(before), image_of(after));
            if before == after {
                return format!("{component} with another manifest");
            }
            let tag = |image: &str| tag_of(image).unwrap_or(image).to_owned();
            format!("{component} {} -> {}", tag(&before), tag(&after))
        })
        .collect()
}

/// Returns the component of a file: a static pod has the name of its file.
fn component_of(file: &File) -> Option<&str> {
    file.path.strip_prefix(MANIFESTS_DIRECTORY)?.strip_suffix(".yaml")
}

/// Returns the data of the node's current ConfigMap.
fn written<'a>(cluster: &Cluster, node: &Node, observed: &'a Observed) -> Option<&'a BTreeMap<String, String>> {
    observed.config_maps.get(&names::node_config_map(&cluster.name, &node.name))?.data.as_ref()
}

/// Returns the step of a component before any decision: its manifest is the written one.
fn step(node: &Node, component: &str, wanted: &File, written: Option<&String>, observed: &Observed) -> Step {
    let mut step = Step {
        node: node.name.clone(),
        component: component.to_owned(),
        wanted: wanted.content.clone(),
        text: written.unwrap_or(&wanted.content).clone(),
        proof: proof(&observed.status, &node.name, component).cloned(),
        running: Running::Unknown,
        running_image: pod(&node.name, component, observed).map(|pod| pod.image().to_owned()),
    };
    step.running = running(&step, observed);
    step
}

/// Returns whether a change may be made at once because no working component can break. Files restored from a backup,
/// and files that a revocation has just written, count as running.
fn is_free(cluster: &Cluster, step: &Step, observed: &Observed, revoking: bool) -> bool {
    observed.at_once || !step.is_proven() && !revoking && cluster.restore != Restore::Expected
}

fn running(step: &Step, observed: &Observed) -> Running {
    if observed.target.static_pods.is_none() {
        return Running::Unknown;
    }
    match pod(&step.node, &step.component, observed) {
        None => Running::Absent,
        Some(pod) if !pod.is_of(&step.text) => Running::Other,
        Some(pod) if !pod.ready => Running::NotReady,
        Some(_) => Running::Ready,
    }
}

fn pod<'a>(node: &str, component: &str, observed: &'a Observed) -> Option<&'a StaticPod> {
    observed.target.static_pods.as_ref()?.get(&(node.to_owned(), component.to_owned()))
}

fn proof<'a>(status: &'a ClusterSpecStatus, node: &str, component: &str) -> Option<&'a ComponentStatus> {
    let node = status.nodes.iter().find(|other| other.name == node)?;
    node.components.iter().find(|other| other.name == component)
}

/// Returns whether nothing was ever observed on the node, for example before its first start. No other node waits for
/// it.
fn never_observed(node: &str, observed: &Observed) -> bool {
    let proven = observed.status.nodes.iter().any(|other| other.name == node && !other.components.is_empty());
    let seen = observed.target.static_pods.iter().flatten().any(|((other, _), _)| other == node);
    !proven && !seen
}

/// Returns the version in the kubeadm-config of the first node's ConfigMap.
fn configured(cluster: &Cluster, observed: &Observed) -> Option<Version> {
    let text = written(cluster, cluster.nodes.first()?, observed)?.get(names::KUBEADM_CONFIG_KEY)?;
    let configuration: Value = serde_saphyr::from_str(text).ok()?;
    Version::reported(configuration.get("kubernetesVersion")?.as_str()?)
}

fn nodes(cluster: &Cluster, steps: &[Step]) -> Vec<NodeStatus> {
    let component = |step: &Step| {
        if step.running != Running::Ready {
            let manifest_checksum = step.is_proven().then(|| checksum(&step.text));
            return step.proof.clone().map(|proof| ComponentStatus { manifest_checksum, ..proof });
        }
        let (name, image) = (step.component.clone(), step.running_image.clone().unwrap_or_default());
        Some(ComponentStatus { name, image, manifest_checksum: Some(checksum(&step.text)) })
    };
    let node = |node: &Node| {
        let of_node = steps.iter().filter(|step| step.node == node.name);
        NodeStatus { name: node.name.clone(), components: of_node.filter_map(component).collect() }
    };
    cluster.nodes.iter().map(node).filter(|node| !node.components.is_empty()).collect()
}

fn checksum(text: &str) -> String {
    crate::checksum::checksum([("manifest", text.as_bytes())].into_iter())
}
