//! Tests of the summary of all answers.

use keyplane_crds::OnViolation;

use super::*;
use crate::approval::{Answer, CLIENT_RULES, Case, Rule, SERVING_RULES, evaluate_rules};

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
fn also_denies(_: &Case<'_>) -> Outcome {
    Err(Answer::deny("D2", "d".to_owned()))
}
fn cannot_evaluate(_: &Case<'_>) -> Outcome {
    Err(Answer::NotEvaluated)
}

fn from_answers(world: &World, rules: &'static [Rule]) -> Evaluation {
    let facts = ApprovalFacts {
        nodes: &Nodes::default(),
        declaration: &declaration("worker1", &world.cluster, &world.pools),
        reserved: &reserved(&world.cluster, &world.pools),
        terms: &Terms::default(),
        pools: &BTreeSet::new(),
        admitted: false,
        resolved: &world.resolved,
    };
    evaluate_rules(rules, &world.request, &facts, world.now)
}

#[test]
fn most_severe_answer_decides_and_first_among_equals() {
    const TABLE: &[Rule] = &[
        Rule::new("p", passes),
        Rule::new("w", waits),
        Rule::new("n", cannot_evaluate),
        Rule::new("d", denies),
        Rule::new("d2", also_denies),
    ];
    let evaluation = from_answers(&World::new(), TABLE);
    assert_eq!((evaluation.verdict, evaluation.rule, evaluation.reason), (Verdict::Deny, "d", "D"));
    assert_eq!(evaluation.answers.len(), 5, "every rule is evaluated");
    assert!(evaluation.violation);
}

#[test]
fn approval_needs_all_rules_and_at_least_one() {
    const OBJECTION_EXPLAINS: &[Rule] = &[Rule::new("n", cannot_evaluate), Rule::new("w", waits)];
    const NOT_ALL: &[Rule] = &[Rule::new("p", passes), Rule::new("n", cannot_evaluate), Rule::new("p2", passes)];
    let evaluation = from_answers(&World::new(), NOT_ALL);
    assert_eq!((evaluation.verdict, evaluation.rule, evaluation.reason), (Verdict::Wait, "n", "NotEvaluated"));
    assert_eq!(from_answers(&World::new(), &[]).verdict, Verdict::Wait);
    assert_eq!(from_answers(&World::new(), OBJECTION_EXPLAINS).rule, "w");
}

#[test]
fn on_violation_ignore_changes_only_deny() {
    let mut world = World::requesting(&["kubernetes"], &[]);
    world.policy.kubelet_serving.on_violation = OnViolation::Ignore;
    world.is(Verdict::Ignore, "reserved-names", "ReservedName");
    assert!(world.evaluate().violation);
    let mut world = World::new();
    world.policy.kubelet_serving.on_violation = OnViolation::Ignore;
    world.is_approved();
    world.nodes.clear();
    world.waits("node", "NodeNotFound");
    assert!(!world.evaluate().violation);
}

#[test]
fn approval_message_names_checks() {
    let evaluation = World::new().evaluate();
    assert_eq!((evaluation.rule, evaluation.reason), ("all", "AllRulesPassed"));
    assert_eq!(evaluation.answers.len(), SERVING_RULES.len());
    assert!(evaluation.answers.iter().all(|answer| answer.answer == Answer::Pass));
}

#[test]
fn rule_names_are_unique() {
    for rules in [SERVING_RULES, CLIENT_RULES] {
        let names: BTreeSet<&str> = rules.iter().map(|rule| rule.name).collect();
        assert_eq!(names.len(), rules.len());
    }
}

#[test]
fn message_with_requester_text_is_escaped_and_short() {
    let mut world = World::new();
    world.request.username = format!("system:node:\n\u{1b}[31m{}", "x".repeat(100_000));
    world.request.usages = vec!["\u{202e}".repeat(100_000)];
    for answer in world.evaluate().answers {
        if let Answer::Objection { reason, message, .. } = answer.answer {
            assert!(message.len() < 1000, "{}: {} bytes", answer.rule, message.len());
            assert!(!message.contains(['\n', '\u{1b}', '\u{202e}']), "{message}");
            assert!(reason.chars().all(|letter| letter.is_ascii_alphabetic()));
        }
    }
}
