//! In which order changes of static pods reach the machines: a pure function of what is wanted, what is written, and
//! what the target was seen to run.
//!
//! The order is kubeadm's: one node at a time, on it etcd, kube-apiserver, kube-controller-manager, kube-scheduler. A
//! manifest is changed only once everything before it runs what is written for it and is Ready, and while all other
//! nodes are Ready and their members of etcd well: a flag that an API server does not start with takes down one of
//! them, and an upgrade never costs etcd its quorum. What was written and has never been seen to run is replaced at
//! once, so that a mistake can be mended even if it took the target down; for the same reason a cluster that never was
//! up changes freely.
//!
//! Then follow, as in `kubeadm upgrade`, the version in kubeadm-config and kubelet-config (after the first node) and the
//! add-ons (after the last).

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

use crate::authorities::is_revoking_any;
use crate::host_files::File;
use crate::manifests;
use crate::model::{Cluster, Node, Restore, Version};
use crate::names;
use crate::observed::{Observed, StaticPod, image_of, tag_of};

/// Where the kubelet looks for static pods (kubeadm's `staticPodPath`).
const MANIFESTS_DIRECTORY: &str = "/etc/kubernetes/manifests/";

impl Progress {
    /// What it waits for.
    #[must_use]
    pub fn wait(&self) -> Option<&str> {
        match self {
            Self::Done => None,
            Self::UnderWay { message, .. } => Some(message),
        }
    }
}

/// What to write now.
#[derive(Debug)]
pub struct Rollout {
    /// The version for kubeadm-config and kubelet-config: the spec's once the first node runs it.
    pub configuration: Version,
    /// The version for the add-ons: the spec's once all nodes run it.
    pub addons: Version,
    /// Whether everything that is wanted is written and was seen to run.
    pub progress: Progress,
    /// For the status: the version that all nodes were seen to run.
    pub kubernetes_version: Option<String>,
    /// For the status: what each node was seen to run.
    pub nodes: Vec<NodeStatus>,
    files: BTreeMap<String, Vec<File>>,
    steps: Vec<Step>,
    etcd_restarts: BTreeMap<String, String>,
    turns: BTreeMap<String, String>,
}

/// How far a rollout is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is under way.
    Done,
    /// Something is.
    UnderWay {
        /// The reason of the condition.
        reason: &'static str,
        /// Which step, and what it waits for.
        message: String,
    },
}

/// One static pod on one node.
#[derive(Debug)]
struct Step {
    node: String,
    component: String,
    /// The manifest that belongs there in the end.
    wanted: String,
    /// The one that is written now.
    text: String,
    /// What it was last seen to run.
    proof: Option<ComponentStatus>,
    running: Running,
    /// The image of the pod that is there, whatever manifest it has.
    running_image: Option<String>,
}

/// What a target says of a static pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Running {
    /// It does not answer.
    Unknown,
    /// There is no such pod.
    Absent,
    /// There is one of another manifest.
    Other,
    /// There is the one that is written, and it is not Ready.
    NotReady,
    /// The one that is written is Ready.
    Ready,
}

impl Step {
    fn is_pending(&self) -> bool {
        self.text != self.wanted
    }

    /// Whether what is written was once seen to run.
    fn is_proven(&self) -> bool {
        self.running == Running::Ready
            || self.proof.as_ref().is_some_and(|proof| proof.manifest_checksum.as_ref() == Some(&checksum(&self.text)))
    }

    /// Whether what is written is on its way to a machine.
    fn is_under_way(&self) -> bool {
        let seen = matches!(self.running, Running::Other | Running::NotReady);
        !self.is_proven() && (seen || self.proof.is_some())
    }
}

impl Rollout {
    /// The files of a node that aren't secret, as they are to be written now.
    #[must_use]
    pub fn files(&self, node: &Node) -> &[File] {
        self.files.get(&node.name).map_or(&[], Vec::as_slice)
    }

