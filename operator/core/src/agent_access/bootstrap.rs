//! When an agent gets a credential to begin with, and when that is revoked: a pure decision.
//!
//! The token is bound to its Secret, so that with the Secret it is gone too. There is one while the agent has never
//! reported with a credential of its own; whoever deletes the agent's Lease lets it begin anew.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::keys;

use crate::agent_report::CredentialKind;
use crate::observed::AgentFacts;

/// What becomes of a machine's bootstrap Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bootstrap {
    /// It is as it should be until then; or none is needed, and nothing has to be done by the clock.
    Keep(Option<Timestamp>),
    /// It is deleted, and with it its token.
    Remove,
    /// It is made, in place of the one that there is: with another object the token of that one is gone.
    Make,
}

/// Decides. `found` is the Secret that is there, `wanted` what it should hold beside its token.
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
        // It is over, or a crash came before its token was in it.
        _ => Bootstrap::Make,
    }
}

/// A machine may be started at any time, so two thirds of a token's life are followed by another one.
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
    fn there_is_a_good_token_until_the_agent_has_its_own() {
        let now = at("12:39:59");
        assert_eq!(decide(None, &wanted(), None, now), Bootstrap::Make);
        for waiting in [None, Some(&AgentFacts::default()), Some(&agent(CredentialKind::Bootstrap))] {
            assert_eq!(decide(Some(&found()), &wanted(), waiting, now), Bootstrap::Keep(Some(at("12:40:00"))));
            assert_eq!(decide(Some(&found()), &wanted(), waiting, at("12:40:00")), Bootstrap::Make);
        }
    }

    #[test]
    fn a_used_token_is_revoked_and_none_is_made_again() {
        let used = agent(CredentialKind::Renewed);
        assert_eq!(decide(Some(&found()), &wanted(), Some(&used), at("12:01:00")), Bootstrap::Remove);
        assert_eq!(decide(None, &wanted(), Some(&used), at("12:01:00")), Bootstrap::Keep(None));
    }

    #[test]
    fn one_without_a_token_or_with_other_settings_is_made_anew() {
        let mut empty = found();
        empty.annotations.as_mut().unwrap().remove(keys::TOKEN_EXPIRES_ANNOTATION);
        assert_eq!(decide(Some(&empty), &wanted(), None, at("12:01:00")), Bootstrap::Make);
        let mut other = wanted();
        other.annotations.as_mut().unwrap().insert(keys::CONTENT_CHECKSUM_ANNOTATION.to_owned(), "2".to_owned());
        assert_eq!(decide(Some(&found()), &other, None, at("12:01:00")), Bootstrap::Make);
    }
}
