//! What is asked for of an authority or key that is not being rotated, and why it has not begun.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::given_authorities::{self, Difference, Given, difference, request_of};
use super::rotation::{state_of, waits_to_begin};
use crate::authorities::secret_of;
use crate::authorities::{Authorities, AuthoritySet};
use crate::model::{Cluster, given_authority_field};
use crate::observed::Observed;
use crate::pki::Authority;
use crate::pki::AuthorityName;
use crate::rotation::Subject;

/// What is asked for of an authority or key that is not being rotated.
#[derive(Debug)]
pub(super) enum Asked {
    /// Nothing.
    Nothing,
    /// Another one.
    Rotation {
        /// The value that asks for it.
        requested: String,
        /// The one that the user gives.
        given: Option<Box<Authority>>,
    },
    /// Another certificate of the same key; the one that the user gives.
    Renewal(Option<Box<Authority>>),
    /// What can't be done, with the cure.
    Refused(String),
}

/// Decides it. A given authority is taken out of `given` where it is used.
pub(super) fn asked(
    cluster: &Cluster,
    authorities: &Authorities,
    subject: Subject,
    secret: &Secret,
    given: &mut Given,
) -> Asked {
    let rotate = &cluster.rotate;
    let rotation = rotate.of(subject).open(secret.annotations()).filter(|value| !rotate.rolls_back(value));
    let of_key = |rotation: Option<String>| {
        rotation.map_or(Asked::Nothing, |requested| Asked::Rotation { requested, given: None })
    };
    let Subject::Authority(name) = subject else { return of_key(rotation) };
    let Some(set) = authorities.get(name) else { return Asked::Nothing };
    let renewal = rotate.renewal().open(secret.annotations());
    if set.signing().key().is_none() {
        return of_outside(name, set, secret, given, rotation.or(renewal));
    }
    if let Some(given_secret) = cluster.given_authority(name) {
        if let Some(Ok(authority)) = given.remove(&name) {
            let requested = request_of(&authority);
            match difference(set, &authority) {
                Difference::Certificate => return Asked::Renewal(Some(Box::new(authority))),
                Difference::Key if !rotate.rolls_back(&requested) => {
                    return Asked::Rotation { requested, given: Some(Box::new(authority)) };
                }
                Difference::None | Difference::Key => {}
            }
        }
        let (field, name) = (given_authority_field(name), name.name());
        return match (rotation, renewal) {
            (Some(value), _) => Asked::Refused(format!(
                "spec.rotate asks for another {name} ({value:?}), and {field} gives it: put the next one with its key into \
                 Secret {given_secret}, or take the reference away, so that Keyplane makes one"
            )),
            (None, Some(value)) => Asked::Refused(format!(
                "spec.rotate.renewCertificateAuthorities ({value:?}) can't renew {name}, as {field} gives it: put a renewed \
                 certificate of the same key into Secret {given_secret}"
            )),
            (None, None) => Asked::Nothing,
        };
    }
    match renewal {
        Some(value) if rotation.is_none() => {
            if set.signing().facts().is_self_signed() {
                return Asked::Renewal(None);
            }
            Asked::Refused(format!(
                "spec.rotate.renewCertificateAuthorities ({value:?}) can't renew {}: another authority has signed its \
                 certificate in Secret {}; have that one sign a new one, and give it in {}",
                name.name(),
                secret.name_any(),
                given_authority_field(name),
            ))
        }
        _ => of_key(rotation),
    }
}

/// An authority whose owner signs outside gets another certificate of the same key from its owner, and nothing else.
fn of_outside(
    name: AuthorityName,
    set: &AuthoritySet,
    secret: &Secret,
    given: &mut Given,
    requested: Option<String>,
) -> Asked {
    let given = given.remove(&name).and_then(Result::ok);
    let difference = given.as_ref().map_or(Difference::None, |given| difference(set, given));
    match (difference, given) {
        (Difference::Certificate, Some(given)) => Asked::Renewal(Some(Box::new(given))),
        (Difference::Key, Some(given)) => Asked::Refused(format!(
            "Secret {} holds another authority {}: one whose owner signs outside can't be replaced, as nobody here could \
             prove that what the former one has signed is refused; put the former one back (Secret {} has its certificate)",
            given.name(),
            name.name(),
            secret.name_any()
        )),
        (_, _) => requested.map_or(Asked::Nothing, |value| {
            Asked::Refused(format!(
                "spec.rotate ({value:?}) can't make {} anew or renew it, as its owner signs outside: put a renewed \
                 certificate of the same key into the Secret of {}",
                name.name(),
                given_authority_field(name)
            ))
        }),
    }
}

impl Asked {
    /// What it waits for before it begins.
    pub(super) fn waits(
        &self,
        cluster: &Cluster,
        authorities: &Authorities,
        observed: &Observed,
        subject: Subject,
        rollout: Option<&str>,
        now: Timestamp,
    ) -> Vec<String> {
        let mut waits = vec![];
        match (self, subject) {
            (Self::Nothing | Self::Refused(_), _) => return waits,
            (Self::Renewal(_), Subject::Authority(name)) => {
                let set = authorities.get(name);
                // Nothing answers any more that could be waited for.
                if set.is_some_and(|set| set.signing().facts().not_after <= now) {
                    return waits;
                }
                if authorities.is_rotating() {
                    waits.push("the rotations that are under way".to_owned());
                }
            }
            (Self::Rotation { .. } | Self::Renewal(_), _) => {}
        }
        waits.extend(waits_to_begin(cluster, observed, rollout, now));
        waits
    }
}

/// What was asked for and was not begun.
#[derive(Debug, Default)]
pub(super) struct NotBegun {
    /// What is waited for, in words; nothing if it begins.
    pub(super) waits: Option<String>,
    /// What is refused, each with the cure.
    pub(super) refused: Vec<String>,
}

/// What was asked for and was not begun, and why not.
#[must_use]
pub(super) fn not_begun(
    cluster: &Cluster,
    authorities: &Authorities,
    observed: &Observed,
    rollout: Option<&str>,
    now: Timestamp,
) -> NotBegun {
    let mut given = given_authorities::given(cluster, observed, now);
    let (mut names, mut waits, mut refused) = (BTreeMap::<_, Vec<_>>::new(), vec![], vec![]);
    for subject in Subject::ALL {
        let Some(secret) = secret_of(cluster, observed, subject) else { continue };
        if state_of(authorities, subject).is_some_and(|state| state.stage.is_some()) {
            continue;
        }
        let asked = asked(cluster, authorities, subject, secret, &mut given);
        let what = match &asked {
            Asked::Nothing => continue,
            Asked::Refused(why) => {
                refused.push(why.clone());
                continue;
            }
            Asked::Rotation { .. } => "rotation",
            Asked::Renewal(_) => "renewal",
        };
        let more = asked.waits(cluster, authorities, observed, subject, rollout, now);
        if more.is_empty() {
            continue;
        }
        names.entry(what).or_default().push(subject.name());
        waits.extend(more.into_iter().filter(|wait| !waits.contains(wait)).collect::<Vec<_>>());
    }
    let of = |(what, names): (&&str, &Vec<&str>)| format!("the {what} of {}", names.join(", "));
    let what = names.iter().map(of).collect::<Vec<_>>().join(" and ");
    let waits = (!waits.is_empty()).then(|| format!("{what} waits for {}", waits.join("; ")));
    NotBegun { waits, refused }
}
