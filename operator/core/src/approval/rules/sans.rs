//! The subject alternative names: their kinds and form, and whose the DNS names are.

use keyplane_crds::reasons;

use super::{Case, Outcome};
use crate::approval::names::{DnsName, address_of_octets};
use crate::approval::pkcs10::San;
use crate::approval::reserved::NameReservation;
use crate::approval::verdict::{Answer, shown};

/// There is at least one name and not more than a machine has (kubeletServing.maxNames, which also bounds the work for
/// one request), and each is a DNS name or an IP address. The signer fails a request without names or with
/// an e-mail address or URI; a certificate for a URI is an identity in some meshes.
pub fn kinds(case: &Case<'_>) -> Outcome {
    let sans = &case.pkcs10()?.sans;
    if sans.is_empty() {
        return Err(Answer::deny(reasons::SAN_MISSING, "the request names no DNS name and no IP address".to_owned()));
    }
    let max = case.facts.terms.max_names;
    if sans.len() > max {
        let message =
            format!("the request has {} names, more than kubeletServing.maxNames, which is {max}", sans.len());
        return Err(Answer::deny(reasons::TOO_MANY_SANS, message));
    }
    for san in sans {
        if let San::Other(kind) = san {
            let message = format!("the request names {kind}; only DNS names and IP addresses are allowed");
            return Err(Answer::deny(reasons::SAN_KIND_NOT_ALLOWED, message));
        }
    }
    Ok(())
}

/// Each DNS name is a plain host name: no wildcard, nothing that a client may read as an address, no NUL that ends it for
/// one reader and not for another.
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

/// Each IP address has 4 octets or 16, and no IPv4 address hides in the latter.
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

/// No name is the API server's, the cluster's DNS's, localhost or another node's, whoever claims it. Pods trust the CA
/// that signs these certificates: one for `kubernetes.default.svc` would make a node the API server to them.
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

/// Each DNS name is the name of the node that asks, alone or in a domain of the policy, and whole: a prefix or a substring
/// is another machine's (`a` and `auth.example`).
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

/// Each DNS name is in the Node's status. It may come later, so this waits.
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
