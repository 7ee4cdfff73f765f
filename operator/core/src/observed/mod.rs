//! What there is.

mod agent;
mod static_pod;

pub use agent::AgentFacts;
pub use static_pod::{StaticPod, image_of, tag_of, version_of};

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use keyplane_crds::{
    ClusterSpecStatus,
    keys::{self, CLUSTER_LABEL},
    reasons,
};
use kube::ResourceExt;

use super::names::{MANAGED_BY, MANAGED_BY_LABEL};
use crate::addons::{Addon, AddonFacts};
use crate::blocker::Blocker;
use crate::encryption;
use crate::etcd::Member;
use crate::manifests::systemd::PodRanges;
use crate::model::{Cluster, Version};
use crate::pki::CertificateFacts;
use crate::rotation::RotationFacts;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The metadata of the workers' ConfigMaps, by machine.
pub type Workers = BTreeMap<String, ObjectMeta>;

/// The objects that bear the names that Keyplane would write, whoever made them.
#[derive(Debug, Default)]
pub struct Observed {
    /// Secrets by name.
    pub secrets: BTreeMap<String, Secret>,
    /// ConfigMaps by name.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// The status before: what Keyplane once knew to be there.
    pub status: ClusterSpecStatus,
    /// What the target said.
    pub target: TargetFacts,
    /// What is known of the agents, by machine.
    pub agents: BTreeMap<String, AgentFacts>,
    /// The metadata of the ConfigMaps of workers, by machine. They are the NodePools' controller's, so what is in them is
    /// not read here.
    pub workers: Workers,
    /// Changed static pods are to be written at once, whatever the target says.
    pub at_once: bool,
}

/// What the target cluster said of itself, as far as it was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetFacts {
    /// Whether its API server answers and holds what Keyplane needs; the reason and message where not.
    pub available: Option<Result<(), (String, String)>>,
    /// The declared Nodes that it knows, and whether each is Ready. Nothing while it does not answer.
    pub nodes: Option<BTreeMap<String, bool>>,
    /// The ranges of Pod addresses that its Nodes have. Nothing while it does not answer.
    pub pod_ranges: Option<PodRanges>,
    /// The control-plane machines that are no Nodes, and whether the API server of each answers /readyz at its own
    /// address. Nothing while the target does not answer.
    pub api_servers: Option<BTreeMap<String, bool>>,
    /// The static pods of the control plane, by node and component. Nothing while it does not answer.
    pub static_pods: Option<BTreeMap<(String, String), StaticPod>>,
    /// The version that each Node's kubelet reports, workers' too.
    pub kubelets: BTreeMap<String, String>,
    /// The certificate that each node's API server presents, as far as it could be asked.
    pub serving: BTreeMap<String, CertificateFacts>,
    /// The version in `kube-system/kubeadm-config`, if it is newer than what belongs there.
    pub configured_ahead: Option<Version>,
    /// The add-ons, once they were looked at; nothing while it does not answer.
    pub addons: Option<BTreeMap<Addon, AddonFacts>>,
    /// What its servers were seen to accept and to present, while something is rotated.
    pub rotation: RotationFacts,
    /// What its API servers have loaded of the encryption configuration, and what was written anew, while that changes.
    pub encryption: Option<encryption::Facts>,
    /// Who is in its etcd, if that is on the nodes; why nobody knows where it can't be said. Nothing before it was asked.
    pub etcd: Option<Result<EtcdFacts, String>>,
}

/// Who is in a target's etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdFacts {
    /// The members.
    pub members: Vec<Member>,
    /// Whether a majority of them has confirmed the list.
    pub confirmed: bool,
    /// What its membership waits for.
    pub waits: Option<String>,
}

impl TargetFacts {
    /// Whether each machine of the control plane is Ready: its Node, or where it is none, its API server. Nothing while
    /// nobody knows.
    #[must_use]
    pub fn control_plane(&self, cluster: &Cluster) -> Option<&BTreeMap<String, bool>> {
        if cluster.spec.control_plane.register_nodes { self.nodes.as_ref() } else { self.api_servers.as_ref() }
    }

    /// The members of etcd, if a majority of them says so.
    #[must_use]
    pub fn confirmed_members(&self) -> Option<&[Member]> {
        let facts = self.etcd.as_ref()?.as_ref().ok()?;
        facts.confirmed.then_some(facts.members.as_slice())
    }

    /// The nodes whose member of etcd is not known to be a healthy voter.
    pub fn ailing_members<'a>(&'a self, cluster: &'a Cluster) -> impl Iterator<Item = &'a str> {
        let members = self.confirmed_members().unwrap_or_default();
        let is_healthy =
            |name: &str| members.iter().any(|member| member.label() == name && member.up && !member.learner);
        cluster.nodes.iter().map(|node| node.name.as_str()).filter(move |name| !is_healthy(name))
    }
}

/// An object under a name that Keyplane would write.
#[derive(Debug)]
pub enum Slot<'a, T> {
    /// There is none.
    Free,
    /// It is Keyplane's, for this cluster.
    Ours(&'a T),
    /// It is somebody else's.
    Foreign(Blocker),
}

impl Observed {
    pub fn secret(&self, cluster: &str, name: &str) -> Slot<'_, Secret> {
        slot("Secret", cluster, name, self.secrets.get(name))
    }

    pub fn config_map(&self, cluster: &str, name: &str) -> Slot<'_, ConfigMap> {
        slot("ConfigMap", cluster, name, self.config_maps.get(name))
    }
}

/// Ownership is told by labels and not by owner references: a ClusterSpec that comes back from a backup has another
/// UID, and its keys must neither be collected as garbage nor be taken for a stranger's.
fn slot<'a, T: ResourceExt>(kind: &str, cluster: &str, name: &str, object: Option<&'a T>) -> Slot<'a, T> {
    let Some(object) = object else { return Slot::Free };
    let is = |label: &str, value: &str| object.labels().get(label).is_some_and(|found| found == value);
    if is(MANAGED_BY_LABEL, MANAGED_BY) && is(keys::CLUSTER_LABEL, cluster) {
        return Slot::Ours(object);
    }
    Slot::Foreign(Blocker {
        reason: reasons::FOREIGN_OBJECT,
        message: format!(
            "{kind} {name} exists and is not Keyplane's (it lacks the labels {MANAGED_BY_LABEL}={MANAGED_BY} and \
             {CLUSTER_LABEL}={cluster}): it is left alone; rename or delete it, or choose another name for the ClusterSpec"
        ),
    })
}