    /// For which restart of its units it is the machine's turn, or was last; empty before the first.
    #[must_use]
    pub fn turn(&self, node: &Node) -> &str {
        self.turns.get(&node.name).map_or("", String::as_str)
    }

    /// For what the machine's agent is to start etcd anew, if it is that machine's turn.
    #[must_use]
    pub fn etcd_restart(&self, node: &Node) -> Option<&str> {
        self.etcd_restarts.get(&node.name).map(String::as_str)
    }
}

/// Decides what to write now.
#[must_use]
pub fn rollout(cluster: &Cluster, observed: &Observed) -> Rollout {
    let mut files: BTreeMap<_, _> =
        cluster.nodes.iter().map(|node| (node.name.clone(), wanted_files(cluster, node, observed))).collect();
    let mut steps: Vec<Step> = vec![];
    let mut held = None;
    let (mut etcd_restarts, mut turns) = (BTreeMap::new(), BTreeMap::new());
    let revoking = is_revoking_any(cluster, observed);
    let at_once = observed.at_once || revoking;
    for node in &cluster.nodes {
        let turn = units::turn(cluster, node, &steps, observed, at_once, &mut held);
        turns.extend(turn.map(|turn| (node.name.clone(), turn)));
        let secret = observed.secrets.get(&names::node_secret(&cluster.name, &node.name));
        for file in files.get_mut(&node.name).into_iter().flatten() {
            let Some(component) = component_of(file).map(str::to_owned) else { continue };
            let written = written(cluster, node, observed).and_then(|data| data.get(file.key.as_ref()));
            let mut step = step(node, &component, file, written, observed);
            // What a revoked authority or key holds together can't be waited for; all other changes are.
            let revoked = revoking.then(|| restart::marked(&component, &step.text, secret)).flatten();
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
                let turn = restart::etcds_turn(cluster, node, &step, &steps, observed, at_once, &mut held);
                etcd_restarts.extend(turn.map(|turn| (node.name.clone(), turn)));
            }
            steps.push(step);
        }
    }
    let proven = |node: &Node| {
        let mut of_node = steps.iter().filter(|step| step.node == node.name);
        of_node.all(|step| !step.is_pending() && step.is_proven())
            || cluster.restore != Restore::Expected && never_up(&node.name, observed)
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
        turns,
    }
}

/// The files as the spec has them; etcd's first flags are its own affair, and don't wait for other machines.
fn wanted_files(cluster: &Cluster, node: &Node, observed: &Observed) -> Vec<File> {
    let mut files = manifests::files(cluster, node, &initial_cluster::of(cluster, node, observed).flags);
    restart::mark(&mut files, cluster, node, observed);
    files
}

/// What a change of a node's ConfigMap does to static pods that were there before, for example
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

/// The name of a static pod is that of its file.
fn component_of(file: &File) -> Option<&str> {
    file.path.strip_prefix(MANIFESTS_DIRECTORY)?.strip_suffix(".yaml")
}

/// The node's ConfigMap as it is.
fn written<'a>(cluster: &Cluster, node: &Node, observed: &'a Observed) -> Option<&'a BTreeMap<String, String>> {
    observed.config_maps.get(&names::node_config_map(&cluster.name, &node.name))?.data.as_ref()
}

/// A component as it is before anything is decided: what is written is what was written before.
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

/// A change may be made at once where nothing that works can break. What comes from a backup, and what a revocation has just
/// written, is believed to run.
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

/// A machine of which nothing was ever seen, such as one that is yet to be started: nobody waits for it.
fn never_up(node: &str, observed: &Observed) -> bool {
    let proven = observed.status.nodes.iter().any(|other| other.name == node && !other.components.is_empty());
    let seen = observed.target.static_pods.iter().flatten().any(|((other, _), _)| other == node);
    !proven && !seen
}

/// The version in the kubeadm-config of the first node's ConfigMap.
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
