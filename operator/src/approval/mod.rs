//! The approver: a kubelet's serving CSR, facts about its node, a policy and the time give a verdict.
//!
//! A pure room: no client, no clock, no randomness, no logging. It owns how a request is read ([`SigningRequest`],
//! `Pkcs10`), what is known about the node that asks ([`Facts`]) and the rules ([`RULES`]). It does not own where the
//! facts come from, nor what is written back: `controllers/` gathers the one and does the other.
//!
//! A certificate that kubernetes.io/kubelet-serving issues is trusted wherever the cluster's CA is, so by every Pod that
//! talks to the API server. Nothing that a node says of itself (its CSR, its `status.addresses`) is therefore enough to
//! get a name or an address into one: a person has to have declared it in a `ClusterSpec` or `NodePool`.
//!
//! Every rule is asked, so that an answer can be explained in full. The gravest objection decides; among equals the
//! first. A request is approved only if every rule passed.

mod declaration;
mod der;
mod facts;
mod names;
mod pkcs10;
mod request;
mod reserved;
mod rules;
mod verdict;

#[cfg(test)]
mod tests;

pub use declaration::Declaration;
pub use facts::{Facts, NodeFacts};
pub use names::matches_pattern;
pub use request::{KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER, SigningRequest};
pub use reserved::Reserved;
pub use rules::{Case, RULES, Rule};
pub use verdict::{Answer, Judgement, RuleAnswer, Verdict};

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::OnViolation;

/// Asks every rule and sums up.
#[must_use]
pub fn judge(request: &SigningRequest, facts: &Facts<'_>, now: Timestamp) -> Judgement {
    judge_by(RULES, request, facts, now)
}

/// [`judge`] with other rules, so that tests can look at the summing up alone.
fn judge_by(rules: &'static [Rule], request: &SigningRequest, facts: &Facts<'_>, now: Timestamp) -> Judgement {
    let case = Case::new(request, facts, now);
    let mut answers: Vec<RuleAnswer> = vec![];
    for rule in rules {
        let answer = rule.ask(&case);
        // What is none of our business is not looked at further, least of all parsed.
        let ours = answer.verdict() != Verdict::Ignore;
        answers.push(RuleAnswer { rule: rule.name, answer });
        if !ours {
            break;
        }
    }
    let judgement = Judgement::sum_up(request.username.as_str(), answers);
    match (judgement.verdict, facts.policy.on_violation) {
        (Verdict::Deny, OnViolation::Ignore) => Judgement { verdict: Verdict::Ignore, ..judgement },
        _ => judgement,
    }
}
