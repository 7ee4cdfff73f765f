use super::*;

fn noon() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

fn url(name: &str) -> String {
    format!("https://{name}:2380")
}

fn declared(name: &str, alive: Option<bool>) -> Declared {
    Declared { name: name.to_owned(), peer_url: url(name), alive }
}

/// Returns a voter; the number in its name is its id.
fn voter(name: &str, up: bool) -> Member {
    let id = name.trim_start_matches("cp").parse().unwrap();
    Member { id, name: name.to_owned(), peer_urls: vec![url(name)], learner: false, up, trouble: None }
}

fn learner(name: &str, started: bool, up: bool) -> Member {
    let mut learner = Member { learner: true, ..voter(name, up) };
    if !started {
        learner.name.clear();
    }
    learner
}

fn next(nodes: &[Declared], members: &[Member]) -> Action {
    let since = members.iter().map(|member| (member.id, noon())).collect();
    next_action(nodes, members, &since, noon())
}

fn added(action: &Action) -> &str {
    if let Action::AddLearner { node, .. } = action { node } else { panic!("{action:?}") }
}

fn removed(action: &Action) -> &str {
    if let Action::Remove { name, .. } = action { name } else { panic!("{action:?}") }
}

const ALIVE: Option<bool> = Some(true);
const SILENT: Option<bool> = Some(false);

#[test]
fn first_reachable_declared_node_joins_next() {
    let one = [voter("cp1", true)];
    let nodes = |cp2, cp3| [declared("cp1", None), declared("cp2", cp2), declared("cp3", cp3)];
    assert_eq!(added(&next(&nodes(ALIVE, ALIVE), &one)), "cp2");
    assert_eq!(added(&next(&nodes(SILENT, ALIVE), &one)), "cp3");
    assert_eq!(added(&next(&nodes(None, ALIVE), &one)), "cp3");
    assert_eq!(added(&next(&nodes(None, None), &one)), "cp2", "nothing is known: the declared order");
    let waits = next(&nodes(SILENT, SILENT), &one);
    assert_eq!(waits, Action::Wait(Wait::NodesUnreachable(vec!["cp2".to_owned(), "cp3".to_owned()])));
}

#[test]
fn adds_and_promotes_one_learner_at_a_time() {
    let nodes = [declared("cp1", None), declared("cp2", None), declared("cp3", ALIVE)];
    let with = |learner| next(&nodes, &[voter("cp1", true), learner]);
    assert_eq!(with(learner("cp2", false, false)), Action::Wait(Wait::LearnerNotStarted("cp2".to_owned())));
    assert_eq!(with(learner("cp2", true, false)), Action::Wait(Wait::LearnerDown("cp2".to_owned())));
    assert_eq!(with(learner("cp2", true, true)), Action::Promote { id: 2, name: "cp2".to_owned() });
    assert_eq!(added(&with(voter("cp2", true))), "cp3");
}

#[test]
fn replaces_a_learner_that_never_starts_by_a_reachable_node() {
    let members = [voter("cp1", true), learner("cp2", false, false)];
    let since = BTreeMap::from([(2, noon())]);
    let after = |minutes: i64, cp3| {
        let nodes = [declared("cp1", None), declared("cp2", None), declared("cp3", cp3)];
        next_action(&nodes, &members, &since, noon() + k8s_openapi::jiff::SignedDuration::from_mins(minutes))
    };
    assert_eq!(after(9, ALIVE), Action::Wait(Wait::LearnerNotStarted("cp2".to_owned())));
    assert_eq!(removed(&after(10, ALIVE)), "cp2");
    assert_eq!(after(10, SILENT), Action::Wait(Wait::LearnerNotStarted("cp2".to_owned())));
}

#[test]
fn removes_a_dead_member_before_and_a_live_one_after_replacement() {
    let nodes = [declared("cp1", None), declared("cp2", None), declared("cp4", ALIVE)];
    let members = |cp3| [voter("cp1", true), voter("cp2", true), voter("cp3", cp3)];
    assert_eq!(removed(&next(&nodes, &members(false))), "cp3");
    assert_eq!(added(&next(&nodes, &members(true))), "cp4");
    // The replacement has not started: the working member stays.
    let later = [declared("cp1", None), declared("cp2", None), declared("cp4", SILENT)];
    let stays = Wait::Replacing { member: "cp3".to_owned(), by: vec!["cp4".to_owned()] };
    assert_eq!(next(&later, &members(true)), Action::Wait(stays));
    let joined = [voter("cp1", true), voter("cp2", true), voter("cp3", true), voter("cp4", true)];
    assert_eq!(removed(&next(&nodes, &joined)), "cp3");
}

#[test]
fn keeps_an_undeclared_member_that_the_majority_needs() {
    let nodes = [declared("cp1", None), declared("cp2", None)];
    let members = [voter("cp1", true), voter("cp2", false), voter("cp3", true)];
    assert_eq!(next(&nodes, &members), Action::Wait(Wait::Needed("cp3".to_owned())));
}

#[test]
fn waits_without_a_majority_and_while_a_voter_is_down() {
    let nodes = [declared("cp1", None), declared("cp2", None), declared("cp3", ALIVE)];
    let lost = [voter("cp1", true), voter("cp2", false)];
    assert_eq!(next(&nodes, &lost), Action::Wait(Wait::NoMajority));
    assert_eq!(next(&nodes, &[]), Action::Wait(Wait::NoMajority));
    let nodes = [declared("cp1", None), declared("cp2", None), declared("cp3", None), declared("cp4", ALIVE)];
    let degraded = [voter("cp1", true), voter("cp2", true), voter("cp3", false)];
    assert_eq!(next(&nodes, &degraded), Action::Wait(Wait::VoterDown("cp3".to_owned())));
}

