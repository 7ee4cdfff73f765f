//! Merges the answers of several etcd members.

use std::collections::{BTreeMap, BTreeSet};

use super::Member;

/// The answer of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The cluster id.
    pub cluster_id: u64,
    /// The member id.
    pub member_id: u64,
    /// Whether the member follows a leader or is the leader.
    pub has_leader: bool,
    /// Whether a majority has confirmed the list. Otherwise the list is this member's local copy.
    pub confirmed: bool,
    /// The members; empty from a learner, which can't list them.
    pub members: Vec<Listed>,
    /// The alarms, by the member that raised them.
    pub alarms: Vec<(u64, &'static str)>,
}

/// A member in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The id.
    pub id: u64,
    /// The name; empty before the first start.
    pub name: String,
    /// The peer URLs.
    pub peer_urls: Vec<String>,
    /// Whether the member is a learner.
    pub learner: bool,
}

/// The merged view of an etcd cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    /// No member answers.
    Silent,
    /// The members belong to different etcd clusters or disagree about the member list. The value has one entry per
    /// group.
    Split(Vec<String>),
    /// The members agree.
    Members {
        /// The members, by id.
        members: Vec<Member>,
        /// Whether a majority has confirmed the list.
        confirmed: bool,
    },
}

/// Merges the answers, which are keyed by node name.
#[must_use]
pub fn merge(answers: &BTreeMap<String, Answer>) -> View {
    // A first node that was recreated starts a separate etcd cluster. Its ids can be the same, because they are derived
    // from names and URLs. The member list differs.
    let mut groups: BTreeMap<(u64, BTreeSet<u64>), Vec<&str>> = BTreeMap::new();
    for (node, answer) in answers.iter().filter(|(_, answer)| answer.confirmed) {
        let ids = answer.members.iter().map(|member| member.id).collect();
        groups.entry((answer.cluster_id, ids)).or_default().push(node);
    }
    let clusters: BTreeSet<_> = answers.values().map(|answer| answer.cluster_id).collect();
    if groups.len() > 1 || clusters.len() > 1 {
        let groups: Vec<_> = if groups.len() > 1 {
            groups.into_values().map(|nodes| nodes.join(", ")).collect()
        } else {
            answers.iter().map(|(node, answer)| format!("{node} ({:x})", answer.cluster_id)).collect()
        };
        return View::Split(groups);
    }
    let lists = answers.values().filter(|answer| !answer.members.is_empty());
    let Some(best) = lists.max_by_key(|answer| answer.confirmed) else { return View::Silent };
    let alarms: BTreeSet<_> = answers.values().flat_map(|answer| answer.alarms.iter().copied()).collect();
    let mut members: Vec<_> = best
        .members
        .iter()
        .map(|listed| {
            let own = answers.values().find(|answer| answer.member_id == listed.id);
            let alarm = alarms.iter().find(|(id, _)| *id == listed.id);
            let trouble = match (own, alarm) {
                (None, _) if listed.name.is_empty() => Some("has not started".to_owned()),
                (None, _) => Some("does not answer".to_owned()),
                (Some(answer), _) if !answer.has_leader => Some("has no leader".to_owned()),
                (Some(_), Some((_, alarm))) => Some(format!("has the alarm {alarm}")),
                (Some(_), None) => None,
            };
            Member {
                id: listed.id,
                name: listed.name.clone(),
                peer_urls: listed.peer_urls.clone(),
                learner: listed.learner,
                up: own.is_some_and(|answer| answer.has_leader),
                trouble,
            }
        })
        .collect();
    members.sort_by_key(|member| member.id);
    View::Members { members, confirmed: best.confirmed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(own: u64, ids: &[u64]) -> Answer {
        let members = ids.iter().map(|id| Listed {
            id: *id,
            name: format!("cp{id}"),
            peer_urls: vec![format!("https://10.0.0.{id}:2380")],
            learner: false,
        });
        let members = members.collect();
        Answer { cluster_id: 7, member_id: own, has_leader: true, confirmed: true, members, alarms: vec![] }
    }

    fn view(answers: &[(&str, Answer)]) -> View {
        merge(&answers.iter().map(|(node, answer)| ((*node).to_owned(), answer.clone())).collect())
    }

    #[test]
    fn listed_member_without_an_answer_is_down() {
        let mut troubled = answer(2, &[1, 2, 3]);
        troubled.alarms = vec![(2, "NOSPACE")];
        let View::Members { members, confirmed } = view(&[("cp1", answer(1, &[1, 2, 3])), ("cp2", troubled)]) else {
            unreachable!()
        };
        let reported: Vec<_> = members.iter().map(|member| (member.up, member.trouble.as_deref())).collect();
        assert_eq!(reported, [(true, None), (true, Some("has the alarm NOSPACE")), (false, Some("does not answer"))]);
        assert!(confirmed);
        assert_eq!(view(&[]), View::Silent);
    }

    #[test]
    fn prefers_the_list_that_a_majority_has_confirmed() {
        let mut alone = answer(1, &[1]);
        (alone.confirmed, alone.has_leader) = (false, false);
        let View::Members { members, confirmed } = view(&[("cp1", alone), ("cp2", answer(2, &[1, 2]))]) else {
            unreachable!()
        };
        assert_eq!((members.len(), confirmed), (2, true));
        assert_eq!(members[0].trouble.as_deref(), Some("has no leader"));
    }

    #[test]
    fn reports_a_split_between_two_etcd_clusters() {
        let mut other = answer(9, &[9]);
        other.cluster_id = 8;
        assert!(matches!(view(&[("cp1", other), ("cp2", answer(2, &[2, 3]))]), View::Split(_)));
        // A recreated first node: all ids are the same, the list is not.
        let split = view(&[("cp1", answer(1, &[1])), ("cp2", answer(2, &[1, 2, 3])), ("cp3", answer(3, &[1, 2, 3]))]);
        assert_eq!(split, View::Split(vec!["cp1".to_owned(), "cp2, cp3".to_owned()]));
    }
}
