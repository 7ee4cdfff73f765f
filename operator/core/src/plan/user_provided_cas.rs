//! User-provided CAs: reads them from the user's Secrets and compares them with the CAs in use.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::referenced_secrets::{NOT_FOUND, UNUSABLE};
use crate::blocker::Blocker;
use crate::certificate_authorities::CaSet;
use crate::inventory::LEAVES;
use crate::model::{Cluster, user_provided_ca_field};
use crate::names::{self, MANAGED_BY, MANAGED_BY_LABEL};
use crate::objects;
use crate::observed::{Observed, Slot};
use crate::pki::{CaName, CertificateAuthority, CertificateFacts, ExtendedUsage, certificates_in, user_provided_ca};

/// The user-provided CAs, or the reason why one can't be used.
pub(crate) type UserProvidedCas = BTreeMap<CaName, Result<CertificateAuthority, Blocker>>;

/// Reads all CAs that `spec.certificateAuthorities` references.
pub(crate) fn read_all(cluster: &Cluster, observed: &Observed, now: Timestamp) -> UserProvidedCas {
    let read = |name| Some((name, read(cluster, observed, name, cluster.user_provided_ca(name)?, now)));
    let mut user_provided: UserProvidedCas = cluster.ca_names().filter_map(read).collect();
    let clashes: Vec<_> = user_provided
        .iter()
        .filter_map(|(name, found)| {
            Some((*name, clash(cluster, observed, &user_provided, *name, found.as_ref().ok()?)?))
        })
        .collect();
    for (name, blocker) in clashes {
        user_provided.insert(name, Err(blocker));
    }
    user_provided
}

fn read(
    cluster: &Cluster,
    observed: &Observed,
    name: CaName,
    secret_name: &str,
    now: Timestamp,
) -> Result<CertificateAuthority, Blocker> {
    let field = user_provided_ca_field(name);
    let Some(secret) = observed.secrets.get(secret_name) else {
        let message = format!(
            "{field}: Secret {secret_name} does not exist: create it with tls.crt (the CA certificate, followed by \
             its intermediates) and tls.key, for example `kubectl create secret tls {secret_name} -n {} --cert=tls.crt \
             --key=tls.key`",
            cluster.namespace
        );
        return Err(Blocker { reason: NOT_FOUND, message });
    };
    let unusable = |problem: String| unusable(name, secret_name, &problem);
    if secret.labels().get(MANAGED_BY_LABEL).is_some_and(|by| by == MANAGED_BY) {
        // An object with this label is deleted with the cluster.
        return Err(unusable(format!("has Keyplane's label {MANAGED_BY_LABEL}={MANAGED_BY}: remove the label")));
    }
    let text = |key| objects::text(secret, key);
    let certificates = text("tls.crt").ok_or_else(|| {
        unusable("lacks tls.crt: put the CA certificate there, followed by its intermediates".to_owned())
    })?;
    let loaded = own(cluster, observed, name);
    let is_outside = loaded.as_ref().map(|set| set.signing().key().is_none());
    let key = match (text("tls.key"), is_outside) {
        // An external CA. A key that appears later is ignored.
        (None, None | Some(true)) | (Some(_), Some(true)) => None,
        (None, Some(false)) => {
            let problem = "lacks tls.key: put the CA key there; an external CA without a key can only be used for \
                           a new cluster";
            return Err(unusable(problem.to_owned()));
        }
        (Some(key), _) => Some(key),
    };
    let taken = user_provided_ca(secret_name, (certificates, key, text("ca.crt")), &usages(name), now)
        .map_err(|unfit| unusable(format!("can't be used: {unfit}")))?;
    if loaded.as_ref().is_some_and(|set| set.has_revoked(&taken)) {
        return Err(unusable("holds a CA that was revoked: provide another one, with another key".to_owned()));
    }
    if loaded.is_some_and(|set| is_renamed(&taken, set.signing())) {
        let problem = "has the key of the CA in use with another subject or key identifier, which certificates \
                       issued by it would not match: provide it with the same ones, or use another key";
        return Err(unusable(problem.to_owned()));
    }
    Ok(taken)
}

