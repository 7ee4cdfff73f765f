//! Authorities of the user's own, as they lie in the user's Secrets, and what follows from them.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::reasons;
use kube::ResourceExt;

use super::given::{NOT_FOUND, UNUSABLE};
use super::status::Outcome;
use crate::authorities::{Authorities, AuthoritySet};
use crate::blocker::Blocker;
use crate::inventory::LEAVES;
use crate::model::{Cluster, given_authority_field};
use crate::names;
use crate::names::{MANAGED_BY, MANAGED_BY_LABEL};
use crate::objects;
use crate::observed::Observed;
use crate::observed::Slot;
use crate::pki::AuthorityName;
use crate::pki::{Authority, CertificateFacts, ExtendedUsage, certificates_in, given_authority};

/// The authorities that are given, or why one can't be taken.
pub(super) type Given = BTreeMap<AuthorityName, Result<Authority, Blocker>>;

/// Reads all that `spec.certificateAuthorities` names.
pub(super) fn given(cluster: &Cluster, observed: &Observed, now: Timestamp) -> Given {
    let read = |name| Some((name, read(cluster, observed, name, cluster.given_authority(name)?, now)));
    let mut given: Given = cluster.authority_names().filter_map(read).collect();
    let clashes: Vec<_> = given
        .iter()
        .filter_map(|(name, found)| Some((*name, clash(cluster, observed, &given, *name, found.as_ref().ok()?)?)))
        .collect();
    for (name, blocker) in clashes {
        given.insert(name, Err(blocker));
    }
    given
}

fn read(
    cluster: &Cluster,
    observed: &Observed,
    name: AuthorityName,
    secret_name: &str,
    now: Timestamp,
) -> Result<Authority, Blocker> {
    let field = given_authority_field(name);
    let Some(secret) = observed.secrets.get(secret_name) else {
        let message = format!(
            "{field}: there is no Secret {secret_name}: make it with tls.crt (the authority's certificate, and below it \
             those above it) and tls.key, for example `kubectl create secret tls {secret_name} -n {} --cert=tls.crt \
             --key=tls.key`",
            cluster.namespace
        );
        return Err(Blocker { reason: NOT_FOUND, message });
    };
    let unusable = |problem: String| unusable(name, secret_name, &problem);
    if secret.labels().get(MANAGED_BY_LABEL).is_some_and(|by| by == MANAGED_BY) {
        // What bears it is deleted with the cluster.
        return Err(unusable(format!("has the label {MANAGED_BY_LABEL}={MANAGED_BY} of Keyplane's own: take it off")));
    }
    let text = |key| objects::text(secret, key);
    let certificates = text("tls.crt").ok_or_else(|| {
        unusable("lacks tls.crt: put the authority's certificate there, and below it those above it".to_owned())
    })?;
    let loaded = own(cluster, observed, name);
    let is_outside = loaded.as_ref().map(|set| set.signing().key().is_none());
    let key = match (text("tls.key"), is_outside) {
        // Its owner signs outside; a key that comes later is left to its owner.
        (None, None | Some(true)) | (Some(_), Some(true)) => None,
        (None, Some(false)) => {
            let problem = "lacks tls.key: put the authority's key there; one whose owner signs outside can only be given to \
                           a new cluster";
            return Err(unusable(problem.to_owned()));
        }
        (Some(key), _) => Some(key),
    };
    let taken = given_authority(secret_name, (certificates, key, text("ca.crt")), &usages(name), now)
        .map_err(|unfit| unusable(format!("can't be used: {unfit}")))?;
    if loaded.as_ref().is_some_and(|set| set.has_revoked(&taken)) {
        return Err(unusable("holds an authority that was revoked: give another one, with another key".to_owned()));
    }
    if loaded.is_some_and(|set| is_renamed(&taken, set.signing())) {
        let problem = "has the key of the authority in use under another name or key identifier, which certificates \
                       below it would not fit: give it with the same ones, or another key";
        return Err(unusable(problem.to_owned()));
    }
    Ok(taken)
}

fn unusable(name: AuthorityName, secret: &str, problem: &str) -> Blocker {
    Blocker { reason: UNUSABLE, message: format!("{}: Secret {secret} {problem}", given_authority_field(name)) }
}

/// What the certificates below an authority are for. The controller-manager signs for kubelets and users, too.
fn usages(name: AuthorityName) -> Vec<ExtendedUsage> {
    LEAVES.iter().filter(|leaf| leaf.issuer == name).flat_map(|leaf| leaf.usages.iter().copied()).collect()
}

fn is_renamed(given: &Authority, used: &Authority) -> bool {
    let (given, used) = (given.facts(), used.facts());
    given.subject_public_key_info == used.subject_public_key_info && !given.is_renewal_of(used)
}

/// The Secret that Keyplane keeps.
fn own(cluster: &Cluster, observed: &Observed, name: AuthorityName) -> Option<AuthoritySet> {
    let secret_name = names::authority_secret(&cluster.name, name);
    match observed.secret(&cluster.name, &secret_name) {
        Slot::Ours(secret) => AuthoritySet::from_secret(&secret_name, secret).ok(),
        Slot::Free | Slot::Foreign(_) => None,
    }
}

