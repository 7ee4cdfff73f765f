//! Revocations: a leaked CA or key is replaced at once, after the user has read the consequences and confirmed them.
//!
//! One write of the CA's Secret revokes the old CA. The new CA takes its place, and only the old certificate stays, to
//! probe that every server rejects it. All other writes follow from that Secret, as in a rotation.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::rotation::{RotationStep, Successor};
use super::user_provided_cas::{self, Difference, UserProvidedCas, difference};
use super::{Content, Draft, Plan, Step};
use crate::certificate_authorities::{ClusterCas, secret_of};
use crate::model::{Cluster, user_provided_ca_field};
use crate::observed::Observed;
use crate::pki::{CaName, CertificateAuthority, PrivateKey, valid_for};
use crate::rotation::revocation::confirmation;
use crate::rotation::{State, Subject};

/// A revocation that is requested and not executed yet.
#[derive(Debug)]
pub(crate) struct RevocationRequest {
    pub(crate) subject: Subject,
    requested: String,
    pub(crate) confirmation: String,
    /// The user-provided successor, or the reason why there is none yet. `None` if Keyplane generates the successor.
    pub(crate) user_provided: Option<Result<Box<CertificateAuthority>, String>>,
}

impl RevocationRequest {
    pub(crate) fn is_confirmed(&self, cluster: &Cluster) -> bool {
        cluster.rotate.confirms_revocation(&self.confirmation) && !matches!(self.user_provided, Some(Err(_)))
    }
}

/// Returns the requested revocations.
pub(crate) fn requested_revocations(
    cluster: &Cluster,
    cas: &ClusterCas,
    observed: &Observed,
    now: Timestamp,
) -> Vec<RevocationRequest> {
    let mut user_provided = user_provided_cas::read_all(cluster, observed, now);
    let of = |subject: Subject| {
        let secret = secret_of(cluster, observed, subject)?;
        let requested = cluster.rotate.revocation_of(subject).open(secret.annotations())?;
        let confirmation = confirmation(subject, &requested, &invalidated(cas, subject)?);
        let user_provided = match subject {
            Subject::CertificateAuthority(name) => successor(cluster, cas, name, &mut user_provided),
            Subject::ServiceAccountKey => None,
        };
        Some(RevocationRequest { subject, requested, confirmation, user_provided })
    };
    Subject::ALL.into_iter().filter_map(of).collect()
}

/// Returns the successor of a user-provided CA. The CA that is to be revoked may still be in the user's Secret. Then
/// Keyplane generates no successor, because the CA in the Secret would come back after the revocation.
fn successor(
    cluster: &Cluster,
    cas: &ClusterCas,
    name: CaName,
    user_provided: &mut UserProvidedCas,
) -> Option<Result<Box<CertificateAuthority>, String>> {
    let set = cas.get(name);
    if set.is_some_and(|set| set.signing().key().is_none()) {
        return Some(Err(format!(
            "{} is an external CA, which Keyplane can't replace: make sure that it signs nothing more, and move to a \
             new cluster",
            name.name()
        )));
    }
    let secret = cluster.user_provided_ca(name)?;
    let field = user_provided_ca_field(name);
    let next = format!("put the new CA with its key into Secret {secret}, or remove the reference {field}");
    Some(match (user_provided.remove(&name)?, set) {
        (Ok(ca), Some(set)) if matches!(difference(set, &ca), Difference::Key) => Ok(Box::new(ca)),
        (Ok(_), _) => Err(format!("Secret {secret} still has the CA that is to be revoked: {next}")),
        (Err(blocker), _) => Err(format!("{}; {next}", blocker.message)),
    })
}

/// Returns the fingerprints or key ids that the revocation makes invalid.
fn invalidated(cas: &ClusterCas, subject: Subject) -> Option<Vec<String>> {
    Some(match subject {
        Subject::CertificateAuthority(name) => {
            let set = cas.get(name)?;
            std::iter::once(set.signing()).chain(set.other()).map(|one| one.facts().fingerprint()).collect()
        }
        Subject::ServiceAccountKey => {
            let keys = cas.service_account();
            std::iter::once(keys.signing()).chain(keys.other()).map(PrivateKey::token_key_id).collect()
        }
    })
}

/// Plans the confirmed revocations, regardless of rotations in progress and of blockers. Returns whether there is one.
pub(crate) fn plan(cluster: &Cluster, cas: &ClusterCas, observed: &Observed, now: Timestamp, plan: &mut Plan) -> bool {
    let requested_revocations = requested_revocations(cluster, cas, observed, now);
    let confirmed = requested_revocations.into_iter().filter(|request| request.is_confirmed(cluster));
    let steps = confirmed.filter_map(|RevocationRequest { subject, requested, user_provided, .. }| {
        let name = secret_of(cluster, observed, subject)?.name_any();
        let (not_before, not_after) = valid_for(now, cluster.policy.ca_validity);
        let algorithm = match subject {
            Subject::CertificateAuthority(_) => cluster.policy.ca_key_algorithm,
            Subject::ServiceAccountKey => cluster.policy.default_leaf().key_algorithm,
        };
        let successor = match user_provided {
            Some(user_provided) => Successor::UserProvided(user_provided.ok()?),
            None => Successor::Generated { algorithm, not_after },
        };
        let step = RotationStep::Revoke { successor, not_before, state: State::revoke(Some(requested), now) };
        Some(Step::Secret(Box::new(Draft { name, content: Content::Rotation { subject, step } })))
    });
    let before = plan.steps.len();
    plan.steps.extend(steps);
    plan.steps.len() > before
}
