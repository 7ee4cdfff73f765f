//! Decides when an agent gets a bootstrap token, and when the token is revoked: a pure function.
//!
//! The token is bound to its Secret, so the deletion of the Secret revokes the token. The Secret exists until the agent
//! has reported with its own credential. Deleting the agent's Lease starts the bootstrap again.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::keys;

use crate::agent_report::CredentialKind;
use crate::observed::AgentFacts;

/// The action for a node's bootstrap Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bootstrap {
    /// No change until this time; `None` if no Secret is needed.
    Keep(Option<Timestamp>),
    /// Delete the Secret, which revokes its token.
    Remove,
    /// Create the Secret and replace an existing one, which revokes the old token.
    Make,
}

/// Decides the action. `found` is the existing Secret, `wanted` the desired Secret without its token.
#[must_use]
pub fn decide(
    found: Option<&ObjectMeta>,
    wanted: &ObjectMeta,
    agent: Option<&AgentFacts>,
    now: Timestamp,
) -> Bootstrap {
    let report = agent.and_then(|agent| agent.report.as_ref());
    let is_used = report.is_some_and(|report| report.credential == CredentialKind::Renewed);
    let Some(found) = found else {
        return if is_used { Bootstrap::Keep(None) } else { Bootstrap::Make };
    };
    if is_used {
        return Bootstrap::Remove;
    }
    let annotation = |object: &ObjectMeta, key: &str| object.annotations.as_ref().and_then(|all| all.get(key)).cloned();
    if annotation(found, keys::CONTENT_CHECKSUM_ANNOTATION) != annotation(wanted, keys::CONTENT_CHECKSUM_ANNOTATION) {
        return Bootstrap::Make;
    }
    match renewal(found, annotation(found, keys::TOKEN_EXPIRES_ANNOTATION)) {
        Some(renewal) if renewal > now => Bootstrap::Keep(Some(renewal)),
        // The token has expired, or a crash happened before the token was stored.
        _ => Bootstrap::Make,
    }
}

/// Returns the time for the next token: after two thirds of the token's validity, because a node may start at any time.
fn renewal(found: &ObjectMeta, expires: Option<String>) -> Option<Timestamp> {
    let expires: Timestamp = expires?.parse().ok()?;
    let made = found.creation_timestamp.as_ref()?.0;
    Some(expires - expires.duration_since(made) / 3)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::agent_report::NodeReport;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-23T{text}Z").parse().unwrap()
    }

    fn wanted() -> ObjectMeta {
        let sum = (keys::CONTENT_CHECKSUM_ANNOTATION.to_owned(), "1".to_owned());
        ObjectMeta { annotations: Some([sum].into()), ..ObjectMeta::default() }
    }

    fn found() -> ObjectMeta {
        let mut found = wanted();
        found.creation_timestamp = Some(Time(at("12:00:00")));
        let expires = (keys::TOKEN_EXPIRES_ANNOTATION.to_owned(), at("13:00:00").to_string());
        found.annotations.as_mut().unwrap().extend([expires]);
        found
    }

    fn agent(credential: CredentialKind) -> AgentFacts {
        AgentFacts { report: Some(NodeReport { credential, ..NodeReport::default() }), ..AgentFacts::default() }
    }

    #[test]
    fn keeps_a_valid_token_until_the_agent_has_its_own() {
        let now = at("12:39:59");
        assert_eq!(decide(None, &wanted(), None, now), Bootstrap::Make);
        for waiting in [None, Some(&AgentFacts::default()), Some(&agent(CredentialKind::Bootstrap))] {
            assert_eq!(decide(Some(&found()), &wanted(), waiting, now), Bootstrap::Keep(Some(at("12:40:00"))));
            assert_eq!(decide(Some(&found()), &wanted(), waiting, at("12:40:00")), Bootstrap::Make);
        }
    }

    #[test]
    fn revokes_a_used_token_and_creates_no_other() {
        let used = agent(CredentialKind::Renewed);
        assert_eq!(decide(Some(&found()), &wanted(), Some(&used), at("12:01:00")), Bootstrap::Remove);
        assert_eq!(decide(None, &wanted(), Some(&used), at("12:01:00")), Bootstrap::Keep(None));
    }

    #[test]
    fn recreates_a_secret_without_token_or_with_old_settings() {
        let mut empty = found();
        empty.annotations.as_mut().unwrap().remove(keys::TOKEN_EXPIRES_ANNOTATION);
        assert_eq!(decide(Some(&empty), &wanted(), None, at("12:01:00")), Bootstrap::Make);
        let mut other = wanted();
        other.annotations.as_mut().unwrap().insert(keys::CONTENT_CHECKSUM_ANNOTATION.to_owned(), "2".to_owned());
        assert_eq!(decide(Some(&found()), &other, None, at("12:01:00")), Bootstrap::Make);
    }
}
