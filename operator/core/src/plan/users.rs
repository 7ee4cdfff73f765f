//! The Secrets `<cluster>-user-<name>-kubeconfig` with the kubeconfigs of the users of a cluster.

use k8s_openapi::api::core::v1::Secret as SecretObject;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{keys, reasons};
use kube::ResourceExt;

use super::external_signing::{CsrBatch, Need, waits_for_signer};
use super::leaf_source::RenewalInputs;
use super::{Content, Draft, Kind, Pair, Plan, Removal, Source, Step, user_kubeconfig};
use crate::certificate_authorities::ClusterCas;
use crate::inventory::{USER_ISSUER, USER_USAGES, user_certificate, user_subject};
use crate::model::{Cluster, User};
use crate::observed::{Observed, Slot};
use crate::pki::{CertificateTemplate, valid_for};
use crate::{names, objects};

/// Plans the Secrets of the declared users, and deletes those of removed users.
pub(crate) fn plan(
    cluster: &Cluster,
    cas: &ClusterCas,
    csr_batch: &mut CsrBatch<'_>,
    observed: &Observed,
    now: Timestamp,
    plan: &mut Plan,
) {
    for user in &cluster.users {
        plan_user(cluster, user, cas, csr_batch, observed, now, plan);
    }
    for (name, secret) in &observed.secrets {
        let Some(user) = secret.labels().get(keys::USER_LABEL) else { continue };
        let ours = matches!(observed.secret(&cluster.name, name), Slot::Ours(_));
        let declared = cluster.users.iter().any(|declared| names::user_secret(&cluster.name, &declared.name) == *name);
        // The labels may have been copied to a Secret of another name.
        if ours && !declared && *name == names::user_secret(&cluster.name, user) {
            plan.steps.push(Step::Removal(Box::new(removal(name, user, secret))));
        }
    }
}

fn removal(name: &str, user: &str, secret: &SecretObject) -> Removal {
    let end = secret.annotations().get(keys::NOT_AFTER_ANNOTATION).map_or("it expires", String::as_str);
    Removal {
        kind: Kind::Secret,
        name: name.to_owned(),
        uid: secret.uid(),
        resource_version: secret.resource_version(),
        reason: reasons::USER_REMOVED,
        note: format!(
            "deleted Secret {name}: user {user} is no longer in spec.users. A certificate can't be revoked: copies of \
             it are accepted until {end}, so delete the bindings of {user} and its groups in the target cluster"
        ),
    }
}

fn plan_user(
    cluster: &Cluster,
    user: &User,
    cas: &ClusterCas,
    csr_batch: &mut CsrBatch<'_>,
    observed: &Observed,
    now: Timestamp,
    plan: &mut Plan,
) {
    let name = names::user_secret(&cluster.name, &user.name);
    let found = match observed.secret(&cluster.name, &name) {
        Slot::Foreign(blocker) => return plan.blockers.push(blocker),
        Slot::Free => None,
        Slot::Ours(secret) => Some(secret),
    };
    let terms = cluster.user_terms(user);
    let (not_before, not_after) = valid_for(now, terms.validity);
    let order = CertificateTemplate {
        subject: user_subject(user),
        alternative_names: vec![],
        extended_usages: USER_USAGES.to_vec(),
        not_before,
        not_after,
    };
    let stored = found.and_then(user_kubeconfig::stored_pair);
    let certificate = user_certificate(&user.name);
    let Some(issuer) = cas.get(USER_ISSUER).map(|set| set.issuer(false)) else { return };
    let id = format!("user-{}-kubeconfig", user.name);
    let need = Need { id, certificate: &certificate, ca: USER_ISSUER, order, terms, stored };
    let Some(source) = csr_batch.source(need, issuer, &RenewalInputs::of(cluster, found, now), plan) else {
        return plan.blockers.push(waits_for_signer(cluster, &name));
    };
    if let (Some(found), Source::Keep(pair)) = (found, &source) {
        let wanted = compose(cluster, user, cas, pair);
        if found.data == wanted.data && objects::has_metadata(&found.metadata, &wanted.metadata) {
            return;
        }
    }
    let content = Content::User { user: user.name.clone(), source };
    plan.steps.push(Step::Secret(Box::new(Draft { name, content })));
}

/// Composes the Secret.
#[must_use]
pub fn compose(cluster: &Cluster, user: &User, cas: &ClusterCas, pair: &Pair) -> SecretObject {
    let name = names::user_secret(&cluster.name, &user.name);
    let mut secret = user_kubeconfig::secret(cluster, name, "Opaque", &user.name, cas, pair);
    secret.labels_mut().insert(keys::USER_LABEL.to_owned(), user.name.clone());
    secret
}
