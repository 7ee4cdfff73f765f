//! Whether a certificate is what was asked for: a table of checks, each with its refusal.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::request::{KEY_USAGES, usage_name};
use crate::pki::{AlternativeName, CertificateFacts, ExtendedUsage, Profile, Subject, first_certificate, to_pem};

/// Signers begin a certificate earlier than now (Vault 30 seconds, Kubernetes five minutes), and have clocks of their own:
/// so much longer than asked for it may be in all.
const TOLERANCE: SignedDuration = SignedDuration::from_hours(1);

/// A certificate that ends sooner than after this share of what was asked for would be asked for all the time.
const SHORTEST_SHARE: i32 = 4;

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// Whose certificate it is to be.
    pub subject: &'a Subject,
    /// Its names.
    pub alternative_names: &'a [AlternativeName],
    /// What it is to be for.
    pub extended_usages: &'a [ExtendedUsage],
    /// How long it is to be valid at most.
    pub validity: Duration,
    /// The public key as DER.
    pub subject_public_key_info: &'a [u8],
}

/// Why an answer is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no certificate.
    #[error("it does not begin with a certificate in PEM form that can be read")]
    Unreadable,
    /// It is for another key.
    #[error("public key: it is not the request's: sign request.csr as it is")]
    OtherKey,
    /// Somebody else has signed it.
    #[error(
        "issuer: {issuer:?} has signed it, or another key of that name, and not the authority in tls.crt of {authority}"
    )]
    OtherIssuer {
        /// Who says that he has.
        issuer: String,
        /// Who should have.
        authority: String,
    },
    /// It is signed in a way that nobody takes.
    #[error("signature: its algorithm is not one of SHA-2, and the API server does not take others")]
    WeakSignature,
    /// It is somebody else's.
    #[error("subject: it is {found}, and {asked} was asked for")]
    OtherSubject {
        /// Whose it is.
        found: String,
        /// Whose it was to be.
        asked: String,
    },
    /// Its names are others.
    #[error("subject alternative names: {}", words(.missing, .added))]
    OtherNames {
        /// Those that were asked for and are not there.
        missing: Vec<String>,
        /// Those that are there and were not asked for.
        added: Vec<String>,
    },
    /// It is for something else.
    #[error("{field}: it is {found}, and {asked} was asked for")]
    OtherUsages {
        /// Which kind of usage.
        field: &'static str,
        /// What it is for.
        found: String,
        /// What it was to be for.
        asked: String,
    },
    /// It could sign others.
    #[error("basic constraints: it is an authority's certificate (CA:TRUE): make it CA:FALSE")]
    Authority,
    /// There is something in it that not everybody understands.
    #[error("extensions: the critical extension {0} is one that not everybody understands")]
    UnknownCritical(String),
    /// It is not valid yet.
    #[error("not before: it is valid from {0} on, which has not come yet")]
    NotYetValid(Timestamp),
    /// It has ended, or ends so soon that it would have to be asked for again at once.
    #[error("not after: it ends at {0}, which is too soon")]
    TooShort(Timestamp),
    /// It is valid for longer than was asked for.
    #[error("not after: it ends at {found}; {latest} would be the latest")]
    TooLong {
        /// When it ends.
        found: Timestamp,
        /// When it may end.
        latest: Timestamp,
    },
}

fn words(missing: &[String], added: &[String]) -> String {
    let parts = [("missing", missing), ("not asked for", added)];
    let parts = parts.into_iter().filter(|(_, names)| !names.is_empty());
    let parts: Vec<_> = parts.map(|(what, names)| format!("{what}: {}", names.join(", "))).collect();
    if parts.is_empty() {
        "there are some that are neither DNS names nor addresses".to_owned()
    } else {
        parts.join("; ")
    }
}

/// Holds the first certificate of an answer against what was asked for, and gives it back as PEM, without what else was in
/// the text.
///
/// # Errors
/// The first thing that differs.
pub fn check(answer: &str, asked: &Asked<'_>, authority: &CertificateFacts, now: Timestamp) -> Result<String, Refusal> {
    let facts = first_certificate("the answer", answer).map_err(|_| Refusal::Unreadable)?;
    let profile = Profile::of(&facts).ok_or(Refusal::Unreadable)?;
    let found = Found { facts: &facts, profile: &profile, asked, authority, now };
    CHECKS.iter().try_for_each(|check| check(&found))?;
    Ok(to_pem("CERTIFICATE", &facts.der))
}

type Check = fn(&Found<'_>) -> Result<(), Refusal>;

const CHECKS: [Check; 8] = [key, issuer, authority_of_none, subject, names, usages, extensions, validity];

struct Found<'a> {
    facts: &'a CertificateFacts,
    profile: &'a Profile,
    asked: &'a Asked<'a>,
    authority: &'a CertificateFacts,
    now: Timestamp,
}

fn key(found: &Found<'_>) -> Result<(), Refusal> {
    if found.facts.subject_public_key_info == found.asked.subject_public_key_info {
        Ok(())
    } else {
        Err(Refusal::OtherKey)
    }
}

