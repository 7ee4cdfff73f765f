//! The parsed rules of a `CertificatePolicy` for CSRs.

use std::collections::BTreeSet;

use ipnet::IpNet;
use k8s_openapi::jiff::SignedDuration;
use keyplane_crds::{
    CertificatePolicySpec, ExistingNode, OnViolation, RequestKeyAlgorithm, UndeclaredAddress, parse_duration,
};
use regex::Regex;

use super::names::DnsName;
use super::request::Signer;

/// An invalid field of a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct TermsError {
    /// The field.
    pub field: String,
    /// The problem with the field.
    pub message: String,
}

/// The parameters of a policy for CSRs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    serving: SignerTerms,
    client: SignerTerms,
    /// The maximum age of a CSR.
    pub wait_limit: SignedDuration,
    /// The maximum number of pending CSRs per node.
    pub pending_per_node: usize,
    /// The maximum number of pending CSRs per requester.
    pub pending_per_requester: usize,
    /// The allowed key algorithms.
    pub key_algorithms: BTreeSet<RequestKeyAlgorithm>,
    /// The minimum size of RSA keys in bits.
    pub min_rsa_bits: usize,
    /// The domains in which a node may have its name, besides the plain node name.
    pub dns_domains: Vec<DnsName>,
    /// The regular expression for DNS names.
    pub dns_name_regex: Option<NameRegex>,
    /// The allowed address ranges. Empty allows all addresses.
    pub address_ranges: Vec<IpNet>,
    /// Whether names must resolve to the addresses of the Node.
    pub forward_resolution: bool,
    /// The verdict on an undeclared address.
    pub undeclared_address: UndeclaredAddress,
    /// The maximum number of names and addresses.
    pub max_names: usize,
    /// The verdict on a bootstrap CSR for an existing Node.
    pub existing_node: ExistingNode,
}

/// The parameters of a policy for the CSRs of one signer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignerTerms {
    /// Whether Keyplane evaluates these CSRs.
    pub enabled: bool,
    /// The verdict on a CSR that violates a rule.
    pub on_violation: OnViolation,
    /// Whether verdicts are only reported.
    pub dry_run: bool,
    /// The maximum lifetime.
    pub max_expiration_seconds: i32,
}

impl Terms {
    /// Parses a policy.
    ///
    /// # Errors
    /// Returns the first invalid field. Admission rejects invalid fields too.
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

    /// Returns the fields that need no parsing, and the defaults of the API for the rest.
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

    /// Returns the parameters for a signer.
    #[must_use]
    pub fn of(&self, signer: Signer) -> &SignerTerms {
        match signer {
            Signer::KubeletServing => &self.serving,
            Signer::KubeletClient => &self.client,
        }
    }

    /// Returns whether Keyplane approves client CSRs of kubelets. In that case no other approver should be active.
    #[must_use]
    pub fn approves_clients(&self) -> bool {
        self.client.enabled && !self.client.dry_run
    }
}

impl Default for Terms {
    /// Returns the defaults of the API.
    fn default() -> Self {
        Self::plain(&CertificatePolicySpec::default())
    }
}

/// A regular expression that must match the whole DNS name.
#[derive(Clone, Debug)]
pub struct NameRegex {
    written: String,
    compiled: Regex,
}

impl NameRegex {
    fn parse(written: &str) -> Result<Self, TermsError> {
        let field = "kubeletServing.dnsNameRegex";
        let invalid = |source: regex::Error| error(field, &format!("is not a valid regular expression: {source}"));
        // Compiled without the parentheses first. `a)|(b` is invalid, but valid within the parentheses below, where it
        // would match parts of a name.
        Regex::new(written).map_err(invalid)?;
        let compiled = Regex::new(&format!("^(?:{written})$")).map_err(invalid)?;
        Ok(Self { written: written.to_owned(), compiled })
    }

    /// Returns whether the whole name matches. The run time is linear in the length of the name for every expression.
    #[must_use]
    pub fn matches(&self, name: &DnsName) -> bool {
        self.compiled.is_match(name.as_str())
    }

    /// Returns the expression as written in the policy.
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
        range
            .parse()
            .map_err(|_| error(field, &format!("{range:?} is not a valid CIDR range; write one like 10.0.1.0/24")))
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
    fn defaults_match_the_api() {
        assert_eq!(parse("{}").unwrap(), Terms::default());
    }

    #[test]
    fn error_names_the_invalid_field() {
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
    fn regular_expression_matches_whole_names_only() {
        let regex = NameRegex::parse("worker-[0-9]+|cp").unwrap();
        let matches = |name: &str| regex.matches(&DnsName::parse(name).unwrap());
        assert!(matches("worker-1") && matches("cp"));
        assert!(!matches("worker-1.evil") && !matches("xworker-1") && !matches("cp1") && !matches("xcp"));
    }
}
