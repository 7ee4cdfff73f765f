//! Decides on kubelet CSRs: evaluates a CSR with the observed Nodes, the declarations, the policy and the time.
//!
//! This module has no client, clock, randomness or logging. It parses CSRs ([`SigningRequest`], `Pkcs10`), keeps the
//! state of a cluster ([`Approver`]), contains the rules ([`SERVING_RULES`], [`CLIENT_RULES`]), and orders pending CSRs
//! ([`Queue`]). The controllers observe the cluster and write the verdicts.
//!
//! Every client that trusts the cluster CA also trusts a certificate of kubernetes.io/kubelet-serving, such as every
//! Pod that uses the API server. So the claims of a node (its CSR, its `status.addresses`) alone never put a name or an
//! address into a certificate. A user must have declared it in a `ClusterSpec`, a `NodePool` or a `CertificatePolicy`.
//!
//! All rules are evaluated, so that the result explains all problems. The most severe objection decides; among equals
//! the first one. A CSR is approved only if all rules pass.

mod approver;
mod declaration;
mod der;
mod facts;
mod names;
mod nodes;
mod pkcs10;
mod queue;
mod quota;
mod request;
mod reserved;
mod rules;
mod terms;
mod verdict;

#[cfg(test)]
mod tests;

pub use approver::Approver;
pub use declaration::{Declaration, Declarations};
pub use facts::{ApprovalFacts, Resolved};
pub use names::{DnsName, matches_pattern};
pub use nodes::{NodeFacts, Nodes};
pub use pkcs10::Pkcs10;
pub use queue::{Bucket, Limits, Queue, QueueEntry, Rate};
pub use request::{
    KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER, POOL_GROUP_PREFIX, Requester, Signer, SigningRequest,
};
pub use reserved::Reserved;
pub use rules::{CLIENT_RULES, Case, Rule, SERVING_RULES};
pub use terms::{NameRegex, SignerTerms, Terms, TermsError};
pub use verdict::{Answer, Evaluation, RuleAnswer, Verdict};

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::OnViolation;

/// Evaluates all rules for the signer of the request and returns the verdict.
#[must_use]
pub fn evaluate(request: &SigningRequest, facts: &ApprovalFacts<'_>, now: Timestamp) -> Evaluation {
    let rules = match request.signer() {
        Some(Signer::KubeletClient) => CLIENT_RULES,
        // The first rule objects to another signer.
        Some(Signer::KubeletServing) | None => SERVING_RULES,
    };
    evaluate_rules(rules, request, facts, now)
}

/// Evaluates a given set of rules, so that tests can check the summary of the answers alone.
fn evaluate_rules(
    rules: &'static [Rule],
    request: &SigningRequest,
    facts: &ApprovalFacts<'_>,
    now: Timestamp,
) -> Evaluation {
    let case = Case::new(request, facts, now);
    let mut answers: Vec<RuleAnswer> = Vec::with_capacity(rules.len());
    for rule in rules {
        let answer = rule.evaluate(&case);
        // A CSR outside the scope of Keyplane is not evaluated further, and never parsed.
        let ours = answer.verdict() != Verdict::Ignore;
        answers.push(RuleAnswer { rule: rule.name, answer });
        if !ours {
            break;
        }
    }
    let evaluation = Evaluation::from_answers(request.username.as_str(), answers);
    let Some(terms) = request.signer().map(|signer| facts.terms.of(signer)) else { return evaluation };
    let evaluation = Evaluation { dry_run: terms.dry_run, ..evaluation };
    match (evaluation.verdict, terms.on_violation) {
        (Verdict::Deny, OnViolation::Ignore) => Evaluation { verdict: Verdict::Ignore, ..evaluation },
        _ => evaluation,
    }
}
