//! Writes with optimistic concurrency: an object is created, or replaced only in the resource version that was read.
//!
//! A forced write of a Secret could lose a key. Server-side apply of a ConfigMap would leave keys in it that another
//! client has added.

use std::fmt::Debug;

use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::FIELD_MANAGER;

/// Result of a write.
#[derive(Debug)]
pub enum Written<K> {
    /// The written object, as the API server returned it.
    Done(K),
    /// Another client has changed the object. Nothing was written: requeue.
    Conflict,
}

/// Creates the object, or, if the object has a resource version, replaces only that version.
///
/// # Errors
/// Any error except a conflict.
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
        // 409 is both AlreadyExists and Conflict. 404 means that the object to replace was deleted.
        Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(Written::Conflict),
        Err(error) => Err(error),
    }
}

/// Result of a deletion.
#[derive(Debug)]
pub enum Deleted {
    /// The object does not exist any more.
    Done,
    /// Another client has changed the object, so it was not deleted: requeue.
    Conflict,
}

/// Deletes the object only if its UID and resource version are unchanged, so that a recreated object stays.
///
/// # Errors
/// Any error except a conflict.
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
