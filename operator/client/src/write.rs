//! Writing an object without overwriting anybody: it is created, or replaced in the very version that was seen.
//!
//! Nothing is forced. For a Secret that would be a lost key; for a ConfigMap, server-side apply would leave in it what
//! somebody else has added.

use std::fmt::Debug;

use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::FIELD_MANAGER;

/// What became of a write.
#[derive(Debug)]
pub enum Written<K> {
    /// It is there, as the API server gave it back.
    Done(K),
    /// Somebody else was faster. Nothing was written: look again.
    Conflict,
}

/// Creates the object, or, if it has a resource version, replaces just that version.
///
/// # Errors
/// Everything but a conflict.
pub async fn write<K>(api: &Api<K>, object: &K) -> Result<Written<K>, kube::Error>
where
    K: Resource + Serialize + DeserializeOwned + Clone + Debug,
{
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let result = match object.resource_version() {
        None => api.create(&params, object).await,
        Some(_) => api.replace(&object.name_any(), &params, object).await,
    };
    match result {
        Ok(object) => Ok(Written::Done(object)),
        // 409 is both AlreadyExists and Conflict; 404 is a replaced object that is gone.
        Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(Written::Conflict),
        Err(error) => Err(error),
    }
}

/// What became of a deletion.
#[derive(Debug)]
pub enum Deleted {
    /// It is gone.
    Done,
    /// Somebody else has changed it. It is still there: look again.
    Conflict,
}

/// Deletes the very object that was seen, not one that somebody has put in its place meanwhile.
///
/// # Errors
/// Everything but a conflict.
pub async fn delete<K>(
    api: &Api<K>,
    name: &str,
    uid: Option<String>,
    resource_version: Option<String>,
) -> Result<Deleted, kube::Error>
where
    K: DeserializeOwned + Clone + Debug,
{
    let preconditions = Some(Preconditions { uid, resource_version });
    match api.delete(name, &DeleteParams { preconditions, ..DeleteParams::default() }).await {
        Ok(_) => Ok(Deleted::Done),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Deleted::Done),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Deleted::Conflict),
        Err(error) => Err(error),
    }
}
