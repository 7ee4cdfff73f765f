//! Server-side apply, for a status and for objects with several field managers, such as the objects in a target
//! cluster.

use std::fmt::Debug;

use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::FIELD_MANAGER;

/// Applies an object. Keyplane becomes the manager of the object's fields, also of fields with another manager.
///
/// # Errors
/// An error of the API server.
pub async fn apply<K>(api: &Api<K>, object: &K) -> Result<K, kube::Error>
where
    K: Resource + Serialize + DeserializeOwned + Clone + Debug,
{
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&object.name_any(), &params, &Patch::Apply(object)).await
}

/// Applies a status if it differs from the previous one; returns whether the status was applied.
///
/// The whole status is applied: a field that is not set is removed.
///
/// # Errors
/// An error of the API server.
pub async fn update_status<K, S>(api: &Api<K>, name: &str, before: Option<&S>, status: &S) -> Result<bool, kube::Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    S: Serialize + PartialEq,
{
    if before == Some(status) {
        return Ok(false);
    }
    let object = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name},
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(name, &params, &Patch::Apply(&object)).await.map(|_| true)
}
