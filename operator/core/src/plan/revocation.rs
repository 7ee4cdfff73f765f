//! Revocations: what is in wrong hands loses its power at once, after somebody was told what that costs and has confirmed
//! it.
//!
//! One write of the authority's Secret does it: the new one takes the place of the old one, of which nothing is left but
//! what is needed to see that it is refused everywhere. All else follows from that Secret, as in a rotation.

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{RevocationStatus, keys, reasons};
use kube::ResourceExt;

use super::given_authorities::{self, Difference, Given, difference};
use super::rotation::{Move, Successor};
use super::status::Outcome;
use super::{Content, Draft, Plan, Step, revocation_notice};
use crate::authorities::Authorities;
use crate::authorities::secret_of;
use crate::model::{Cluster, given_authority_field};
use crate::observed::Observed;
use crate::pki::AuthorityName;
use crate::pki::{Authority, PrivateKey, valid_for};
use crate::rotation::revocation::confirmation;
use crate::rotation::{State, Subject};

/// A revocation that was asked for and not carried out.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) subject: Subject,
    requested: String,
    word: String,
    /// The one that the user gives in its place; why there is none where the user gives the authority.
    given: Option<Result<Box<Authority>, String>>,
}

impl Asked {
    fn is_confirmed(&self, cluster: &Cluster) -> bool {
        cluster.rotate.confirms_revocation(&self.word) && !matches!(self.given, Some(Err(_)))
    }
}

/// What was asked for.
fn asked(cluster: &Cluster, authorities: &Authorities, observed: &Observed, now: Timestamp) -> Vec<Asked> {
    let mut given = given_authorities::given(cluster, observed, now);
    let of = |subject: Subject| {
        let secret = secret_of(cluster, observed, subject)?;
        let requested = cluster.rotate.revocation_of(subject).open(secret.annotations())?;
        let word = confirmation(subject, &requested, &going(authorities, subject)?);
        let given = match subject {
            Subject::Authority(name) => successor(cluster, authorities, name, &mut given),
            Subject::ServiceAccountKey => None,
        };
        Some(Asked { subject, requested, word, given })
    };
    Subject::ALL.into_iter().filter_map(of).collect()
}

/// The successor of an authority that the user gives. The one that is to be revoked may still be in the Secret: nothing is
/// made in its place, as what is in the Secret would come back after it.
fn successor(
    cluster: &Cluster,
    authorities: &Authorities,
    name: AuthorityName,
    given: &mut Given,
) -> Option<Result<Box<Authority>, String>> {
    let set = authorities.get(name);
    if set.is_some_and(|set| set.signing().key().is_none()) {
        return Some(Err(format!(
            "the owner of {} signs outside, and Keyplane can't replace it: have it sign nothing more, and move to a new \
             cluster",
            name.name()
        )));
    }
    let secret = cluster.given_authority(name)?;
    let field = given_authority_field(name);
    let next = format!("put the next one with its key into Secret {secret}, or take the reference {field} away");
    Some(match (given.remove(&name)?, set) {
        (Ok(authority), Some(set)) if matches!(difference(set, &authority), Difference::Key) => Ok(Box::new(authority)),
        (Ok(_), _) => Err(format!("Secret {secret} still has the one that is to be revoked: {next}")),
        (Err(blocker), _) => Err(format!("{}; {next}", blocker.message)),
    })
}

/// What would not be good any more.
fn going(authorities: &Authorities, subject: Subject) -> Option<Vec<String>> {
    Some(match subject {
        Subject::Authority(name) => {
            let set = authorities.get(name)?;
            std::iter::once(set.signing()).chain(set.other()).map(|one| one.facts().fingerprint()).collect()
        }
        Subject::ServiceAccountKey => {
            let keys = authorities.service_account();
            std::iter::once(keys.signing()).chain(keys.other()).map(PrivateKey::token_key_id).collect()
        }
    })
}

/// Plans the revocations that are confirmed, whatever else is under way or in the way.
pub(super) fn plan(
    cluster: &Cluster,
    authorities: &Authorities,
    observed: &Observed,
    now: Timestamp,
    plan: &mut Plan,
) -> bool {
    let asked = asked(cluster, authorities, observed, now);
    let confirmed = asked.into_iter().filter(|asked| asked.is_confirmed(cluster));
    let steps = confirmed.filter_map(|Asked { subject, requested, given, .. }| {
        let name = secret_of(cluster, observed, subject)?.name_any();
        let (not_before, not_after) = valid_for(now, cluster.policy.authority_validity);
        let algorithm = match subject {
            Subject::Authority(_) => cluster.policy.authority_key_algorithm,
            Subject::ServiceAccountKey => cluster.policy.default_leaf().key_algorithm,
        };
        let successor = match given {
            Some(given) => Successor::Given(given.ok()?),
            None => Successor::Made { algorithm, not_after },
        };
        let step = Move::Revoke { successor, not_before, state: State::revoke(Some(requested), now) };
        Some(Step::Secret(Box::new(Draft { name, content: Content::Rotation { subject, step } })))
    });
    let before = plan.steps.len();
    plan.steps.extend(steps);
    plan.steps.len() > before
}

/// What to tell of the revocations that wait for their confirmation.
pub(super) fn report(
    cluster: &Cluster,
    authorities: &Authorities,
    observed: &Observed,
    now: Timestamp,
) -> Option<(RevocationStatus, Outcome)> {
    let mut asked = asked(cluster, authorities, observed, now);
    asked.retain(|asked| !asked.is_confirmed(cluster));
    if asked.is_empty() {
        return None;
    }
    let subjects: Vec<_> = asked.iter().map(|asked| asked.subject).collect();
    let names: Vec<_> = subjects.iter().map(|subject| subject.name().to_owned()).collect();
    let confirm = asked.iter().map(|asked| asked.word.as_str()).collect::<Vec<_>>().join(",");
    let message = format!(
        "nothing has happened yet: revoking {} interrupts the cluster; read status.revocation.steps, which say for how long \
         and what is left to do, then confirm with spec.rotate.revoke.confirm or the annotation {}: {confirm}",
        names.join(", "),
        keys::CONFIRM_REVOCATION_ANNOTATION,
    );
    let missing = asked.iter().filter_map(|asked| asked.given.as_ref()?.as_ref().err());
    let missing = missing.map(|why| format!("before it can be done: {why}"));
    let steps = missing.chain(revocation_notice::steps(cluster, observed, &subjects)).collect();
    Some((RevocationStatus { names, confirm, steps }, Outcome::bad(reasons::REVOCATION_NOT_CONFIRMED, message)))
}
