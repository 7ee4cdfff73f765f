//! Restores from a backup: Keyplane generates no key while the backup is expected to bring it.

use k8s_openapi::api::core::v1::Secret;
use keyplane_crds::{keys, reasons};
use kube::ResourceExt;

use super::{Content, Kind, Plan, Step};
use crate::blocker::Blocker;
use crate::model::{Cluster, Restore};
use crate::names;
use crate::observed::{Observed, Slot};

/// The field manager of Keyplane.
const FIELD_MANAGER: &str = "keyplane";

/// The number of missing objects that a message names.
const MAX_NAMED: usize = 10;

/// Removes the steps that would create missing objects while a backup is expected.
pub(crate) fn remove_missing(cluster: &Cluster, observed: &Observed, plan: &mut Plan) {
    if cluster.restore != Restore::Expected {
        return;
    }
    let mut missing = vec![];
    plan.steps.retain(|step| {
        let (kind, name, is_there) = match step {
            // No backup contains this Secret.
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
    let more = missing.len().saturating_sub(MAX_NAMED);
    missing.truncate(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    plan.blockers.push(Blocker {
        reason: reasons::WAITING_FOR_RESTORE,
        message: format!(
            "these objects are missing, and the annotation {} says that a backup brings them: {}{more}; restore them \
             with their labels and annotations; Keyplane creates objects that the backup lacks after you remove the \
             annotation",
            keys::RESTORE_ANNOTATION,
            missing.join(", ")
        ),
    });
}

/// Returns a blocker if missing keys exist elsewhere: a part of a backup is restored already, or a cluster runs on the
/// nodes.
pub(crate) fn exists_elsewhere(cluster: &Cluster, observed: &Observed, secret: &str) -> Option<Blocker> {
    if cluster.restore != Restore::Unspecified {
        return None;
    }
    let names = cluster.ca_names().map(|name| names::ca_secret(&cluster.name, name));
    let restored = names
        .chain([names::service_account_secret(&cluster.name)])
        .find(|name| matches!(observed.secret(&cluster.name, name), Slot::Ours(found) if is_restored(found)));
    if let Some(restored) = restored {
        return Some(Blocker {
            reason: reasons::WAITING_FOR_RESTORE,
            message: format!(
                "Secret {secret} is missing, and Secret {restored} came from a backup, so Keyplane generates no new \
                 one: restore the other Secrets, with labels and annotations; if the backup has no more, annotate this \
                 ClusterSpec with {}=false",
                keys::RESTORE_ANNOTATION
            ),
        });
    }
    let mut serving = observed.target.serving.iter();
    let (node, certificate) = serving.find(|(_, certificate)| certificate.is_of_api_server())?;
    Some(Blocker {
        reason: reasons::CLUSTER_ALREADY_RUNNING,
        message: format!(
            "an API server already answers on {node} with a certificate of {} (serial {}, expires at {}), and Secret \
             {secret} is missing, so Keyplane generates no new one, which would cut that cluster off: restore the \
             backup of its Secrets; to replace that cluster, annotate this ClusterSpec with {}=false",
            certificate.issuer,
            certificate.serial,
            certificate.not_after,
            keys::RESTORE_ANNOTATION
        ),
    })
}

/// Returns whether another client has created the Secret, or recreated it after Keyplane had written it. Without
/// managed fields the answer is unknown, and the function returns false.
fn is_restored(secret: &Secret) -> bool {
    let Some(entries) = &secret.metadata.managed_fields else { return false };
    if !secret.annotations().contains_key(keys::CONTENT_CHECKSUM_ANNOTATION) {
        return false;
    }
    let created = secret.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let mut ours = entries.iter().filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
    !ours.any(|entry| entry.time.as_ref().map(|time| time.0) >= created)
}

/// Returns whether no trace of the cluster exists in the management cluster. Then Keyplane probes the nodes before it
/// generates keys.
#[must_use]
pub fn is_unknown(cluster: &Cluster, observed: &Observed) -> bool {
    let mut names = names::secret_names(cluster);
    observed.status.certificates.is_empty() && names.all(|name| !observed.secrets.contains_key(&name))
}
