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
use super::{Answer, Facts, SigningRequest};

/// What a rule says: nothing, or an answer other than `Pass`.
type Outcome = Result<(), Answer>;

/// A rule: a pure function with a name.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The name, as `explain` shows it.
    pub name: &'static str,
    /// The function.
    judge: fn(&Case<'_>) -> Outcome,
}

impl Rule {
    pub(super) const fn new(name: &'static str, judge: fn(&Case<'_>) -> Outcome) -> Self {
        Self { name, judge }
    }

    /// Asks the rule.
    #[must_use]
    pub fn ask(&self, case: &Case<'_>) -> Answer {
        (self.judge)(case).err().unwrap_or(Answer::Pass)
    }
}

/// The rules for serving certificates, in the order in which they are asked.
pub const SERVING_RULES: &[Rule] = &[
    // Is this ours to judge?
    Rule::new("signer", scope::signer),
    Rule::new("open", scope::open),
    Rule::new("enabled", scope::enabled),
    Rule::new("age", scope::age),
    // Who asks?
    Rule::new("requester", identity::requester),
    Rule::new("groups", identity::groups),
    // Is the request well made?
    Rule::new("encoding", request::encoding),
    Rule::new("attributes", request::attributes),
    Rule::new("extensions", request::extensions),
    Rule::new("key", request::key),
    Rule::new("signature", request::signature),
    // Is it about who asks, and for serving only?
    Rule::new("subject", identity::subject),
    Rule::new("organization", identity::organization),
    Rule::new("common-name", identity::common_name),
    Rule::new("usages", request::serving_usages),
    Rule::new("expiration", request::expiration),
    // Which names and addresses does it want?
    Rule::new("san-kinds", sans::kinds),
    Rule::new("san-names", sans::names),
    Rule::new("san-addresses", sans::addresses),
    // After the rules that can name what they object to.
    Rule::new("canonical", request::canonical),
    Rule::new("reserved-names", sans::reserved_names),
    Rule::new("reserved-ranges", addresses::reserved_ranges),
    Rule::new("reserved-addresses", addresses::reserved),
    // Are they the node's, by what a person declared and by what the Node says?
    Rule::new("declared", addresses::node_declared),
    Rule::new("declared-names", sans::declared_names),
    Rule::new("declared-addresses", addresses::declared),
    Rule::new("policy-names", policy::names),
    Rule::new("policy-addresses", policy::addresses),
    Rule::new("node", addresses::node),
    Rule::new("max-nodes", addresses::max_nodes),
    Rule::new("node-names", sans::node_names),
    Rule::new("node-addresses", addresses::reported),
    // Last, so that nobody's DNS is asked for what is refused anyway.
    Rule::new("forward-resolution", policy::forward_resolution),
];

/// The rules for client certificates, in the order in which they are asked.
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

/// A request with all that the rules may look at.
#[derive(Debug)]
pub struct Case<'a> {
    request: &'a SigningRequest,
    facts: &'a Facts<'a>,
    now: Timestamp,
    pkcs10: OnceCell<Result<Pkcs10, Pkcs10Error>>,
}

impl<'a> Case<'a> {
    /// Nothing is parsed yet.
    #[must_use]
    pub fn new(request: &'a SigningRequest, facts: &'a Facts<'a>, now: Timestamp) -> Self {
        Self { request, facts, now, pkcs10: OnceCell::new() }
    }

    fn parsed(&self) -> &Result<Pkcs10, Pkcs10Error> {
        self.pkcs10.get_or_init(|| Pkcs10::parse(&self.request.request))
    }

    /// The PKCS#10 request. `encoding` objects if there is none.
    fn pkcs10(&self) -> Result<&Pkcs10, Answer> {
        self.parsed().as_ref().map_err(|_| Answer::NotEvaluated)
    }

    /// The name of the node that asks; of a bootstrap token's request for a client certificate the one that the subject
    /// names. `requester` or `common-name` object if there is none.
    fn node_name(&self) -> Result<&str, Answer> {
        let name = match (self.request.requester(), self.request.signer()) {
            (Some(Requester::Node(name)), _) => Some(name),
            (Some(Requester::Token), Some(Signer::KubeletClient)) => node_of_subject(self.pkcs10()?),
            _ => None,
        };
        name.ok_or(Answer::NotEvaluated)
    }

    /// What the policy says of the request's signer. `signer` objects to others.
    fn signer_terms(&self) -> Result<&'a SignerTerms, Answer> {
        self.request.signer().map(|signer| self.facts.terms.of(signer)).ok_or(Answer::NotEvaluated)
    }

    /// The DNS names that are asked for. `san-names` objects to those that are none.
    fn names(&self) -> Result<Vec<DnsName>, Answer> {
        let sans = self.pkcs10()?.sans.iter();
        Ok(sans
            .filter_map(|san| match san {
                San::Dns(name) => DnsName::parse(name).ok(),
                _ => None,
            })
            .collect())
    }

    /// The addresses that are asked for. `san-addresses` objects to those that are none.
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
