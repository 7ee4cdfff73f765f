//! Additional requirements of a policy. The default policy has none.

use keyplane_crds::reasons;

use super::{Case, Outcome};
use crate::approval::verdict::{Answer, shown};

/// Each DNS name as a whole must match the regular expression of the policy (kubeletServing.dnsNameRegex).
pub fn names(case: &Case<'_>) -> Outcome {
    let Some(regex) = &case.facts.terms.dns_name_regex else { return Ok(()) };
    for name in case.names()? {
        if !regex.matches(&name) {
            let message = format!(
                "the DNS name {} does not match kubeletServing.dnsNameRegex, {}",
                shown(name.as_str()),
                shown(regex.as_str())
            );
            return Err(Answer::deny(reasons::NAME_NOT_ALLOWED, message));
        }
    }
    Ok(())
}

/// Each IP address must be in a range of the policy (kubeletServing.addressCIDRs).
pub fn addresses(case: &Case<'_>) -> Outcome {
    let ranges = &case.facts.terms.address_ranges;
    if ranges.is_empty() {
        return Ok(());
    }
    for address in case.addresses()? {
        if !ranges.iter().any(|range| range.contains(&address)) {
            let message = format!("the IP address {address} is in no range of kubeletServing.addressCIDRs");
            return Err(Answer::deny(reasons::ADDRESS_NOT_ALLOWED, message));
        }
    }
    Ok(())
}

/// If the policy requires it (kubeletServing.forwardResolution), each DNS name must resolve to addresses of the node
/// and to no others. DNS fails and changes, so every failure waits. An approver that denied after a short resolver
/// failure left nodes without certificates (postfinance #29). Resolution alone is never sufficient, because everyone
/// who can write to the DNS could satisfy it.
pub fn forward_resolution(case: &Case<'_>) -> Outcome {
    if !case.facts.terms.forward_resolution {
        return Ok(());
    }
    let (declaration, node) = (case.declaration()?, case.node_facts()?);
    for name in case.names()? {
        let shown_name = shown(name.as_str());
        let addresses = match case.facts.resolved.get(&name) {
            Some(Ok(addresses)) if !addresses.is_empty() => addresses,
            Some(Ok(_)) => {
                return Err(Answer::wait(
                    reasons::NAME_NOT_RESOLVED,
                    format!("the DNS name {shown_name} has no address"),
                ));
            }
            Some(Err(error)) => {
                let message = format!("the DNS name {shown_name} does not resolve: {}", shown(error));
                return Err(Answer::wait(reasons::NAME_NOT_RESOLVED, message));
            }
            None => {
                let message = format!("the DNS name {shown_name} is not resolved yet");
                return Err(Answer::wait(reasons::NAME_NOT_RESOLVED, message));
            }
        };
        let foreign =
            addresses.iter().find(|address| declaration.claim(address).is_none() || !node.addresses.contains(address));
        if let Some(foreign) = foreign {
            let message =
                format!("the DNS name {shown_name} resolves to {foreign}, which is not an address of the node");
            return Err(Answer::wait(reasons::NAME_RESOLVES_ELSEWHERE, message));
        }
    }
    Ok(())
}
