//! A `CertificatePolicy`'s rules for requests, parsed.

use std::collections::BTreeSet;

use ipnet::IpNet;
use k8s_openapi::jiff::SignedDuration;
use keyplane_crds::{
    CertificatePolicySpec, ExistingNode, OnViolation, RequestKeyAlgorithm, UndeclaredAddress, parse_duration,
};
use regex::Regex;

use super::names::DnsName;
use super::request::Signer;

/// Which field of a policy makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct TermsError {
    /// The field.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// What a policy says of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    serving: SignerTerms,
    client: SignerTerms,
    /// How old a request may become.
    pub wait_limit: SignedDuration,
    /// How many pending requests for one Node are looked at.
    pub pending_per_node: usize,
    /// How many pending requests of one requester are looked at.
    pub pending_per_requester: usize,
    /// The keys that may be certified.
    pub key_algorithms: BTreeSet<RequestKeyAlgorithm>,
    /// The shortest RSA key.
    pub min_rsa_bits: usize,
    /// Domains in which a Node may have a name beside its own.
    pub dns_domains: Vec<DnsName>,
    /// What each DNS name has to match.
    pub dns_name_regex: Option<NameRegex>,
    /// Where each address has to lie; nothing means anywhere.
    pub address_ranges: Vec<IpNet>,
    /// Whether names have to resolve to the Node's addresses.
    pub forward_resolution: bool,
    /// What becomes of an address that nobody has declared.
    pub undeclared_address: UndeclaredAddress,
    /// The most names and addresses.
    pub max_names: usize,
    /// What becomes of a bootstrap request for a Node that is there.
    pub existing_node: ExistingNode,
}

/// What a policy says of one signer's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignerTerms {
    /// Whether they are judged at all.
    pub enabled: bool,
    /// What becomes of one that can never be right.
    pub on_violation: OnViolation,
    /// Whether verdicts are only told.
    pub dry_run: bool,
    /// The longest lifetime.
    pub max_expiration_seconds: i32,
}

impl Terms {
    /// Reads a policy.
    ///
    /// # Errors
    /// The first field that makes no sense. Admission refuses it too.
    pub fn parse(policy: &CertificatePolicySpec) -> Result<Self, TermsError> {
        let serving = &policy.kubelet_serving;
        let wait_limit = parse_duration(&policy.signing_requests.wait_limit)
            .ok()
            .and_then(|limit| SignedDuration::try_from(limit).ok())
            .ok_or_else(|| error("signingRequests.waitLimit", "must be a duration, for example 1h"))?;
        let domains = serving.dns_domains.iter().map(|domain| {
            DnsName::parse(domain)
                .map_err(|source| error("kubeletServing.dnsDomains", &format!("{domain:?}: {source}")))
        });
        Ok(Self {
            wait_limit,
            dns_domains: domains.collect::<Result<_, _>>()?,
            dns_name_regex: serving.dns_name_regex.as_deref().map(NameRegex::parse).transpose()?,
            address_ranges: ranges("kubeletServing.addressCIDRs", &serving.address_cidrs)?,
            ..Self::plain(policy)
        })
    }

    /// What needs no parsing, with the API's defaults for the rest.
    fn plain(policy: &CertificatePolicySpec) -> Self {
        let (serving, client, requests) = (&policy.kubelet_serving, &policy.kubelet_client, &policy.signing_requests);
        Self {
            serving: SignerTerms {
                enabled: serving.enabled,
                on_violation: serving.on_violation,
                dry_run: serving.dry_run,
                max_expiration_seconds: serving.max_expiration_seconds,
            },
            client: SignerTerms {
                enabled: client.enabled,
                on_violation: client.on_violation,
                dry_run: client.dry_run,
                max_expiration_seconds: client.max_expiration_seconds,
            },
            wait_limit: SignedDuration::from_hours(1),
            pending_per_node: count(requests.pending_per_node),
            pending_per_requester: count(requests.pending_per_requester),
            key_algorithms: requests.key_algorithms.iter().copied().collect(),
            min_rsa_bits: count(requests.min_rsa_bits),
            dns_domains: vec![],
            dns_name_regex: None,
            address_ranges: vec![],
            forward_resolution: serving.forward_resolution,
            undeclared_address: serving.undeclared_address,
            max_names: count(serving.max_names),
            existing_node: client.existing_node,
        }
    }