/// Nobody may be let in by two of the authorities: neither may be the other one, or above it.
fn clash(
    cluster: &Cluster,
    observed: &Observed,
    given: &Given,
    name: AuthorityName,
    found: &Authority,
) -> Option<Blocker> {
    let line = line(found);
    let is_one_of = |authority: &Authority, line: &[CertificateFacts]| {
        line.iter().any(|above| above.subject_public_key_info == authority.facts().subject_public_key_info)
    };
    let clashes = |other: &Authority| is_one_of(found, &self::line(other)) || is_one_of(other, &line);
    let other = cluster.authority_names().filter(|other| *other != name).find(|other| {
        let used = own(cluster, observed, *other);
        let used = used.as_ref().into_iter().flat_map(|set| std::iter::once(set.signing()).chain(set.other()));
        let given = given.get(other).and_then(|given| given.as_ref().ok());
        used.chain(given).any(clashes)
    })?;
    let problem = format!(
        "holds an authority that is that of {0} too, or above it or below it: who is let in by the one would be let in by \
         the other; give {1} and {0} an authority each, neither below the other",
        other.name(),
        name.name()
    );
    Some(unusable(name, found.name(), &problem))
}

/// It, those above it, and the root.
fn line(authority: &Authority) -> Vec<CertificateFacts> {
    let above = [Some(authority.above()), authority.root()].into_iter().flatten();
    let above = above.flat_map(|pem| certificates_in(authority.name(), pem).unwrap_or_default());
    std::iter::once(authority.facts().clone()).chain(above).collect()
}

/// How another authority differs from the one in use.
pub(super) enum Difference {
    /// In nothing.
    None,
    /// It has another certificate of the same key.
    Certificate,
    /// It is another one.
    Key,
}

pub(super) fn difference(set: &AuthoritySet, given: &Authority) -> Difference {
    if set.signing().is_same_as(given) {
        Difference::None
    } else if given.facts().is_renewal_of(set.signing().facts()) {
        Difference::Certificate
    } else {
        Difference::Key
    }
}

/// The value by which a given authority asks for a rotation: the beginning of its fingerprint.
pub(super) fn request_of(given: &Authority) -> String {
    let fingerprint = given.facts().fingerprint();
    format!("given-{}", fingerprint.get(..16).unwrap_or(&fingerprint))
}

/// Whether the authorities are those that are given; nothing where none is.
pub(super) fn outcome(
    cluster: &Cluster,
    observed: &Observed,
    authorities: Option<&Authorities>,
    now: Timestamp,
) -> Option<Outcome> {
    let of = |(name, given): (AuthorityName, Result<Authority, Blocker>)| {
        let set = authorities.and_then(|authorities| authorities.get(name));
        verdict(cluster, name, given, set)
    };
    let verdicts: Vec<_> = given(cluster, observed, now).into_iter().map(of).collect();
    let reasons = || verdicts.iter().filter_map(|(reason, _)| *reason);
    // What waits for a person comes before what comes by itself.
    let reason = reasons().find(|reason| [NOT_FOUND, UNUSABLE].contains(reason)).or_else(|| reasons().next());
    let words = |bad: bool| {
        let which = verdicts.iter().filter(|(reason, _)| reason.is_some() == bad);
        which.map(|(_, words)| words.as_str()).collect::<Vec<_>>().join("; ")
    };
    match (verdicts.is_empty(), reason) {
        (true, _) => None,
        (false, None) => Some(Outcome::good(reasons::IN_SYNC, words(false))),
        (false, Some(reason)) => Some(Outcome::bad(reason, words(true))),
    }
}

/// The reason if it is not as given, and the words.
fn verdict(
    cluster: &Cluster,
    name: AuthorityName,
    given: Result<Authority, Blocker>,
    set: Option<&AuthoritySet>,
) -> (Option<&'static str>, String) {
    let copy = names::authority_secret(&cluster.name, name);
    let given = match given {
        Ok(given) => given,
        Err(blocker) => {
            let goes_on = match set {
                Some(_) => format!("; the cluster goes on with what Secret {copy} has"),
                None => String::new(),
            };
            return (Some(blocker.reason), format!("{}{goes_on}", blocker.message));
        }
    };
    let (name, from) = (name.name(), given.name());
    let Some(set) = set else {
        return (Some(reasons::NOT_ADOPTED), format!("{name} of Secret {from} is not in use yet"));
    };
    let requested = request_of(&given);
    let is_given = |authority: &Authority| given.facts().is_renewal_of(authority.facts());
    if set.stage().is_some() {
        let words = match set.old_and_new() {
            Some((_, new)) if is_given(new) => format!("{name} is being replaced by the one of Secret {from}"),
            _ => format!("{name} is being replaced by another one: that of Secret {from} is taken up after it"),
        };
        return (Some(reasons::ROTATION_IN_PROGRESS), words);
    }
    match difference(set, &given) {
        Difference::None => (None, format!("{name} is that of Secret {from}")),
        Difference::Certificate => (
            Some(reasons::WAITING_TO_START),
            format!("{name} gets the certificate of Secret {from}: see RotationsCompleted"),
        ),
        Difference::Key if cluster.rotate.rolls_back(&requested) => (
            Some(reasons::ROLLED_BACK),
            format!(
                "{name} is not that of Secret {from}, as spec.rotate.rollBack is {requested:?}: put the former one into the \
                 Secret, or take the reference away"
            ),
        ),
        Difference::Key => (
            Some(reasons::WAITING_TO_START),
            format!("{name} becomes that of Secret {from} by a rotation: see RotationsCompleted"),
        ),
    }
}
