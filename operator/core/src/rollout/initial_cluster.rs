//! The initial flags of etcd on a node, computed from the stored flags and the members of etcd.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use keyplane_crds::keys;
use kube::ResourceExt;

use crate::etcd::{self, InitialCluster, Known, Stored};
use crate::model::{Cluster, Node};
use crate::names;
use crate::observed::{Observed, Slot};

/// Returns the flags for a node, and the known state of its member.
pub(crate) fn of(cluster: &Cluster, node: &Node, observed: &Observed) -> Stored {
    let written: BTreeMap<_, _> =
        cluster.nodes.iter().filter_map(|node| Some((node.name.as_str(), stored(cluster, node, observed)?))).collect();
    etcd::initial_cluster(cluster, node, observed.target.confirmed_members(), |node| written.get(node.name.as_str()))
}

/// Returns the stored flags of a node.
fn stored(cluster: &Cluster, node: &Node, observed: &Observed) -> Option<Stored> {
    let name = names::node_config_map(&cluster.name, &node.name);
    let Slot::Ours(config_map) = observed.config_map(&cluster.name, &name) else { return None };
    let annotation = |name: &str| config_map.annotations().get(name).map(String::as_str);
    match (annotation(keys::ETCD_INITIAL_CLUSTER_ANNOTATION), annotation(keys::ETCD_MEMBER_ANNOTATION)) {
        (Some(flags), Some(known)) => {
            Some(Stored { flags: InitialCluster::parse(flags)?, known: Known::parse(known)? })
        }
        _ => from_manifest(config_map),
    }
}

/// Returns the flags from a manifest without annotations. Such nodes all started together, and their flags stay.
fn from_manifest(config_map: &ConfigMap) -> Option<Stored> {
    let manifest = config_map.data.as_ref()?.get("etcd.yaml")?;
    let flag = |name: &str| {
        let mut lines = manifest.lines().map(|line| line.trim().trim_start_matches("- ").trim_matches(['"', '\'']));
        lines.find_map(|line| line.strip_prefix(name)).map(str::to_owned)
    };
    let existing = flag("--initial-cluster-state=").is_some_and(|state| state == "existing");
    let flags = InitialCluster { existing, members: flag("--initial-cluster=")? };
    Some(Stored { flags, known: Known::Started })
}
