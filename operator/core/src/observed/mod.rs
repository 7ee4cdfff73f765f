//! Observed state: a snapshot of the management cluster and of the target cluster that planning uses.

mod agent;
mod static_pod;

pub use agent::AgentFacts;
pub use static_pod::{StaticPod, image_of, tag_of, version_of};

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use keyplane_crds::keys::{self, CLUSTER_LABEL};
use keyplane_crds::{ClusterSpecStatus, reasons};
use kube::ResourceExt;

use super::names::{MANAGED_BY, MANAGED_BY_LABEL};
use crate::addons::{Addon, AddonState};
use crate::blocker::Blocker;
use crate::encryption;
use crate::etcd::Member;
use crate::manifests::systemd::PodRanges;
use crate::model::{Cluster, Version};
use crate::pki::CertificateFacts;
use crate::rotation::RotationFacts;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The metadata of the workers' ConfigMaps, by node.
pub type Workers = BTreeMap<String, ObjectMeta>;

/// The observed objects with names that Keyplane would write, whoever created them, and facts about the target cluster.
#[derive(Debug, Default)]
pub struct Observed {
    /// Secrets by name.
    pub secrets: BTreeMap<String, Secret>,
    /// ConfigMaps by name.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// The previous status.
    pub status: ClusterSpecStatus,
    /// The facts about the target cluster.
    pub target: TargetFacts,
    /// The facts about the agents, by node.
    pub agents: BTreeMap<String, AgentFacts>,
    /// The metadata of the workers' ConfigMaps, by node. The NodePool controller owns these ConfigMaps, so their data
    /// is not read here.
    pub workers: Workers,
    /// Whether changed static pods are written at once, regardless of the state of the target cluster.
    pub at_once: bool,
}

/// The observed state of the target cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetFacts {
    /// Whether the API server answers and contains the objects that Keyplane needs, or the condition's reason and
    /// message.
    pub available: Option<Result<(), (String, String)>>,
    /// The existing Nodes among the declared ones, and whether each is Ready. `None` while the target does not answer.
    pub nodes: Option<BTreeMap<String, bool>>,
    /// The Pod CIDRs of the Nodes. `None` while the target does not answer.
    pub pod_ranges: Option<PodRanges>,
    /// The control-plane nodes that are not registered as Node, and whether the API server of each answers /readyz at
    /// its own address. `None` while the target does not answer.
    pub api_servers: Option<BTreeMap<String, bool>>,
    /// The static pods of the control plane, by node and component. `None` while the target does not answer.
    pub static_pods: Option<BTreeMap<(String, String), StaticPod>>,
    /// The version that each Node's kubelet reports, workers included.
    pub kubelets: BTreeMap<String, String>,
    /// The certificate that each node's API server presents, for the nodes that answer.
    pub serving: BTreeMap<String, CertificateFacts>,
    /// The version in `kube-system/kubeadm-config`, if it is newer than the desired version.
    pub configured_ahead: Option<Version>,
    /// The add-ons. `None` while the target does not answer.
    pub addons: Option<BTreeMap<Addon, AddonState>>,
    /// The certificates that the servers accept and present, during a rotation.
    pub rotation: RotationFacts,
    /// The encryption configuration that the API servers have loaded, and the re-encryption, during a change.
    pub encryption: Option<encryption::Facts>,
    /// The members of etcd on the nodes, or the reason why they are unknown. `None` before etcd was contacted.
    pub etcd: Option<Result<EtcdFacts, String>>,
}

/// The membership of a target cluster's etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdFacts {
    /// The members.
    pub members: Vec<Member>,
    /// Whether a majority of the members has confirmed the list.
    pub confirmed: bool,
    /// The condition that the next membership change waits for.
    pub waits: Option<String>,
}

impl TargetFacts {
    /// Returns whether each control-plane node is Ready: the Node, or the API server if the node is not registered.
    /// `None` while that is unknown.
    #[must_use]
    pub fn control_plane(&self, cluster: &Cluster) -> Option<&BTreeMap<String, bool>> {
        if cluster.spec.control_plane.register_nodes { self.nodes.as_ref() } else { self.api_servers.as_ref() }
    }

    /// Returns the members of etcd if a majority has confirmed the list.
    #[must_use]
    pub fn confirmed_members(&self) -> Option<&[Member]> {
        let facts = self.etcd.as_ref()?.as_ref().ok()?;
        facts.confirmed.then_some(facts.members.as_slice())
    }

    /// Returns the nodes whose etcd member is not known to be a healthy voter.
    pub fn unhealthy_members<'a>(&'a self, cluster: &'a Cluster) -> impl Iterator<Item = &'a str> {
        let members = self.confirmed_members().unwrap_or_default();
        let is_healthy =
            |name: &str| members.iter().any(|member| member.label() == name && member.up && !member.learner);
        cluster.nodes.iter().map(|node| node.name.as_str()).filter(move |name| !is_healthy(name))
    }
}

/// The object with a name that Keyplane would write.
#[derive(Debug)]
pub enum Slot<'a, T> {
    /// No object exists.
    Free,
    /// The object belongs to Keyplane and to this cluster.
    Ours(&'a T),
    /// The object has another owner.
    Foreign(Blocker),
}

impl Observed {
    /// The Secret of that name.
    #[must_use]
    pub fn secret(&self, cluster: &str, name: &str) -> Slot<'_, Secret> {
        slot("Secret", cluster, name, self.secrets.get(name))
    }

    /// The ConfigMap of that name.
    #[must_use]
    pub fn config_map(&self, cluster: &str, name: &str) -> Slot<'_, ConfigMap> {
        slot("ConfigMap", cluster, name, self.config_maps.get(name))
    }
}

/// Decides ownership by labels and not by owner references. A ClusterSpec restored from a backup has another UID, and
/// its keys must neither be garbage-collected nor count as foreign.
fn slot<'a, T: ResourceExt>(kind: &str, cluster: &str, name: &str, object: Option<&'a T>) -> Slot<'a, T> {
    let Some(object) = object else { return Slot::Free };
    let is = |label: &str, value: &str| object.labels().get(label).is_some_and(|found| found == value);
    if is(MANAGED_BY_LABEL, MANAGED_BY) && is(keys::CLUSTER_LABEL, cluster) {
        return Slot::Ours(object);
    }
    Slot::Foreign(Blocker {
        reason: reasons::FOREIGN_OBJECT,
        message: format!(
            "{kind} {name} exists and does not belong to Keyplane (the labels {MANAGED_BY_LABEL}={MANAGED_BY} and \
             {CLUSTER_LABEL}={cluster} are missing), so it stays unchanged; rename or delete it, or choose another \
             name for the ClusterSpec"
        ),
    })
}
