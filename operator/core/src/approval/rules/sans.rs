//! Rules about the subject alternative names: kind, form, and owner of the DNS names.

use keyplane_crds::reasons;

use super::{Case, Outcome};
use crate::approval::names::{DnsName, address_of_octets};
use crate::approval::pkcs10::San;
use crate::approval::reserved::NameReservation;
use crate::approval::verdict::{Answer, shown};

/// The request must have at least one name and at most kubeletServing.maxNames, which also limits the work per CSR.
/// Each name must be a DNS name or an IP address. The signer rejects a CSR without names, or with an e-mail address or
/// URI. In some service meshes, a URI in a certificate is an identity.
pub fn kinds(case: &Case<'_>) -> Outcome {
    let sans = &case.pkcs10()?.sans;
    if sans.is_empty() {
        return Err(Answer::deny(
            reasons::SAN_MISSING,
            "the request has neither DNS names nor IP addresses".to_owned(),
        ));
    }
    let max = case.facts.terms.max_names;
    if sans.len() > max {
        let message =
            format!("the request has {} names, more than kubeletServing.maxNames, which is {max}", sans.len());
        return Err(Answer::deny(reasons::TOO_MANY_SANS, message));
    }
    for san in sans {
        if let San::Other(kind) = san {
            let message = format!("the request has {kind}; only DNS names and IP addresses are allowed");
            return Err(Answer::deny(reasons::SAN_KIND_NOT_ALLOWED, message));
        }
    }
    Ok(())
}

/// Each DNS name must be a plain host name: no wildcard, no text that a client may read as an address, and no NUL, at
/// which some parsers end the name.
pub fn names(case: &Case<'_>) -> Outcome {
    for san in &case.pkcs10()?.sans {
        if let San::Dns(name) = san
            && let Err(error) = DnsName::parse(name)
        {
            return Err(Answer::deny(reasons::SAN_MALFORMED, format!("the DNS name {}: {error}", shown(name))));
        }
    }
    Ok(())
}

/// Each IP address must have 4 or 16 octets, and must not be an IPv4-mapped IPv6 address.
pub fn addresses(case: &Case<'_>) -> Outcome {
    for san in &case.pkcs10()?.sans {
        if let San::Address(octets) = san
            && let Err(error) = address_of_octets(octets)
        {
            return Err(Answer::deny(reasons::SAN_MALFORMED, format!("the IP address: {error}")));
        }
    }
    Ok(())
}

/// No name may belong to the API server, the cluster DNS, localhost or another node, whatever the declarations say.
/// Pods trust the CA of these certificates; with a certificate for `kubernetes.default.svc`, a node could impersonate
/// the API server.
pub fn reserved_names(case: &Case<'_>) -> Outcome {
    let node = case.node_name()?;
    for name in case.names()? {
        if let Some(reservation) = case.facts.reserved.name(case.facts.nodes, node, &name) {
            let reason = match reservation {
                NameReservation::AnotherNode => reasons::ANOTHER_NODES_NAME,
                _ => reasons::RESERVED_NAME,
            };
            return Err(Answer::deny(reason, format!("the DNS name {} is {reservation}", shown(name.as_str()))));
        }
    }
    Ok(())
}

/// Each DNS name must be the whole name of the node, alone or in a domain of the policy. A prefix or a substring can be
/// the name of another node (`a` and `auth.example`).
pub fn declared_names(case: &Case<'_>) -> Outcome {
    let node = case.node_name()?;
    for name in case.names()? {
        let rest = name.as_str().strip_prefix(node);
        let in_domain = rest
            .and_then(|rest| rest.strip_prefix('.'))
            .is_some_and(|domain| case.facts.terms.dns_domains.iter().any(|allowed| allowed.as_str() == domain));
        if rest != Some("") && !in_domain {
            let message = format!(
                "the DNS name {} is not the node's name {}, nor that in a domain of kubeletServing.dnsDomains",
                shown(name.as_str()),
                shown(node)
            );
            return Err(Answer::deny(reasons::NAME_NOT_DECLARED, message));
        }
    }
    Ok(())
}

/// Each DNS name must be in the status of the Node. The name may arrive later, so this waits.
pub fn node_names(case: &Case<'_>) -> Outcome {
    let facts = case.node_facts()?;
    for name in case.names()? {
        if !facts.names.contains(&name) {
            let message = format!("the DNS name {} is not in the Node's status", shown(name.as_str()));
            return Err(Answer::wait(reasons::NAME_NOT_REPORTED, message));
        }
    }
    Ok(())
}
