//! Keys that a backup brings: nothing is made in their place.

use k8s_openapi::api::core::v1::Secret;
use keyplane_crds::{keys, reasons};
use kube::ResourceExt;

use super::{Content, Kind, Plan, Step};
use crate::blocker::Blocker;
use crate::model::{Cluster, Restore};
use crate::names;
use crate::observed::Observed;
use crate::observed::Slot;

/// The manager of the fields that Keyplane has written.
const FIELD_MANAGER: &str = "keyplane";

/// So many missing objects are named: the rest of a backup comes with them.
const NAMED: usize = 10;

/// Makes nothing that is missing while a backup is expected.
pub(super) fn hold(cluster: &Cluster, observed: &Observed, plan: &mut Plan) {
    if cluster.restore != Restore::Expected {
        return;
    }
    let mut missing = vec![];
    plan.steps.retain(|step| {
        let (kind, name, is_there) = match step {
            // What no backup has.
            Step::Secret(draft) if matches!(draft.content, Content::WorkerCredential { .. }) => return true,
            Step::Secret(draft) => (Kind::Secret, draft.name.clone(), observed.secrets.contains_key(&draft.name)),
            Step::ConfigMap(wanted) => {
                let name = wanted.name_any();
                let is_there = observed.config_maps.contains_key(&name);
                (Kind::ConfigMap, name, is_there)
            }
            Step::Removal(_) => return true,
        };
        if !is_there {
            missing.push(format!("{} {name}", kind.name()));
        }
        is_there
    });
    if missing.is_empty() {
        return;
    }
    let more = missing.len().saturating_sub(NAMED);
    missing.truncate(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    plan.blockers.push(Blocker {
        reason: reasons::WAITING_FOR_RESTORE,
        message: format!(
            "these are not there, and the annotation {} says that a backup brings them: {}{more}: restore them with their \
             labels and annotations; what the backup does not have is made once the annotation is gone",
            keys::RESTORE_ANNOTATION,
            missing.join(", ")
        ),
    });
}

/// What shows that keys which are missing are elsewhere, although nothing here tells of them: a backup of which a part is
/// back, or a cluster that runs on the machines.
pub(super) fn is_elsewhere(cluster: &Cluster, observed: &Observed, secret: &str) -> Option<Blocker> {
    if cluster.restore != Restore::Unsaid {
        return None;
    }
    let names = cluster.authority_names().map(|name| names::authority_secret(&cluster.name, name));
    let restored = names
        .chain([names::service_account_secret(&cluster.name)])
        .find(|name| matches!(observed.secret(&cluster.name, name), Slot::Ours(found) if is_restored(found)));
    if let Some(restored) = restored {
        return Some(Blocker {
            reason: reasons::WAITING_FOR_RESTORE,
            message: format!(
                "Secret {secret} is not there, and Secret {restored} came from a backup, so no new one is made: restore \
                 the rest, with labels and annotations; if the backup has no more, annotate this ClusterSpec with {}=false",
                keys::RESTORE_ANNOTATION
            ),
        });
    }
    let mut serving = observed.target.serving.iter();
    let (node, certificate) = serving.find(|(_, certificate)| certificate.is_of_api_server())?;
    Some(Blocker {
        reason: reasons::CLUSTER_ALREADY_RUNNING,
        message: format!(
            "an API server answers on {node} already, with a certificate of {} (serial {}, until {}), and Secret {secret} \
             is not here, so no new one is made, which would cut that cluster off: restore the backup of its Secrets; if \
             what runs there is to go, annotate this ClusterSpec with {}=false",
            certificate.issuer,
            certificate.serial,
            certificate.not_after,
            keys::RESTORE_ANNOTATION
        ),
    })
}

/// Whether somebody else has put it there, or put it there again after Keyplane had made it. Where nothing is noted of who
/// has written it, nobody knows.
fn is_restored(secret: &Secret) -> bool {
    let Some(entries) = &secret.metadata.managed_fields else { return false };
    if !secret.annotations().contains_key(keys::CONTENT_CHECKSUM_ANNOTATION) {
        return false;
    }
    let created = secret.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let mut ours = entries.iter().filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
    !ours.any(|entry| entry.time.as_ref().map(|time| time.0) >= created)
}

/// Whether nothing here tells that there ever was such a cluster: then its machines are asked before keys are made.
#[must_use]
pub fn is_unknown(cluster: &Cluster, observed: &Observed) -> bool {
    let mut names = names::secret_names(cluster);
    observed.status.certificates.is_empty() && names.all(|name| !observed.secrets.contains_key(&name))
}