fn unusable(name: CaName, secret: &str, problem: &str) -> Blocker {
    Blocker { reason: UNUSABLE, message: format!("{}: Secret {secret} {problem}", user_provided_ca_field(name)) }
}

/// Returns the extended key usages of the certificates that a CA issues. The controller-manager signs for kubelets and
/// users, too.
fn usages(name: CaName) -> Vec<ExtendedUsage> {
    LEAVES.iter().filter(|leaf| leaf.issuer == name).flat_map(|leaf| leaf.usages.iter().copied()).collect()
}

fn is_renamed(user_provided: &CertificateAuthority, used: &CertificateAuthority) -> bool {
    let (user_provided, used) = (user_provided.facts(), used.facts());
    user_provided.subject_public_key_info == used.subject_public_key_info && !user_provided.is_renewal_of(used)
}

/// Returns the CA in Keyplane's own Secret.
fn own(cluster: &Cluster, observed: &Observed, name: CaName) -> Option<CaSet> {
    let secret_name = names::ca_secret(&cluster.name, name);
    match observed.secret(&cluster.name, &secret_name) {
        Slot::Ours(secret) => CaSet::from_secret(&secret_name, secret).ok(),
        Slot::Free | Slot::Foreign(_) => None,
    }
}

/// Returns a blocker if two CAs would accept the same clients: a CA must neither be another one nor be above it.
fn clash(
    cluster: &Cluster,
    observed: &Observed,
    user_provided: &UserProvidedCas,
    name: CaName,
    found: &CertificateAuthority,
) -> Option<Blocker> {
    let line = line(found);
    let is_one_of = |ca: &CertificateAuthority, line: &[CertificateFacts]| {
        line.iter().any(|above| above.subject_public_key_info == ca.facts().subject_public_key_info)
    };
    let clashes = |other: &CertificateAuthority| is_one_of(found, &self::line(other)) || is_one_of(other, &line);
    let other = cluster.ca_names().filter(|other| *other != name).find(|other| {
        let used = own(cluster, observed, *other);
        let used = used.as_ref().into_iter().flat_map(|set| std::iter::once(set.signing()).chain(set.other()));
        let user_provided = user_provided.get(other).and_then(|user_provided| user_provided.as_ref().ok());
        used.chain(user_provided).any(clashes)
    })?;
    let problem = format!(
        "holds a CA that is also {0}, or above it or below it: clients of the one would be accepted by \
         the other; use separate CAs for {1} and {0}, neither below the other",
        other.name(),
        name.name()
    );
    Some(unusable(name, found.name(), &problem))
}

/// Returns the CA's certificate, those of its intermediates, and the root.
fn line(ca: &CertificateAuthority) -> Vec<CertificateFacts> {
    let above = [Some(ca.intermediates()), ca.root()].into_iter().flatten();
    let above = above.flat_map(|pem| certificates_in(ca.name(), pem).unwrap_or_default());
    std::iter::once(ca.facts().clone()).chain(above).collect()
}

/// The difference between a user-provided CA and the one in use.
pub(crate) enum Difference {
    /// No difference.
    None,
    /// Another certificate of the same key.
    Certificate,
    /// Another CA.
    Key,
}

pub(crate) fn difference(set: &CaSet, user_provided: &CertificateAuthority) -> Difference {
    if set.signing().is_same_as(user_provided) {
        Difference::None
    } else if user_provided.facts().is_renewal_of(set.signing().facts()) {
        Difference::Certificate
    } else {
        Difference::Key
    }
}

/// Returns the value of the rotation request of a user-provided CA: the beginning of its fingerprint.
pub(crate) fn request_of(user_provided: &CertificateAuthority) -> String {
    let fingerprint = user_provided.facts().fingerprint();
    format!("given-{}", fingerprint.get(..16).unwrap_or(&fingerprint))
}
