//! Requests to rotate or renew a CA or key that is not being rotated, and the preconditions that they wait for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::user_provided_cas::{self, Difference, UserProvidedCas, difference, request_of};
use crate::agent_access;
use crate::certificate_authorities::{CaSet, ClusterCas, secret_of};
use crate::model::{Cluster, user_provided_ca_field};
use crate::observed::Observed;
use crate::pki::{CaName, CertificateAuthority};
use crate::rotation::{State, Subject};

/// A request for a CA or key that is not being rotated.
#[derive(Debug)]
pub(crate) enum RotationRequest {
    /// No request.
    None,
    /// A rotation to a new CA or key.
    Rotation {
        /// The value of the request.
        requested: String,
        /// The new CA, if the user provides it.
        user_provided: Option<Box<CertificateAuthority>>,
    },
    /// A renewal with the same key. The value is the new certificate, if the user provides it.
    Renewal(Option<Box<CertificateAuthority>>),
    /// A request that can't be fulfilled, with the remedy.
    Rejected(String),
}

/// Returns the request for a CA or key. A user-provided CA that the request uses is removed from `user_provided`.
pub(crate) fn rotation_request(
    cluster: &Cluster,
    cas: &ClusterCas,
    subject: Subject,
    secret: &Secret,
    user_provided: &mut UserProvidedCas,
) -> RotationRequest {
    let rotate = &cluster.rotate;
    let rotation = rotate.of(subject).open(secret.annotations()).filter(|value| !rotate.rolls_back(value));
    let of_key = |rotation: Option<String>| {
        rotation.map_or(RotationRequest::None, |requested| RotationRequest::Rotation { requested, user_provided: None })
    };
    let Subject::CertificateAuthority(name) = subject else { return of_key(rotation) };
    let Some(set) = cas.get(name) else { return RotationRequest::None };
    let renewal = rotate.renewal().open(secret.annotations());
    if set.signing().key().is_none() {
        return of_external_ca(name, set, secret, user_provided, rotation.or(renewal));
    }
    if let Some(secret_name) = cluster.user_provided_ca(name) {
        if let Some(Ok(ca)) = user_provided.remove(&name) {
            let requested = request_of(&ca);
            match difference(set, &ca) {
                Difference::Certificate => return RotationRequest::Renewal(Some(Box::new(ca))),
                Difference::Key if !rotate.rolls_back(&requested) => {
                    return RotationRequest::Rotation { requested, user_provided: Some(Box::new(ca)) };
                }
                Difference::None | Difference::Key => {}
            }
        }
        let (field, name) = (user_provided_ca_field(name), name.name());
        return match (rotation, renewal) {
            (Some(value), _) => RotationRequest::Rejected(format!(
                "spec.rotate requests a rotation of {name} ({value:?}), but {field} provides it: put the new CA with \
                 its key into Secret {secret_name}, or remove the reference, so that Keyplane generates one"
            )),
            (None, Some(value)) => RotationRequest::Rejected(format!(
                "spec.rotate.renewCertificateAuthorities ({value:?}) can't renew {name}, because {field} provides it: \
                 put a renewed certificate of the same key into Secret {secret_name}"
            )),
            (None, None) => RotationRequest::None,
        };
    }
    match renewal {
        Some(value) if rotation.is_none() => {
            if set.signing().facts().is_self_signed() {
                return RotationRequest::Renewal(None);
            }
            RotationRequest::Rejected(format!(
                "spec.rotate.renewCertificateAuthorities ({value:?}) can't renew {}: another CA has signed its \
                 certificate in Secret {}; have that CA sign a new one, and provide it in {}",
                name.name(),
                secret.name_any(),
                user_provided_ca_field(name),
            ))
        }
        _ => of_key(rotation),
    }
}

/// Returns the request for an external CA. The only possible change is a new certificate for the same key, which the
/// owner of the CA provides.
fn of_external_ca(
    name: CaName,
    set: &CaSet,
    secret: &Secret,
    user_provided: &mut UserProvidedCas,
    requested: Option<String>,
) -> RotationRequest {
    let user_provided = user_provided.remove(&name).and_then(Result::ok);
    let difference = user_provided.as_ref().map_or(Difference::None, |user_provided| difference(set, user_provided));
    match (difference, user_provided) {
        (Difference::Certificate, Some(user_provided)) => RotationRequest::Renewal(Some(Box::new(user_provided))),
        (Difference::Key, Some(user_provided)) => RotationRequest::Rejected(format!(
            "Secret {} holds another CA {}: an external CA can't be rotated, because Keyplane could not \
             prove that certificates of the old one are rejected; restore the old one (Secret {} has its certificate)",
            user_provided.name(),
            name.name(),
            secret.name_any()
        )),
        (_, _) => requested.map_or(RotationRequest::None, |value| {
            RotationRequest::Rejected(format!(
                "spec.rotate ({value:?}) can't rotate or renew {}, because it is an external CA: put a renewed \
                 certificate of the same key into the Secret of {}",
                name.name(),
                user_provided_ca_field(name)
            ))
        }),
    }
}

