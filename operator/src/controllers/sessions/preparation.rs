//! Puts what belongs in a target there: with the narrow client where it may, with the super-admin's where rights are
//! granted.

use keyplane_crds::reasons;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Preconditions};

use super::{Brief, credentials};
use keyplane_client::apply::apply;
use keyplane_client::{FIELD_MANAGER, causes};
use keyplane_core::cluster_bootstrap;
use keyplane_core::join;
use keyplane_core::model::Version;
use keyplane_core::target_objects;
use keyplane_core::target_objects::TargetObject;

/// Why a target is not prepared: a condition's reason and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unavailable {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Unavailable {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// From what went wrong with a request.
    pub(super) fn from_error(brief: &Brief, error: &kube::Error) -> Self {
        let endpoint = &brief.cluster.endpoint;
        match error {
            kube::Error::Api(status) if status.code == 401 => Self::new(
                reasons::UNAUTHORIZED,
                format!(
                    "the API server at {endpoint} does not accept a certificate of this cluster's authority: does it run \
                     with the ca.crt of this ClusterSpec, and is its clock right?"
                ),
            ),
            kube::Error::Api(status) => Self::new(
                reasons::REQUEST_REFUSED,
                format!("the API server at {endpoint} answered: {}", status.message),
            ),
            other => Self::new(
                reasons::UNREACHABLE,
                format!("the API server at {endpoint} does not answer: {}", causes(other)),
            ),
        }
    }
}

/// What was done, for Events.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// Objects that were applied with the super-admin's credential.
    pub(super) granted: Vec<String>,
    /// Objects that were put right.
    pub(super) mended: Vec<String>,
    /// The version in kubeadm-config, if it is newer than what belongs there.
    pub(super) configured_ahead: Option<Version>,
    /// Objects that were taken away with the super-admin's credential.
    pub(super) removed: Vec<String>,
    /// Objects of somebody else that should not be there.
    pub(super) foreign: Vec<String>,
}

/// Looks at every object, and applies what is missing or different.
pub(super) async fn prepare(client: &Client, management: &Client, brief: &Brief) -> Result<Prepared, Unavailable> {
    let mut to_grant = vec![];
    let mut to_mend = vec![];
    let mut prepared = Prepared::default();
    let of_pools = join::target_objects(&brief.cluster.namespace, &brief.workers, &brief.leaving);
    for wanted in cluster_bootstrap::objects(&brief.cluster, &brief.trust, brief.configuration, brief.is_rotating)
        .into_iter()
        .chain(of_pools)
    {
        let name = wanted.object.metadata.name.clone().unwrap_or_default();
        match api(client, &wanted).get_opt(&name).await {
            Ok(Some(found)) if wanted.is_satisfied_by(&found) => {}
            Ok(Some(found)) if wanted.resource.kind == "ConfigMap" => {
                if let Some(version) =
                    cluster_bootstrap::configured_version(&found).filter(|found| *found > brief.configuration)
                {
                    prepared.configured_ahead = Some(version);
                }
                to_mend.push(wanted);
            }
            // Before the first grant everything is forbidden.
            Ok(_) => to_grant.push(wanted),
            Err(kube::Error::Api(status)) if status.code == 403 => to_grant.push(wanted),
            Err(error) => return Err(Unavailable::from_error(brief, &error)),
        }
    }
    if prepared.configured_ahead.is_some() {
        to_mend.retain(|wanted| !cluster_bootstrap::belongs_to_kubeadm(wanted));
    }
    if !to_grant.is_empty() {
        let privileged = credentials::super_admin(management, brief).await?;
        for wanted in to_grant {
            put(&privileged, brief, &wanted).await?;
            prepared.granted.push(wanted.describe());
        }
    }
    for unwanted in cluster_bootstrap::unwanted(&brief.cluster) {
        remove(client, management, brief, &unwanted, &mut prepared).await?;
    }
    for wanted in to_mend {
        put(client, brief, &wanted).await?;
        prepared.mended.push(wanted.describe());
    }
    Ok(prepared)
}

/// Takes an object away that Keyplane has applied; one of somebody else's is told of.
async fn remove(
    client: &Client,
    management: &Client,
    brief: &Brief,
    unwanted: &TargetObject,
    prepared: &mut Prepared,
) -> Result<(), Unavailable> {
    let name = unwanted.object.metadata.name.clone().unwrap_or_default();
    let found = api(client, unwanted).get_opt(&name).await.map_err(|error| Unavailable::from_error(brief, &error))?;
    let Some(found) = found else { return Ok(()) };
    if !applied_by_us(&found) {
        prepared.foreign.push(unwanted.describe());
        return Ok(());
    }
    let privileged = credentials::super_admin(management, brief).await?;
    // The very object that was seen, and not one that somebody makes meanwhile.
    let preconditions =
        Preconditions { uid: found.metadata.uid.clone(), resource_version: found.metadata.resource_version.clone() };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api(&privileged, unwanted).delete(&name, &params).await {
        Ok(_) => prepared.removed.push(unwanted.describe()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
        Err(error) => return Err(Unavailable::from_error(brief, &error)),
    }
    Ok(())
}

/// Whether Keyplane has applied the object: its field manager is on it.
fn applied_by_us(found: &DynamicObject) -> bool {
    let managers = found.metadata.managed_fields.iter().flatten();
    managers.into_iter().any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
}

pub(super) async fn put(client: &Client, brief: &Brief, wanted: &TargetObject) -> Result<(), Unavailable> {
    match apply(&api(client, wanted), &wanted.object).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let mut unavailable = Unavailable::from_error(brief, &error);
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
