//! The conditions that a change of a static pod waits for.

use super::{Progress, Running, Step, never_observed, pod};
use crate::model::Cluster;
use crate::names;
use crate::observed::{Observed, image_of, tag_of, version_of};
use keyplane_crds::reasons;

/// The reason and message of a change that waits.
pub(super) struct Wait {
    reason: &'static str,
    message: String,
}

impl Wait {
    pub(super) fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message }
    }
}

/// Returns the condition that the change of `step` waits for; `None` if the change is allowed now. `before` are the
/// previous steps, in order.
pub(super) fn wait(cluster: &Cluster, before: &[Step], step: &Step, observed: &Observed) -> Option<Wait> {
    let target = &observed.target;
    let (Some(Ok(())), Some(nodes), Some(_)) = (&target.available, &target.nodes, &target.static_pods) else {
        return Some(wait_for_target(cluster));
    };
    // kubeadm has upgraded the node, and the spec now has the same version. The whole node is adopted at once: if only
    // a part of its files were applied, the other components would return to the old version.
    let adopted = is_adopted(step);
    let counts = |earlier: &&Step| !(never_observed(&earlier.node, observed) || (adopted && earlier.node == step.node));
    // The latest change is reported first: if an API server does not start, the other pods of the node are not Ready
    // either.
    let (changed, others): (Vec<_>, Vec<_>) = before.iter().filter(counts).partition(|earlier| earlier.is_under_way());
    if let Some(message) = changed.into_iter().chain(others).find_map(|earlier| not_running(cluster, earlier)) {
        return Some(Wait::new(reasons::WAITING_FOR_NODE_FILES, message));
    }
    // The node itself need not be Ready: the change may be the fix.
    for node in cluster.nodes.iter().filter(|node| node.name != step.node && !never_observed(&node.name, observed)) {
        if nodes.get(&node.name) != Some(&true) {
            return Some(Wait::new(reasons::WAITING_FOR_NODE, format!("the Node {} to be Ready", node.name)));
        }
        // Every node runs the same components, so a missing pod counts as not Ready.
        let of_node = target.static_pods.iter().flatten().filter(|((other, _), _)| *other == node.name);
        let not_ready = of_node.filter(|(_, pod)| !pod.ready).map(|((_, component), _)| component);
        let missing = pod(&node.name, &step.component, observed).is_none().then_some(&step.component);
        if let Some(component) = not_ready.chain(missing).next() {
            return Some(Wait::new(reasons::WAITING_FOR_NODE, format!("{component} on {} to be Ready", node.name)));
        }
    }
    // After a power failure the Node stays Ready for most of a minute, but its etcd member is missing within seconds.
    // If the members can't be contacted, the Node's condition has to suffice.
    target.confirmed_members()?;
    ailing_member(cluster, step, observed)
}

/// Returns the wait condition for an etcd member on another node that is not a healthy voter.
fn ailing_member(cluster: &Cluster, step: &Step, observed: &Observed) -> Option<Wait> {
    let counts = |name: &&str| *name != step.node && !never_observed(name, observed);
    let ailing = observed.target.unhealthy_members(cluster).find(counts)?;
    Some(Wait::new(reasons::WAITING_FOR_NODE, format!("etcd on {ailing} to be a healthy voter")))
}

pub(super) fn wait_for_target(cluster: &Cluster) -> Wait {
    Wait::new(reasons::WAITING_FOR_TARGET, format!("the API server at {} to answer", cluster.endpoint))
}

/// Returns the wait condition for a change of a static pod that is not observed to run yet.
pub(super) fn wait_for_changes(cluster: &Cluster, before: &[Step]) -> Option<Wait> {
    let message = before.iter().filter(|step| step.is_under_way()).find_map(|step| not_running(cluster, step))?;
    Some(Wait::new(reasons::WAITING_FOR_NODE_FILES, message))
}

/// Returns the condition that an in-place restart of etcd waits for: those of a manifest change, and that all other
/// members are healthy.
pub(super) fn wait_for_restart(cluster: &Cluster, before: &[Step], step: &Step, observed: &Observed) -> Option<Wait> {
    if step.is_under_way() {
        return not_running(cluster, step).map(|message| Wait::new(reasons::WAITING_FOR_NODE_FILES, message));
    }
    wait(cluster, before, step, observed).or_else(|| ailing_member(cluster, step, observed))
}

/// Returns whether the node already runs the desired version.
fn is_adopted(step: &Step) -> bool {
    let running = step.running_image.as_deref().and_then(version_of);
    running.is_some() && running == version_of(&image_of(&step.wanted)) && running != version_of(&image_of(&step.text))
}

fn not_running(cluster: &Cluster, step: &Step) -> Option<String> {
    let Step { node, component, .. } = step;
    match step.running {
        Running::Ready => None,
        Running::NotReady => Some(format!("{component} on {node} to be Ready")),
        Running::Absent | Running::Unknown => Some(format!("{component} on {node}, which does not exist")),
        Running::Other => Some(format!(
            "{node} to run {component} with its current manifest: copy the files of ConfigMap {} to the node, or find \
             out why it does not start",
            names::node_config_map(&cluster.name, node)
        )),
    }
}

/// Returns the progress while a step waits.
pub(super) fn held(steps: &[Step], wait: &Wait) -> Progress {
    let next = steps.iter().find(|step| step.is_pending());
    let next = next.map(|step| format!(", next is {}", describe(step, &step.text))).unwrap_or_default();
    let message = format!("{} of {} steps are done{next}; waits for {}", done(steps), steps.len(), wait.message);
    Progress::UnderWay { reason: wait.reason, message }
}

/// Returns the progress while no step waits: the last step may not be observed to run yet.
pub(super) fn under_way(cluster: &Cluster, steps: &[Step]) -> Progress {
    let Some(step) = steps.iter().find(|step| step.is_under_way()) else { return Progress::Done };
    let before = step.running_image.clone().or_else(|| step.proof.as_ref().map(|proof| proof.image.clone()));
    let written = match before {
        Some(before) if tag_of(&before) != tag_of(&image_of(&step.wanted)) => between(step, &before),
        _ => format!("{}: {}", step.node, step.component),
    };
    let wait = not_running(cluster, step).unwrap_or_default();
    let message = format!("{} of {} steps are done, current is {written}; waits for {wait}", done(steps), steps.len());
    Progress::UnderWay { reason: reasons::WAITING_FOR_NODE_FILES, message }
}

fn done(steps: &[Step]) -> usize {
    steps.iter().filter(|step| !step.is_pending() && step.is_proven()).count()
}

/// Describes a change, for example `cp2: kube-apiserver v1.36.4 -> v1.37.2`.
fn describe(step: &Step, text: &str) -> String {
    let before = image_of(text);
    if before == image_of(&step.wanted) {
        return format!("{}: {} with another manifest", step.node, step.component);
    }
    between(step, &before)
}

fn between(step: &Step, before: &str) -> String {
    let after = image_of(&step.wanted);
    let tag = |image: &str| tag_of(image).unwrap_or(image).to_owned();
    format!("{}: {} {} -> {}", step.node, step.component, tag(before), tag(&after))
}
