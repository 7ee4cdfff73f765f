//! What there is.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use keyplane_crds::{CLUSTER_LABEL, ClusterSpecStatus};
use kube::ResourceExt;

use super::Blocker;
use super::objects::{MANAGED_BY, MANAGED_BY_LABEL};

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
}

/// What the target cluster said of itself, as far as it was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetFacts {
    /// Whether its API server answers and holds what Keyplane needs; the reason and message where not.
    pub available: Option<Result<(), (String, String)>>,
    /// The control-plane Nodes that it knows, and whether each is Ready. Nothing while it does not answer.
    pub nodes: Option<BTreeMap<String, bool>>,
    /// For each NodePool with a kubelet's request that has waited for long: a condition's reason and message. Nothing while
    /// it is not known.
    pub waiting: Option<BTreeMap<String, (String, String)>>,
}

/// An object under a name that Keyplane would write.
#[derive(Debug)]
pub(super) enum Slot<'a, T> {
    /// There is none.
    Free,
    /// It is Keyplane's, for this cluster.
    Ours(&'a T),
    /// It is somebody else's.
    Foreign(Blocker),
}

impl Observed {
    pub(super) fn secret(&self, cluster: &str, name: &str) -> Slot<'_, Secret> {
        slot("Secret", cluster, name, self.secrets.get(name))
    }

    pub(super) fn config_map(&self, cluster: &str, name: &str) -> Slot<'_, ConfigMap> {
        slot("ConfigMap", cluster, name, self.config_maps.get(name))
    }
}

/// Ownership is told by labels and not by owner references: a ClusterSpec that comes back from a backup has another
/// UID, and its keys must neither be collected as garbage nor be taken for a stranger's.
fn slot<'a, T: ResourceExt>(kind: &str, cluster: &str, name: &str, object: Option<&'a T>) -> Slot<'a, T> {
    let Some(object) = object else { return Slot::Free };
    let is = |label: &str, value: &str| object.labels().get(label).is_some_and(|found| found == value);
    if is(MANAGED_BY_LABEL, MANAGED_BY) && is(CLUSTER_LABEL, cluster) {
        return Slot::Ours(object);
    }
    Slot::Foreign(Blocker {
        reason: "ForeignObject",
        message: format!(
            "{kind} {name} exists and is not Keyplane's (it lacks the labels {MANAGED_BY_LABEL}={MANAGED_BY} and \
             {CLUSTER_LABEL}={cluster}): it is left alone; rename or delete it, or choose another name for the ClusterSpec"
        ),
    })
}