    /// What is said of this signer's requests.
    #[must_use]
    pub fn of(&self, signer: Signer) -> &SignerTerms {
        match signer {
            Signer::KubeletServing => &self.serving,
            Signer::KubeletClient => &self.client,
        }
    }

    /// Whether Keyplane is the one who approves kubelets' client certificates: then nobody else may, unseen.
    #[must_use]
    pub fn approves_clients(&self) -> bool {
        self.client.enabled && !self.client.dry_run
    }
}

impl Default for Terms {
    /// As the defaults of the API have it.
    fn default() -> Self {
        Self::plain(&CertificatePolicySpec::default())
    }
}

/// A regular expression that a DNS name matches as a whole or not at all.
#[derive(Clone, Debug)]
pub struct NameRegex {
    written: String,
    compiled: Regex,
}

impl NameRegex {
    fn parse(written: &str) -> Result<Self, TermsError> {
        let field = "kubeletServing.dnsNameRegex";
        let invalid = |source: regex::Error| error(field, &format!("is no regular expression: {source}"));
        // By itself first: `a)|(b` is none, but would be one between the parentheses below, and match parts of a name.
        Regex::new(written).map_err(invalid)?;
        let compiled = Regex::new(&format!("^(?:{written})$")).map_err(invalid)?;
        Ok(Self { written: written.to_owned(), compiled })
    }

    /// Whether the whole name matches. The engine takes time linear in the name's length, whatever the expression.
    #[must_use]
    pub fn matches(&self, name: &DnsName) -> bool {
        self.compiled.is_match(name.as_str())
    }

    /// As it is written in the policy.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }
}

impl PartialEq for NameRegex {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for NameRegex {}

fn ranges(field: &str, written: &[String]) -> Result<Vec<IpNet>, TermsError> {
    let ranges = written.iter().map(|range| {
        range.parse().map_err(|_| error(field, &format!("{range:?} is no range: write one like 10.0.1.0/24")))
    });
    ranges.collect()
}

fn count(written: i32) -> usize {
    usize::try_from(written).unwrap_or_default()
}

fn error(field: &str, message: &str) -> TermsError {
    TermsError { field: format!("spec.{field}"), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<Terms, TermsError> {
        Terms::parse(&serde_saphyr::from_str(yaml).unwrap())
    }

    #[test]
    fn the_defaults_are_those_of_the_api() {
        assert_eq!(parse("{}").unwrap(), Terms::default());
    }

    #[test]
    fn names_the_field_that_makes_no_sense() {
        for (yaml, field) in [
            ("{signingRequests: {waitLimit: 1d}}", "spec.signingRequests.waitLimit"),
            ("{kubeletServing: {dnsDomains: [a_b]}}", "spec.kubeletServing.dnsDomains"),
            ("{kubeletServing: {dnsNameRegex: '['}}", "spec.kubeletServing.dnsNameRegex"),
            ("{kubeletServing: {dnsNameRegex: 'a)|(?:b'}}", "spec.kubeletServing.dnsNameRegex"),
            ("{kubeletServing: {addressCIDRs: [10.0.0.0/33]}}", "spec.kubeletServing.addressCIDRs"),
        ] {
            assert_eq!(parse(yaml).unwrap_err().field, field, "{yaml}");
        }
    }

    #[test]
    fn a_regular_expression_matches_whole_names_only() {
        let regex = NameRegex::parse("worker-[0-9]+|cp").unwrap();
        let matches = |name: &str| regex.matches(&DnsName::parse(name).unwrap());
        assert!(matches("worker-1") && matches("cp"));
        assert!(!matches("worker-1.evil") && !matches("xworker-1") && !matches("cp1") && !matches("xcp"));
    }
}
