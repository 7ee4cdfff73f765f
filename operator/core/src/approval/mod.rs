//! The approver: a kubelet's certificate request, facts about its node, a policy and the time give a verdict.
//!
//! A pure room: no client, no clock, no randomness, no logging. It owns how a request is read ([`SigningRequest`],
//! `Pkcs10`), what is known about a cluster ([`Approver`]), the rules ([`SERVING_RULES`], [`CLIENT_RULES`]) and whose turn
//! it is ([`Queue`]). It does not own where the facts come from, nor what is written back: `controllers/` gathers the one
//! and does the other.
//!
//! A certificate that kubernetes.io/kubelet-serving issues is trusted wherever the cluster's CA is, so by every Pod that
//! talks to the API server. Nothing that a node says of itself (its CSR, its `status.addresses`) is therefore enough to
//! get a name or an address into one: a person has to have declared it in a `ClusterSpec`, `NodePool` or
//! `CertificatePolicy`.
//!
//! Every rule is asked, so that an answer can be explained in full. The gravest objection decides; among equals the
//! first. A request is approved only if every rule passed.

mod approver;
mod declaration;
mod der;
mod facts;
mod names;
mod nodes;
mod pkcs10;
mod queue;
mod request;
mod reserved;
mod rules;
mod seats;
mod terms;
mod verdict;

#[cfg(test)]
mod tests;

pub use approver::Approver;
pub use declaration::{Declaration, Declarations};
pub use facts::{Facts, Resolved};
pub use names::{DnsName, matches_pattern};
pub use nodes::{NodeFacts, Nodes};
pub use pkcs10::Pkcs10;
pub use queue::{Bucket, Limits, Queue, Rate, Turn};
pub use request::{
    KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER, POOL_GROUP_PREFIX, Requester, Signer, SigningRequest,
};
pub use reserved::Reserved;
pub use rules::{CLIENT_RULES, Case, Rule, SERVING_RULES};
pub use terms::{NameRegex, SignerTerms, Terms, TermsError};
pub use verdict::{Answer, Judgement, RuleAnswer, Verdict};

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::OnViolation;

/// Asks every rule of the request's signer and sums up.
#[must_use]
pub fn judge(request: &SigningRequest, facts: &Facts<'_>, now: Timestamp) -> Judgement {
    let rules = match request.signer() {
        Some(Signer::KubeletClient) => CLIENT_RULES,
        // The first of them says so if the signer is another one.
        Some(Signer::KubeletServing) | None => SERVING_RULES,
    };
    judge_by(rules, request, facts, now)
}

/// [`judge`] with other rules, so that tests can look at the summing up alone.
fn judge_by(rules: &'static [Rule], request: &SigningRequest, facts: &Facts<'_>, now: Timestamp) -> Judgement {
    let case = Case::new(request, facts, now);
    let mut answers: Vec<RuleAnswer> = Vec::with_capacity(rules.len());
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
    let Some(terms) = request.signer().map(|signer| facts.terms.of(signer)) else { return judgement };
    let judgement = Judgement { dry_run: terms.dry_run, ..judgement };
    match (judgement.verdict, terms.on_violation) {
        (Verdict::Deny, OnViolation::Ignore) => Judgement { verdict: Verdict::Ignore, ..judgement },
        _ => judgement,
    }
}
