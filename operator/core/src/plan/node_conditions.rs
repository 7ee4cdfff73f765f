//! What the status says of the control plane's machines: which of them is missing, and how they are spread.

use std::collections::BTreeMap;

use super::status::Outcome;
use crate::etcd::{Spread, majority, member_of, spread};
use crate::model::{Cluster, Node};
use crate::observed::Observed;
use keyplane_crds::reasons;

/// What a node lacks; the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lack {
    Leaving,
    Joining,
    EtcdMember,
    Ready,
    Everything,
}

impl Lack {
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

/// Whether every declared node is Ready, and its member of etcd a healthy voter.
pub(super) fn nodes_ready(cluster: &Cluster, observed: &Observed) -> Outcome {
    let target = &observed.target;
    let mut lacks: Vec<_> = cluster
        .nodes
        .iter()
        .filter_map(|node| lack(cluster, node, observed).map(|(lack, words)| (lack, format!("{}: {words}", node.name))))
        .collect();
    if let Some(Ok(facts)) = &target.etcd {
        let declared = |name: &str| cluster.nodes.iter().any(|node| node.name == name);
        let leaving = facts.members.iter().filter(|member| member.has_started() && !declared(&member.name));
        lacks.extend(leaving.map(|member| (Lack::Leaving, format!("{}: still a member of etcd", member.name))));
    }
    if let Some(reason) = lacks.iter().map(|(lack, _)| *lack).max().map(Lack::reason) {
        let waits = target.etcd.iter().flatten().filter_map(|facts| facts.waits.clone());
        let words: Vec<_> = lacks.into_iter().map(|(_, words)| words).chain(waits).collect();
        return Outcome::bad(reason, words.join("; "));
    }
    // One member has nobody to join; that its Node is Ready says enough.
    let has_members = cluster.external_etcd().is_none() && cluster.nodes.len() > 1;
    match (target.control_plane(cluster), &target.etcd) {
        (None, _) => Outcome::bad(reasons::NOT_CONTACTED, "the API server has not told of its Nodes"),
        (Some(_), Some(Err(why))) if has_members => Outcome::bad(reasons::ETCD_UNREACHABLE, why.clone()),
        (Some(_), None) if has_members => Outcome::bad(reasons::ETCD_NOT_CONTACTED, "etcd has not been asked yet"),
        (Some(_), Some(Ok(facts))) if facts.waits.is_some() => {
            Outcome::bad(reasons::ETCD_WAITING, facts.waits.clone().unwrap_or_default())
        }
        (Some(_), _) if !cluster.spec.control_plane.register_nodes => {
            Outcome::good(reasons::NODES_READY, "every API server answers at its own address")
        }
        (Some(_), _) => Outcome::good(reasons::NODES_READY, "every control-plane node is Ready"),
    }
}

fn lack(cluster: &Cluster, node: &Node, observed: &Observed) -> Option<(Lack, String)> {
    let nodes = observed.target.control_plane(cluster);
    let ready = nodes.map(|nodes| nodes.get(&node.name).copied());
    let of_the_node = match ready {
        Some(None) => Some("no Node"),
        Some(Some(false)) if !cluster.has_kubelet(node) => Some("its API server does not answer at its own address"),
        Some(Some(false)) => Some("the Node is not Ready"),
        Some(Some(true)) | None => None,
    };
    let of_etcd = etcd_lack(cluster, node, observed);
    let silent = of_etcd.as_ref().is_none_or(|(silent, _, _)| *silent);
    let lack = match (ready, &of_etcd) {
        (Some(None), _) => Lack::Everything,
        (Some(Some(false)), Some(_)) if silent => Lack::Everything,
        (Some(Some(false)), _) => Lack::Ready,
        (_, Some((_, lack, _))) => *lack,
        (_, None) => return None,
    };
    let words = [of_the_node.map(str::to_owned), of_etcd.map(|(_, _, words)| words)];
    Some((lack, words.into_iter().flatten().collect::<Vec<_>>().join(", ")))
}

/// What its member lacks, and whether there is nothing that answers.
fn etcd_lack(cluster: &Cluster, node: &Node, observed: &Observed) -> Option<(bool, Lack, String)> {
    let facts = observed.target.etcd.as_ref()?.as_ref().ok()?;
    if cluster.external_etcd().is_some() {
        return None;
    }
    let Some(member) = member_of(&facts.members, node) else {
        return Some((true, Lack::Joining, "not in etcd yet".to_owned()));
    };
    match &member.trouble {
        Some(trouble) if member.learner => Some((!member.up, Lack::Joining, format!("its etcd member {trouble}"))),
        Some(trouble) => Some((!member.up, Lack::EtcdMember, format!("its etcd member {trouble}"))),
        None if member.learner => Some((false, Lack::Joining, "its etcd member has no vote yet".to_owned())),
        None => None,
    }
}

/// Whether the loss of one failure domain leaves the control plane working; nothing where none is declared.
pub(super) fn spread_across_failure_domains(cluster: &Cluster) -> Option<Outcome> {
    let count = cluster.nodes.len();
    Some(match spread(cluster)? {
        Spread::Even => {
            Outcome::good(reasons::SPREAD, "the loss of any one failure domain leaves the control plane working")
        }
        Spread::Undeclared(nodes) => Outcome::bad(
            reasons::NOT_ALL_DECLARED,
            format!("write failureDomain for {} too: it can't be known what fails with what", nodes.join(", ")),
        ),
        Spread::Uneven { nodes, most: 0, .. } if cluster.external_etcd().is_none() => Outcome::bad(
            reasons::TOO_FEW_NODES,
            format!(
                "{nodes} of {count} members of etcd can't be lost: {} are a majority; declare three nodes in three failure \
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
                    "the control plane ends with {domain}, which has {nodes} of {count} nodes in {} failure domain(s): \
                     have at most {most} in each",
                    domains.len()
                ),
            )
        }
    })
}
