//! The Secrets `<cluster>-user-<name>-kubeconfig`: kubeconfigs for the users of a cluster.

use k8s_openapi::api::core::v1::Secret as SecretObject;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{keys, reasons};
use kube::ResourceExt;

use super::node::Asked;
use super::signing::{Desk, Need, waits_for_signer};
use super::{Content, Draft, Kind, Pair, Plan, Removal, Source, Step, user_kubeconfig};
use crate::authorities::Authorities;
use crate::inventory::{USER_ISSUER, USER_USAGES, user_certificate, user_subject};
use crate::model::{Cluster, User};
use crate::names;
use crate::objects;
use crate::observed::Observed;
use crate::observed::Slot;
use crate::pki::{CertificateOrder, valid_for};

/// Plans the Secrets of the users that there are, and the end of those of users that there are no more.
pub(super) fn plan(
    cluster: &Cluster,
    authorities: &Authorities,
    desk: &mut Desk<'_>,
    observed: &Observed,
    now: Timestamp,
    plan: &mut Plan,
) {
    for user in &cluster.users {
        plan_user(cluster, user, authorities, desk, observed, now, plan);
    }
    for (name, secret) in &observed.secrets {
        let Some(user) = secret.labels().get(keys::USER_LABEL) else { continue };
        let ours = matches!(observed.secret(&cluster.name, name), Slot::Ours(_));
        let declared = cluster.users.iter().any(|declared| names::user_secret(&cluster.name, &declared.name) == *name);
        // Somebody may have copied the labels to a Secret of another name.
        if ours && !declared && *name == names::user_secret(&cluster.name, user) {
            plan.steps.push(Step::Removal(Box::new(removal(name, user, secret))));
        }
    }
}

fn removal(name: &str, user: &str, secret: &SecretObject) -> Removal {
    let end = secret.annotations().get(keys::NOT_AFTER_ANNOTATION).map_or("its end", String::as_str);
    Removal {
        kind: Kind::Secret,
        name: name.to_owned(),
        uid: secret.uid(),
        resource_version: secret.resource_version(),
        reason: reasons::USER_REMOVED,
        note: format!(
            "deleted Secret {name}: user {user} is not in spec.users any more. A certificate can't be taken back: who has a \
             copy is let in until {end}, so take the bindings of {user} and its groups away in the target"
        ),
    }
}

fn plan_user(
    cluster: &Cluster,
    user: &User,
    authorities: &Authorities,
    desk: &mut Desk<'_>,
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
    let order = CertificateOrder {
        subject: user_subject(user),
        alternative_names: vec![],
        extended_usages: USER_USAGES.to_vec(),
        not_before,
        not_after,
    };
    let stored = found.and_then(user_kubeconfig::stored_pair);
    let certificate = user_certificate(&user.name);
    let Some(issuer) = authorities.get(USER_ISSUER).map(|set| set.issuer(false)) else { return };
    let id = format!("user-{}-kubeconfig", user.name);
    let need = Need { id, certificate: &certificate, authority: USER_ISSUER, order, terms, stored };
    let Some(source) = desk.source(need, issuer, &Asked::of(cluster, found, now), plan) else {
        return plan.blockers.push(waits_for_signer(cluster, &name));
    };
    if let (Some(found), Source::Keep(pair)) = (found, &source) {
        let wanted = compose(cluster, user, authorities, pair);
        if found.data == wanted.data && objects::has_metadata(&found.metadata, &wanted.metadata) {
            return;
        }
    }
    let content = Content::User { user: user.name.clone(), source };
    plan.steps.push(Step::Secret(Box::new(Draft { name, content })));
}

/// The Secret from its certificate.
#[must_use]
pub fn compose(cluster: &Cluster, user: &User, authorities: &Authorities, pair: &Pair) -> SecretObject {
    let name = names::user_secret(&cluster.name, &user.name);
    let mut secret = user_kubeconfig::secret(cluster, name, "Opaque", &user.name, authorities, pair);
    secret.labels_mut().insert(keys::USER_LABEL.to_owned(), user.name.clone());
    secret
}