fn issuer(found: &Found<'_>) -> Result<(), Refusal> {
    if !found.profile.is_strongly_signed {
        return Err(Refusal::WeakSignature);
    }
    if found.facts.is_signed_by(found.authority) {
        return Ok(());
    }
    let authority = found.authority.subject.as_ref().map(|subject| subject.common_name.clone());
    Err(Refusal::OtherIssuer { issuer: found.facts.issuer.clone(), authority: authority.unwrap_or_default() })
}

fn authority_of_none(found: &Found<'_>) -> Result<(), Refusal> {
    if found.profile.is_authority { Err(Refusal::Authority) } else { Ok(()) }
}

fn subject(found: &Found<'_>) -> Result<(), Refusal> {
    let same = found.facts.subject.as_ref().is_some_and(|subject| subject.is_same_user(found.asked.subject));
    if same && found.profile.other_subject_parts.is_empty() {
        return Ok(());
    }
    let mut text = found.facts.subject.as_ref().map_or_else(|| "without exactly one CN".to_owned(), written);
    if !found.profile.other_subject_parts.is_empty() {
        text = format!("{text} with other parts ({})", found.profile.other_subject_parts.join(", "));
    }
    Err(Refusal::OtherSubject { found: text, asked: written(found.asked.subject) })
}

fn written(subject: &Subject) -> String {
    let organizations = subject.organizations.iter().map(|organization| format!("O={organization}, "));
    format!("{:?}", format!("{}CN={}", organizations.collect::<String>(), subject.common_name))
}

fn names(found: &Found<'_>) -> Result<(), Refusal> {
    let mut asked = found.asked.alternative_names.to_vec();
    asked.sort();
    let Some(there) = &found.facts.alternative_names else {
        return Err(Refusal::OtherNames { missing: vec![], added: vec![] });
    };
    let lacking = |of: &[AlternativeName], others: &[AlternativeName]| -> Vec<String> {
        of.iter().filter(|name| !others.contains(name)).map(name_text).collect()
    };
    let (missing, added) = (lacking(&asked, there), lacking(there, &asked));
    if missing.is_empty() && added.is_empty() { Ok(()) } else { Err(Refusal::OtherNames { missing, added }) }
}

fn name_text(name: &AlternativeName) -> String {
    match name {
        AlternativeName::Dns(name) => name.clone(),
        AlternativeName::Ip(address) => address.to_string(),
    }
}

fn usages(found: &Found<'_>) -> Result<(), Refusal> {
    let mut asked = found.asked.extended_usages.to_vec();
    asked.sort();
    if found.facts.extended_usages.as_ref() != Some(&asked) {
        let text = |usages: &[ExtendedUsage]| {
            let names = usages.iter().map(|usage| usage_name(*usage));
            names.collect::<Vec<_>>().join(", ")
        };
        let there = match &found.facts.extended_usages {
            None => "for other uses too".to_owned(),
            Some(usages) if usages.is_empty() => "not there, which is every use".to_owned(),
            Some(usages) => text(usages),
        };
        return Err(Refusal::OtherUsages { field: "extended key usage", found: there, asked: text(&asked) });
    }
    // A key of an elliptic curve enciphers none, and some signers leave that out.
    let is_good =
        found.profile.key_usages.as_ref().is_some_and(|usages| {
            usages.contains(&KEY_USAGES[0]) && usages.iter().all(|usage| KEY_USAGES.contains(usage))
        });
    if is_good {
        return Ok(());
    }
    let there = match &found.profile.key_usages {
        None => "not there, which is every use".to_owned(),
        Some(usages) => usages.join(", "),
    };
    Err(Refusal::OtherUsages { field: "key usage", found: there, asked: KEY_USAGES.join(", ") })
}

fn extensions(found: &Found<'_>) -> Result<(), Refusal> {
    match found.profile.unknown_critical.first() {
        Some(unknown) => Err(Refusal::UnknownCritical(unknown.clone())),
        None => Ok(()),
    }
}

fn validity(found: &Found<'_>) -> Result<(), Refusal> {
    let Found { facts, asked, authority, now, .. } = found;
    if facts.not_before > *now {
        return Err(Refusal::NotYetValid(facts.not_before));
    }
    let asked_for = SignedDuration::try_from(asked.validity).unwrap_or(SignedDuration::MAX);
    let of_asked = asked_for.checked_add(TOLERANCE).and_then(|longest| facts.not_before.checked_add(longest).ok());
    let latest = of_asked.unwrap_or(Timestamp::MAX).min(authority.not_after);
    if facts.not_after > latest {
        return Err(Refusal::TooLong { found: facts.not_after, latest });
    }
    // Near the end of the authority there is no more to have than what it has left.
    let longest = asked_for.min(authority.not_after.duration_since(*now));
    let soonest = now.checked_add(longest / SHORTEST_SHARE).unwrap_or(Timestamp::MAX);
    if facts.not_after <= *now || facts.not_after < soonest {
        return Err(Refusal::TooShort(facts.not_after));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
