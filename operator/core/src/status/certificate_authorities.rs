//! The condition `CertificateAuthoritiesInSync` about user-provided CAs.

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::reasons;

use super::Outcome;
use crate::blocker::Blocker;
use crate::certificate_authorities::{CaSet, ClusterCas};
use crate::model::Cluster;
use crate::names;
use crate::observed::Observed;
use crate::pki::{CaName, CertificateAuthority};
use crate::plan::referenced_secrets::{NOT_FOUND, UNUSABLE};
use crate::plan::user_provided_cas::{Difference, difference, read_all, request_of};

/// Returns whether the CAs in use are the user-provided ones; `None` without user-provided CAs.
pub(super) fn outcome(
    cluster: &Cluster,
    observed: &Observed,
    cas: Option<&ClusterCas>,
    now: Timestamp,
) -> Option<Outcome> {
    let of = |(name, user_provided): (CaName, Result<CertificateAuthority, Blocker>)| {
        let set = cas.and_then(|cas| cas.get(name));
        verdict(cluster, name, user_provided, set)
    };
    let verdicts: Vec<_> = read_all(cluster, observed, now).into_iter().map(of).collect();
    let reasons = || verdicts.iter().filter_map(|(reason, _)| *reason);
    // Problems that the user has to solve come before those that resolve by themselves.
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

/// Returns the reason if the CA in use differs from the user-provided one, and the message.
fn verdict(
    cluster: &Cluster,
    name: CaName,
    user_provided: Result<CertificateAuthority, Blocker>,
    set: Option<&CaSet>,
) -> (Option<&'static str>, String) {
    let copy = names::ca_secret(&cluster.name, name);
    let user_provided = match user_provided {
        Ok(user_provided) => user_provided,
        Err(blocker) => {
            let goes_on = match set {
                Some(_) => format!("; the cluster keeps the CA in Secret {copy}"),
                None => String::new(),
            };
            return (Some(blocker.reason), format!("{}{goes_on}", blocker.message));
        }
    };
    let (name, from) = (name.name(), user_provided.name());
    let Some(set) = set else {
        return (Some(reasons::NOT_ADOPTED), format!("{name} from Secret {from} is not in use yet"));
    };
    let requested = request_of(&user_provided);
    let is_user_provided = |ca: &CertificateAuthority| user_provided.facts().is_renewal_of(ca.facts());
    if set.stage().is_some() {
        let words = match set.old_and_new() {
            Some((_, new)) if is_user_provided(new) => format!("{name} is being rotated to the CA in Secret {from}"),
            _ => format!("{name} is being rotated to another CA; the rotation to the CA in Secret {from} follows"),
        };
        return (Some(reasons::ROTATION_IN_PROGRESS), words);
    }
    match difference(set, &user_provided) {
        Difference::None => (None, format!("{name} is the CA in Secret {from}")),
        Difference::Certificate => (
            Some(reasons::WAITING_TO_START),
            format!("{name} waits for its renewal with the certificate in Secret {from}: see RotationsCompleted"),
        ),
        Difference::Key if cluster.rotate.rolls_back(&requested) => (
            Some(reasons::ROLLED_BACK),
            format!(
                "{name} differs from the CA in Secret {from}, because spec.rotate.rollBack is {requested:?}: put the \
                 CA in use into the Secret, or remove the reference"
            ),
        ),
        Difference::Key => (
            Some(reasons::WAITING_TO_START),
            format!("{name} waits for its rotation to the CA in Secret {from}: see RotationsCompleted"),
        ),
    }
}
