//! Conditions about the control-plane nodes: readiness, and spread across failure domains.

use std::collections::BTreeMap;

use super::Outcome;
use crate::etcd::{Spread, majority, member_of, spread};
use crate::model::{Cluster, Node};
use crate::observed::Observed;
use keyplane_crds::reasons;

/// A problem of a node; the most severe last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum NodeProblem {
    Leaving,
    Joining,
    EtcdMember,
    Ready,
    Everything,
}

impl NodeProblem {
    const fn reason(self) -> &'static str {
        match self {
            Self::Leaving => reasons::ETCD_MEMBER_LEAVING,
            Self::Joining => reasons::ETCD_MEMBER_JOINING,
            Self::EtcdMember => reasons::ETCD_MEMBER_UNHEALTHY,
            Self::Ready => reasons::NODE_NOT_READY,
            Self::Everything => reasons::NODE_MISSING,
        }
    }
}

/// Returns whether every declared node is Ready and its etcd member is a healthy voter.
pub(super) fn nodes_ready(cluster: &Cluster, observed: &Observed) -> Outcome {
    let target = &observed.target;
    let mut problems: Vec<_> = cluster
        .nodes
        .iter()
        .filter_map(|node| {
            problem(cluster, node, observed).map(|(problem, words)| (problem, format!("{}: {words}", node.name)))
        })
        .collect();
    if let Some(Ok(facts)) = &target.etcd {
        let declared = |name: &str| cluster.nodes.iter().any(|node| node.name == name);
        let leaving = facts.members.iter().filter(|member| member.has_started() && !declared(&member.name));
        problems
            .extend(leaving.map(|member| (NodeProblem::Leaving, format!("{}: still a member of etcd", member.name))));
    }
    if let Some(reason) = problems.iter().map(|(problem, _)| *problem).max().map(NodeProblem::reason) {
        let waits = target.etcd.iter().flatten().filter_map(|facts| facts.waits.clone());
        let words: Vec<_> = problems.into_iter().map(|(_, words)| words).chain(waits).collect();
        return Outcome::bad(reason, words.join("; "));
    }
    // A single member has no peers; a Ready Node is sufficient.
    let has_members = cluster.external_etcd().is_none() && cluster.nodes.len() > 1;
    match (target.control_plane(cluster), &target.etcd) {
        (None, _) => Outcome::bad(reasons::NOT_CONTACTED, "the API server has not listed its Nodes yet"),
        (Some(_), Some(Err(why))) if has_members => Outcome::bad(reasons::ETCD_UNREACHABLE, why.clone()),
        (Some(_), None) if has_members => Outcome::bad(reasons::ETCD_NOT_CONTACTED, "etcd has not been contacted yet"),
        (Some(_), Some(Ok(facts))) if facts.waits.is_some() => {
            Outcome::bad(reasons::ETCD_WAITING, facts.waits.clone().unwrap_or_default())
        }
        (Some(_), _) if !cluster.spec.control_plane.register_nodes => {
            Outcome::good(reasons::NODES_READY, "every API server answers at its own address")
        }
        (Some(_), _) => Outcome::good(reasons::NODES_READY, "every control-plane node is Ready"),
    }
}

fn problem(cluster: &Cluster, node: &Node, observed: &Observed) -> Option<(NodeProblem, String)> {
    let nodes = observed.target.control_plane(cluster);
    let ready = nodes.map(|nodes| nodes.get(&node.name).copied());
    let of_the_node = match ready {
        Some(None) => Some("the Node does not exist"),
        Some(Some(false)) if !cluster.has_kubelet(node) => Some("its API server does not answer at its own address"),
        Some(Some(false)) => Some("the Node is not Ready"),
        Some(Some(true)) | None => None,
    };
    let of_etcd = etcd_problem(cluster, node, observed);
    let silent = of_etcd.as_ref().is_none_or(|(silent, _, _)| *silent);
    let problem = match (ready, &of_etcd) {
        (Some(None), _) => NodeProblem::Everything,
        (Some(Some(false)), Some(_)) if silent => NodeProblem::Everything,
        (Some(Some(false)), _) => NodeProblem::Ready,
        (_, Some((_, problem, _))) => *problem,
        (_, None) => return None,
    };
    let words = [of_the_node.map(str::to_owned), of_etcd.map(|(_, _, words)| words)];
    Some((problem, words.into_iter().flatten().collect::<Vec<_>>().join(", ")))
}

/// Returns the problem of the node's etcd member, and whether the member does not answer at all.
fn etcd_problem(cluster: &Cluster, node: &Node, observed: &Observed) -> Option<(bool, NodeProblem, String)> {
    let facts = observed.target.etcd.as_ref()?.as_ref().ok()?;
    if cluster.external_etcd().is_some() {
        return None;
    }
    let Some(member) = member_of(&facts.members, node) else {
        return Some((true, NodeProblem::Joining, "not in etcd yet".to_owned()));
    };
    match &member.trouble {
        Some(trouble) if member.learner => {
            Some((!member.up, NodeProblem::Joining, format!("its etcd member {trouble}")))
        }
        Some(trouble) => Some((!member.up, NodeProblem::EtcdMember, format!("its etcd member {trouble}"))),
        None if member.learner => Some((false, NodeProblem::Joining, "its etcd member is still a learner".to_owned())),
        None => None,
    }
}

/// Returns whether the control plane survives the loss of one failure domain; `None` if no failure domain is declared.
pub(super) fn spread_across_failure_domains(cluster: &Cluster) -> Option<Outcome> {
    let count = cluster.nodes.len();
    Some(match spread(cluster)? {
        Spread::Even => Outcome::good(reasons::SPREAD, "the control plane survives the loss of any one failure domain"),
        Spread::Undeclared(nodes) => Outcome::bad(
            reasons::NOT_ALL_DECLARED,
            format!("failureDomain is not set for {}: set it for every control-plane node", nodes.join(", ")),
        ),
        Spread::Uneven { nodes, most: 0, .. } if cluster.external_etcd().is_none() => Outcome::bad(
            reasons::TOO_FEW_NODES,
            format!(
                "etcd can't lose {nodes} of {count} members: the majority is {}; declare three nodes in three failure \
                 domains",
                majority(count)
            ),
        ),
        Spread::Uneven { domain, nodes, most } => {
            let domains: BTreeMap<_, _> =
                cluster.nodes.iter().map(|node| (node.failure_domain.as_deref(), node.name.as_str())).collect();
            Outcome::bad(
                reasons::DOMAIN_HOLDS_MAJORITY,
                format!(
                    "the control plane does not survive the loss of {domain}, which has {nodes} of {count} nodes in {} \
                     failure domain(s): place at most {most} in each",
                    domains.len()
                ),
            )
        }
    })
}
