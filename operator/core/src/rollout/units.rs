//! Restart permits for the systemd units of control-plane nodes: the kubelet, and in the layout `Systemd` the
//! components.

use keyplane_crds::{keys, reasons};
use kube::ResourceExt;

use super::gate::{self, Wait};
use super::{Step, never_observed};
use crate::model::{Cluster, Node};
use crate::names;
use crate::observed::Observed;

/// Returns the current or last restart permit of the node. One node restarts at a time, and no other change happens
/// meanwhile. `before` are the steps of the previous nodes, and `held` is the condition that changes wait for.
/// `at_once` is for a cluster that is down anyway.
pub(super) fn restart_permit(
    cluster: &Cluster,
    node: &Node,
    before: &[Step],
    observed: &Observed,
    at_once: bool,
    held: &mut Option<Wait>,
) -> Option<String> {
    let config = observed.config_maps.get(&names::node_config_map(&cluster.name, &node.name));
    let last = config.and_then(|config| config.annotations().get(keys::RESTART_PERMIT_ANNOTATION)).cloned();
    let wanted = observed.agents.get(&node.name).and_then(|agent| agent.report.as_ref()?.restart.as_ref());
    let Some(wanted) = wanted else { return last };
    let is_under_way = last.as_ref() == Some(&wanted.mark);
    if !is_under_way && !at_once && !is_free(cluster, node, observed) {
        if held.is_none() {
            *held = wait(cluster, before, node, observed);
        }
        if held.is_some() {
            return last;
        }
    }
    held.get_or_insert_with(|| {
        let units = wanted.units.join(", ");
        Wait::new(reasons::WAITING_FOR_NODE_FILES, format!("the agent of {} to restart {units}", node.name))
    });
    Some(wanted.mark.clone())
}

/// Returns whether the restart need not wait because no working component can break: the cluster has a single node, or
/// the node is not Ready and the restart may be the fix.
fn is_free(cluster: &Cluster, node: &Node, observed: &Observed) -> bool {
    let is_ready = || observed.target.control_plane(cluster).and_then(|ready| ready.get(&node.name).copied());
    cluster.nodes.len() == 1 || is_ready() == Some(false)
}

fn wait(cluster: &Cluster, before: &[Step], node: &Node, observed: &Observed) -> Option<Wait> {
    let target = &observed.target;
    let (Some(Ok(())), Some(ready)) = (&target.available, target.control_plane(cluster)) else {
        return Some(gate::wait_for_target(cluster));
    };
    if let Some(wait) = gate::wait_for_changes(cluster, before) {
        return Some(wait);
    }
    let mut others = cluster.nodes.iter().filter(|other| other.name != node.name);
    // A node that was never observed does not count.
    let not_ready = others.clone().find(|other| match ready.get(&other.name) {
        Some(ready) => !ready,
        None => !never_observed(&other.name, observed),
    });
    if let Some(other) = not_ready {
        return Some(Wait::new(reasons::WAITING_FOR_NODE, format!("{} to be Ready", other.name)));
    }
    let is_unhealthy = |other: &&Node| {
        let mut members = target.confirmed_members().into_iter().flatten();
        members.any(|member| member.label() == other.name && (!member.up || member.learner))
    };
    let ailing = others.find(is_unhealthy)?;
    Some(Wait::new(reasons::WAITING_FOR_NODE, format!("etcd on {} to be a healthy voter", ailing.name)))
}
