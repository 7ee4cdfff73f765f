//! How the answers are summed up.

use keyplane_crds::OnViolation;

use super::*;
use crate::approval::{Answer, CLIENT_RULES, Case, Rule, SERVING_RULES, judge_by};

type Outcome = Result<(), Answer>;

#[allow(clippy::unnecessary_wraps, reason = "a rule has this signature")]
fn passes(_: &Case<'_>) -> Outcome {
    Ok(())
}
fn waits(_: &Case<'_>) -> Outcome {
    Err(Answer::wait("W", "w".to_owned()))
}
fn denies(_: &Case<'_>) -> Outcome {
    Err(Answer::deny("D", "d".to_owned()))
}
fn denies_too(_: &Case<'_>) -> Outcome {
    Err(Answer::deny("D2", "d".to_owned()))
}
fn cannot_judge(_: &Case<'_>) -> Outcome {
    Err(Answer::NotEvaluated)
}

fn sum_up(world: &World, rules: &'static [Rule]) -> Judgement {
    let facts = Facts {
        nodes: &Nodes::default(),
        declaration: &declaration("worker1", &world.cluster, &world.pools),
        reserved: &reserved(&world.cluster, &world.pools),
        terms: &Terms::default(),
        pools: &BTreeSet::new(),
        admitted: false,
        resolved: &world.resolved,
    };
    judge_by(rules, &world.request, &facts, world.now)
}

#[test]
fn the_gravest_answer_decides_and_the_first_among_equals() {
    const TABLE: &[Rule] = &[
        Rule::new("p", passes),
        Rule::new("w", waits),
        Rule::new("n", cannot_judge),
        Rule::new("d", denies),
        Rule::new("d2", denies_too),
    ];
    let judgement = sum_up(&World::new(), TABLE);
    assert_eq!((judgement.verdict, judgement.rule, judgement.reason), (Verdict::Deny, "d", "D"));
    assert_eq!(judgement.answers.len(), 5, "every rule is asked");
    assert!(judgement.violation);
}

#[test]
fn an_approval_needs_every_rule_and_at_least_one() {
    const OBJECTION_EXPLAINS: &[Rule] = &[Rule::new("n", cannot_judge), Rule::new("w", waits)];
    const NOT_ALL: &[Rule] = &[Rule::new("p", passes), Rule::new("n", cannot_judge), Rule::new("p2", passes)];
    let judgement = sum_up(&World::new(), NOT_ALL);
    assert_eq!((judgement.verdict, judgement.rule, judgement.reason), (Verdict::Wait, "n", "NotEvaluated"));
    assert_eq!(sum_up(&World::new(), &[]).verdict, Verdict::Wait);
    assert_eq!(sum_up(&World::new(), OBJECTION_EXPLAINS).rule, "w");
}

#[test]
fn a_policy_turns_deny_into_ignore_and_nothing_else() {
    let mut world = World::asked_for(&["kubernetes"], &[]);
    world.policy.kubelet_serving.on_violation = OnViolation::Ignore;
    world.is(Verdict::Ignore, "reserved-names", "ReservedName");
    assert!(world.judge().violation);
    let mut world = World::new();
    world.policy.kubelet_serving.on_violation = OnViolation::Ignore;
    world.is_approved();
    world.nodes.clear();
    world.waits("node", "NodeNotFound");
    assert!(!world.judge().violation);
}

#[test]
fn an_approval_says_what_was_checked() {
    let judgement = World::new().judge();
    assert_eq!((judgement.rule, judgement.reason), ("all", "AllRulesPassed"));
    assert_eq!(judgement.answers.len(), SERVING_RULES.len());
    assert!(judgement.answers.iter().all(|answer| answer.answer == Answer::Pass));
}

#[test]
fn the_names_of_the_rules_differ() {
    for rules in [SERVING_RULES, CLIENT_RULES] {
        let names: BTreeSet<&str> = rules.iter().map(|rule| rule.name).collect();
        assert_eq!(names.len(), rules.len());
    }
}

#[test]
fn a_message_is_short_and_plain_whatever_the_requester_writes() {
    let mut world = World::new();
    world.request.username = format!("system:node:\n\u{1b}[31m{}", "x".repeat(100_000));
    world.request.usages = vec!["\u{202e}".repeat(100_000)];
    for answer in world.judge().answers {
        if let Answer::Objection { reason, message, .. } = answer.answer {
            assert!(message.len() < 1000, "{}: {} bytes", answer.rule, message.len());
            assert!(!message.contains(['\n', '\u{1b}', '\u{202e}']), "{message}");
            assert!(reason.chars().all(|letter| letter.is_ascii_alphabetic()));
        }
    }
}