impl RotationRequest {
    /// Returns the preconditions that the request waits for.
    pub(crate) fn waits(
        &self,
        cluster: &Cluster,
        cas: &ClusterCas,
        observed: &Observed,
        subject: Subject,
        rollout: Option<&str>,
        now: Timestamp,
    ) -> Vec<String> {
        let mut waits = vec![];
        match (self, subject) {
            (Self::None | Self::Rejected(_), _) => return waits,
            (Self::Renewal(_), Subject::CertificateAuthority(name)) => {
                let set = cas.get(name);
                // With an expired CA no server answers, so there is nothing to wait for.
                if set.is_some_and(|set| set.signing().facts().not_after <= now) {
                    return waits;
                }
                if cas.is_rotating() {
                    waits.push("the rotations in progress".to_owned());
                }
            }
            (Self::Rotation { .. } | Self::Renewal(_), _) => {}
        }
        waits.extend(unmet_preconditions(cluster, observed, rollout, now));
        waits
    }
}

/// The requests that have not started.
#[derive(Debug, Default)]
pub(crate) struct NotStarted {
    /// The message about the preconditions; `None` if nothing waits.
    pub(crate) waits: Option<String>,
    /// The rejected requests, each with the remedy.
    pub(crate) rejected: Vec<String>,
}

/// Returns the requests that have not started, with the reasons.
#[must_use]
pub(crate) fn not_started(
    cluster: &Cluster,
    cas: &ClusterCas,
    observed: &Observed,
    rollout: Option<&str>,
    now: Timestamp,
) -> NotStarted {
    let mut user_provided = user_provided_cas::read_all(cluster, observed, now);
    let (mut names, mut waits, mut rejected) = (BTreeMap::<_, Vec<_>>::new(), vec![], vec![]);
    for subject in Subject::ALL {
        let Some(secret) = secret_of(cluster, observed, subject) else { continue };
        if state_of(cas, subject).is_some_and(|state| state.stage.is_some()) {
            continue;
        }
        let rotation_request = rotation_request(cluster, cas, subject, secret, &mut user_provided);
        let what = match &rotation_request {
            RotationRequest::None => continue,
            RotationRequest::Rejected(why) => {
                rejected.push(why.clone());
                continue;
            }
            RotationRequest::Rotation { .. } => "rotation",
            RotationRequest::Renewal(_) => "renewal",
        };
        let more = rotation_request.waits(cluster, cas, observed, subject, rollout, now);
        if more.is_empty() {
            continue;
        }
        names.entry(what).or_default().push(subject.name());
        waits.extend(more.into_iter().filter(|wait| !waits.contains(wait)).collect::<Vec<_>>());
    }
    let of = |(what, names): (&&str, &Vec<&str>)| format!("the {what} of {}", names.join(", "));
    let what = names.iter().map(of).collect::<Vec<_>>().join(" and ");
    let waits = (!waits.is_empty()).then(|| format!("{what} waits for {}", waits.join("; ")));
    NotStarted { waits, rejected }
}

pub(crate) fn state_of(cas: &ClusterCas, subject: Subject) -> Option<&State> {
    match subject {
        Subject::CertificateAuthority(name) => cas.get(name)?.state(),
        Subject::ServiceAccountKey => cas.service_account().state(),
    }
}

/// Returns the preconditions of a rotation that are not met.
pub(crate) fn unmet_preconditions(
    cluster: &Cluster,
    observed: &Observed,
    rollout: Option<&str>,
    now: Timestamp,
) -> Vec<String> {
    let mut waits = vec![];
    if !matches!(observed.target.available, Some(Ok(()))) {
        waits.push(format!("the API server at {} to answer", cluster.endpoint));
    }
    let ready = observed.target.control_plane(cluster);
    let not_ready = cluster.nodes.iter().filter(|node| ready.and_then(|ready| ready.get(&node.name)) != Some(&true));
    waits.extend(not_ready.map(|node| format!("{} to be Ready", node.name)));
    if cluster.external_etcd().is_none() {
        let ailing = observed.target.unhealthy_members(cluster);
        waits.extend(ailing.map(|node| format!("etcd on {node} to be a healthy voter")));
    }
    waits.extend(rollout.map(str::to_owned));
    waits.extend(outdated_nodes(cluster, observed, now));
    waits
}

/// Returns a message for each node that has not applied its current files, with the remedy.
pub(crate) fn outdated_nodes(cluster: &Cluster, observed: &Observed, now: Timestamp) -> Vec<String> {
    let held = |node: &String| agent_access::check_applied(cluster, observed, node, now).err();
    agent_access::machines(cluster, observed).iter().filter_map(held).collect()
}
