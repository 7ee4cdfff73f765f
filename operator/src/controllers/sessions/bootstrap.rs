//! Applies Keyplane's objects in a target cluster: with the client of Keyplane's own restricted user, or with the
//! super-admin's client for objects that grant permissions.

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Preconditions};

use super::unavailable::Unavailable;
use super::{SessionSpec, credentials};
use keyplane_client::FIELD_MANAGER;
use keyplane_client::apply::apply;
use keyplane_core::model::Version;
use keyplane_core::target_objects::TargetObject;
use keyplane_core::{cluster_bootstrap, join};

/// Changes in the target cluster, for Events.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// Objects that were applied with the super-admin credential.
    pub(super) granted: Vec<String>,
    /// Objects that were repaired.
    pub(super) repaired: Vec<String>,
    /// The version in kubeadm-config, if it is newer than the desired one.
    pub(super) configured_ahead: Option<Version>,
    /// Objects that were deleted with the super-admin credential.
    pub(super) removed: Vec<String>,
    /// Foreign objects that conflict with the policy.
    pub(super) foreign: Vec<String>,
}

/// Checks every object, and applies those that are missing or differ.
pub(super) async fn prepare(client: &Client, management: &Client, spec: &SessionSpec) -> Result<Prepared, Unavailable> {
    let mut to_grant = vec![];
    let mut to_repair = vec![];
    let mut prepared = Prepared::default();
    let of_pools = join::target_objects(&spec.cluster.namespace, &spec.workers, &spec.leaving);
    for wanted in cluster_bootstrap::objects(&spec.cluster, &spec.trust, spec.configuration, spec.is_rotating)
        .into_iter()
        .chain(of_pools)
    {
        let name = wanted.object.metadata.name.clone().unwrap_or_default();
        match api(client, &wanted).get_opt(&name).await {
            Ok(Some(found)) if wanted.is_satisfied_by(&found) => {}
            Ok(Some(found)) if wanted.resource.kind == "ConfigMap" => {
                if let Some(version) =
                    cluster_bootstrap::configured_version(&found).filter(|found| *found > spec.configuration)
                {
                    prepared.configured_ahead = Some(version);
                }
                to_repair.push(wanted);
            }
            // Before the first grant, every request is forbidden.
            Ok(_) => to_grant.push(wanted),
            Err(kube::Error::Api(status)) if status.code == 403 => to_grant.push(wanted),
            Err(error) => return Err(Unavailable::from_error(spec, &error)),
        }
    }
    if prepared.configured_ahead.is_some() {
        to_repair.retain(|wanted| !cluster_bootstrap::belongs_to_kubeadm(wanted));
    }
    if !to_grant.is_empty() {
        let privileged = credentials::super_admin(management, spec).await?;
        for wanted in to_grant {
            put(&privileged, spec, &wanted).await?;
            prepared.granted.push(wanted.describe());
        }
    }
    for unwanted in cluster_bootstrap::obsolete_objects(&spec.cluster) {
        remove(client, management, spec, &unwanted, &mut prepared).await?;
    }
    for wanted in to_repair {
        put(client, spec, &wanted).await?;
        prepared.repaired.push(wanted.describe());
    }
    Ok(prepared)
}

/// Deletes an object that Keyplane has applied; a foreign object is reported.
async fn remove(
    client: &Client,
    management: &Client,
    spec: &SessionSpec,
    unwanted: &TargetObject,
    prepared: &mut Prepared,
) -> Result<(), Unavailable> {
    let name = unwanted.object.metadata.name.clone().unwrap_or_default();
    let found = api(client, unwanted).get_opt(&name).await.map_err(|error| Unavailable::from_error(spec, &error))?;
    let Some(found) = found else { return Ok(()) };
    if !applied_by_us(&found) {
        prepared.foreign.push(unwanted.describe());
        return Ok(());
    }
    let privileged = credentials::super_admin(management, spec).await?;
    // The preconditions protect an object that was recreated meanwhile.
    let preconditions =
        Preconditions { uid: found.metadata.uid.clone(), resource_version: found.metadata.resource_version.clone() };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api(&privileged, unwanted).delete(&name, &params).await {
        Ok(_) => prepared.removed.push(unwanted.describe()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
        Err(error) => return Err(Unavailable::from_error(spec, &error)),
    }
    Ok(())
}

/// Returns whether Keyplane has applied the object, from the field managers.
fn applied_by_us(found: &DynamicObject) -> bool {
    let managers = found.metadata.managed_fields.iter().flatten();
    managers.into_iter().any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
}

pub(super) async fn put(client: &Client, spec: &SessionSpec, wanted: &TargetObject) -> Result<(), Unavailable> {
    match apply(&api(client, wanted), &wanted.object).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let mut unavailable = Unavailable::from_error(spec, &error);
            unavailable.message = format!("{}: {}", wanted.describe(), unavailable.message);
            Err(unavailable)
        }
    }
}

pub(super) fn api(client: &Client, wanted: &TargetObject) -> Api<DynamicObject> {
    match wanted.object.metadata.namespace.as_deref() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &wanted.resource),
        None => Api::all_with(client.clone(), &wanted.resource),
    }
}
