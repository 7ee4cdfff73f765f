//! The rules, one table for each signer.

mod addresses;
mod client;
mod identity;
mod policy;
mod request;
mod sans;
mod scope;

use std::cell::OnceCell;
use std::net::IpAddr;

use k8s_openapi::jiff::Timestamp;

use super::names::{DnsName, address_of_octets};
use super::pkcs10::{Pkcs10, Pkcs10Error, San};
use super::request::{Requester, Signer, node_of_subject};
use super::terms::SignerTerms;
use super::{Answer, ApprovalFacts, SigningRequest};

/// The result of a rule: success, or an answer other than `Pass`.
type Outcome = Result<(), Answer>;

/// A rule: a pure function with a name.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The name in the output of `csr explain`.
    pub name: &'static str,
    /// The function.
    evaluate: fn(&Case<'_>) -> Outcome,
}

impl Rule {
    pub(super) const fn new(name: &'static str, evaluate: fn(&Case<'_>) -> Outcome) -> Self {
        Self { name, evaluate }
    }

    /// Evaluates the rule.
    #[must_use]
    pub fn evaluate(&self, case: &Case<'_>) -> Answer {
        (self.evaluate)(case).err().unwrap_or(Answer::Pass)
    }
}

/// The rules for serving certificates, in the order of evaluation.
pub const SERVING_RULES: &[Rule] = &[
    // Scope.
    Rule::new("signer", scope::signer),
    Rule::new("open", scope::open),
    Rule::new("enabled", scope::enabled),
    Rule::new("age", scope::age),
    // Identity of the requester.
    Rule::new("requester", identity::requester),
    Rule::new("groups", identity::groups),
    // Form of the request.
    Rule::new("encoding", request::encoding),
    Rule::new("attributes", request::attributes),
    Rule::new("extensions", request::extensions),
    Rule::new("key", request::key),
    Rule::new("signature", request::signature),
    // Subject and usages.
    Rule::new("subject", identity::subject),
    Rule::new("organization", identity::organization),
    Rule::new("common-name", identity::common_name),
    Rule::new("usages", request::serving_usages),
    Rule::new("expiration", request::expiration),
    // Requested names and addresses.
    Rule::new("san-kinds", sans::kinds),
    Rule::new("san-names", sans::names),
    Rule::new("san-addresses", sans::addresses),
    // After the rules with more precise messages.
    Rule::new("canonical", request::canonical),
    Rule::new("reserved-names", sans::reserved_names),
    Rule::new("reserved-ranges", addresses::reserved_ranges),
    Rule::new("reserved-addresses", addresses::reserved),
    // Declaration by the user, and status of the Node.
    Rule::new("declared", addresses::node_declared),
    Rule::new("declared-names", sans::declared_names),
    Rule::new("declared-addresses", addresses::declared),
    Rule::new("policy-names", policy::names),
    Rule::new("policy-addresses", policy::addresses),
    Rule::new("node", addresses::node),
    Rule::new("max-nodes", addresses::max_nodes),
    Rule::new("node-names", sans::node_names),
    Rule::new("node-addresses", addresses::reported),
    // Last, so that CSRs that are denied anyway cause no DNS lookups.
    Rule::new("forward-resolution", policy::forward_resolution),
];

/// The rules for client certificates, in the order of evaluation.
pub const CLIENT_RULES: &[Rule] = &[
    Rule::new("signer", scope::signer),
    Rule::new("open", scope::open),
    Rule::new("enabled", scope::enabled),
    Rule::new("age", scope::age),
    Rule::new("requester", client::requester),
    Rule::new("groups", client::groups),
    Rule::new("encoding", request::encoding),
    Rule::new("no-names", client::no_names),
    Rule::new("key", request::key),
    Rule::new("signature", request::signature),
    Rule::new("subject", identity::subject),
    Rule::new("organization", identity::organization),
    Rule::new("common-name", client::common_name),
    Rule::new("usages", request::client_usages),
    Rule::new("expiration", request::expiration),
    Rule::new("canonical", request::canonical),
    Rule::new("reserved-names", client::reserved_name),
    Rule::new("reserved-ranges", addresses::reserved_ranges),
    Rule::new("token-pool", client::token_pool),
    Rule::new("declared", addresses::node_declared),
    Rule::new("declared-by-pool", client::declared_by_pool),
    Rule::new("node", client::node),
    Rule::new("max-nodes", addresses::max_nodes),
];

/// A CSR with the input of the rules.
#[derive(Debug)]
pub struct Case<'a> {
    request: &'a SigningRequest,
    facts: &'a ApprovalFacts<'a>,
    now: Timestamp,
    pkcs10: OnceCell<Result<Pkcs10, Pkcs10Error>>,
}

impl<'a> Case<'a> {
    /// Returns a case. Parsing happens on demand.
    #[must_use]
    pub fn new(request: &'a SigningRequest, facts: &'a ApprovalFacts<'a>, now: Timestamp) -> Self {
        Self { request, facts, now, pkcs10: OnceCell::new() }
    }

    fn parsed(&self) -> &Result<Pkcs10, Pkcs10Error> {
        self.pkcs10.get_or_init(|| Pkcs10::parse(&self.request.request))
    }

    /// Returns the PKCS #10 request. Rule `encoding` objects if it is invalid.
    fn pkcs10(&self) -> Result<&Pkcs10, Answer> {
        self.parsed().as_ref().map_err(|_| Answer::NotEvaluated)
    }

    /// Returns the node name of the requester, or for a client CSR of a bootstrap token the node name in the subject.
    /// Rule `requester` or `common-name` objects if there is none.
    fn node_name(&self) -> Result<&str, Answer> {
        let name = match (self.request.requester(), self.request.signer()) {
            (Some(Requester::Node(name)), _) => Some(name),
            (Some(Requester::Token), Some(Signer::KubeletClient)) => node_of_subject(self.pkcs10()?),
            _ => None,
        };
        name.ok_or(Answer::NotEvaluated)
    }

    /// Returns the parameters of the policy for the signer. Rule `signer` objects to other signers.
    fn signer_terms(&self) -> Result<&'a SignerTerms, Answer> {
        self.request.signer().map(|signer| self.facts.terms.of(signer)).ok_or(Answer::NotEvaluated)
    }

    /// Returns the requested DNS names. Rule `san-names` objects to invalid names.
    fn names(&self) -> Result<Vec<DnsName>, Answer> {
        let sans = self.pkcs10()?.sans.iter();
        Ok(sans
            .filter_map(|san| match san {
                San::Dns(name) => DnsName::parse(name).ok(),
                _ => None,
            })
            .collect())
    }

    /// Returns the requested addresses. Rule `san-addresses` objects to invalid addresses.
    fn addresses(&self) -> Result<Vec<IpAddr>, Answer> {
        let sans = self.pkcs10()?.sans.iter();
        Ok(sans
            .filter_map(|san| match san {
                San::Address(octets) => address_of_octets(octets).ok(),
                _ => None,
            })
            .collect())
    }
}