#[test]
fn node_with_the_address_of_a_leaving_member_waits() {
    let mut renamed = declared("cp9", ALIVE);
    renamed.peer_url = url("cp2");
    let nodes = [declared("cp1", None), renamed, declared("cp3", None)];
    let members = [voter("cp1", true), voter("cp2", true), voter("cp3", true)];
    assert_eq!(removed(&next(&nodes, &members)), "cp2");
}

#[test]
fn changed_declared_address_changes_no_member() {
    let mut moved = declared("cp2", ALIVE);
    moved.peer_url = url("elsewhere");
    for up in [true, false] {
        let nodes = [declared("cp1", None), moved.clone(), declared("cp3", None)];
        let members = [voter("cp1", true), voter("cp2", up), voter("cp3", true)];
        assert_eq!(next(&nodes, &members), Action::Wait(Wait::AddressChanged("cp2".to_owned())), "up: {up}");
    }
}

/// Adds one of the possible states of a node: declared or not, with a member of any kind or without one.
const STATES: usize = 14;

fn state(number: usize, name: &str, nodes: &mut Vec<Declared>, members: &mut Vec<Member>) {
    let member = match number % 7 {
        1 => Some(voter(name, true)),
        2 => Some(voter(name, false)),
        3 => Some(learner(name, false, false)),
        4 => Some(learner(name, true, false)),
        5 => Some(learner(name, true, true)),
        _ => None,
    };
    let alive = if number % 7 == 6 { SILENT } else { ALIVE };
    members.extend(member);
    if number >= 7 {
        nodes.push(declared(name, alive));
    }
}

/// Visits every state of five nodes with at most one learner, in two orders.
fn every_state(mut look: impl FnMut(&[Declared], &[Member])) -> usize {
    let mut looked_at = 0;
    for number in 0..STATES.pow(5) {
        let mut states: Vec<_> = (0..5).map(|place| number / STATES.pow(place) % STATES).collect();
        // Names are arbitrary: of the nodes' permutations two are enough.
        if !states.is_sorted() {
            continue;
        }
        for _ in 0..2 {
            states.reverse();
            let (mut nodes, mut members) = (vec![], vec![]);
            for (number, name) in states.iter().zip(["cp1", "cp2", "cp3", "cp4", "cp5"]) {
                state(*number, name, &mut nodes, &mut members);
            }
            if !nodes.is_empty() && members.iter().filter(|member| member.learner).count() <= 1 {
                looked_at += 1;
                look(&nodes, &members);
            }
        }
    }
    looked_at
}

/// Returns the members after etcd has executed the action.
fn after(action: &Action, members: &[Member]) -> Vec<Member> {
    let mut members = members.to_vec();
    match action {
        Action::AddLearner { node, .. } => members.push(learner(node, false, false)),
        Action::Promote { id, .. } => {
            members.iter_mut().filter(|member| member.id == *id).for_each(|member| member.learner = false);
        }
        Action::Remove { id, .. } => members.retain(|member| member.id != *id),
        Action::Wait(_) | Action::Done => {}
    }
    members
}

fn has_majority(members: &[Member]) -> bool {
    let voters: Vec<_> = members.iter().filter(|member| !member.learner).collect();
    voters.iter().filter(|voter| voter.up).count() >= majority(voters.len())
}

/// Checks the action in every state, so the result holds for every sequence of actions.
#[test]
fn actions_keep_majority_single_learner_and_declared_voters() {
    let looked_at = every_state(|nodes, members| {
        for late in [0, 11] {
            let since = members.iter().map(|member| (member.id, noon())).collect();
            let now = noon() + k8s_openapi::jiff::SignedDuration::from_mins(late);
            let action = next_action(nodes, members, &since, now);
            let then = after(&action, members);
            let reported = || format!("{action:?} in {members:?} with {nodes:?}");
            if then.len() != members.len() || matches!(action, Action::Promote { .. }) {
                assert!(has_majority(members), "a change without a majority: {}", reported());
                assert!(has_majority(&then), "no majority any more: {}", reported());
            }
            assert!(then.iter().filter(|member| member.learner).count() <= 1, "two learners: {}", reported());
            if let Action::Remove { id, .. } = &action {
                let member = members.iter().find(|member| member.id == *id).unwrap();
                let wanted = nodes.iter().any(|node| member.is_of(&node.name, &node.peer_url));
                assert!(!wanted || !member.has_started(), "a declared member was removed: {}", reported());
            }
        }
    });
    assert!(looked_at > 5_000, "only {looked_at} states");
}

/// Nodes that are up start their member.
#[test]
fn members_converge_to_declared_nodes_while_all_are_up() {
    every_state(|nodes, members| {
        let alive = nodes.iter().all(|node| node.alive == ALIVE) && members.iter().all(|m| m.up || !m.has_started());
        if !alive || !has_majority(members) {
            return;
        }
        let mut members = members.to_vec();
        for _ in 0..20 {
            for member in &mut members {
                if let Some(node) = nodes.iter().find(|node| member.is_of(&node.name, &node.peer_url)) {
                    (member.name, member.up) = (node.name.clone(), true);
                }
            }
            match next(nodes, &members) {
                Action::Done => break,
                action => members = after(&action, &members),
            }
        }
        let names = |mut names: Vec<String>| {
            names.sort();
            names
        };
        let (is, wanted) = (
            names(members.iter().map(|member| member.name.clone()).collect()),
            names(nodes.iter().map(|node| node.name.clone()).collect()),
        );
        assert_eq!(is, wanted);
        assert!(members.iter().all(|member| !member.learner));
    });
}
