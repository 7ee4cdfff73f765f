//! Secrets hold keys: one is created, or replaced as it was seen, and never forced.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};

use super::FIELD_MANAGER;

/// What became of a write.
#[derive(Debug)]
pub enum Written {
    /// It is there, as the API server gave it back.
    Done(Box<Secret>),
    /// Somebody else was faster. Nothing was written: look again.
    Conflict,
}

/// Creates the Secret, or, if it has a resource version, replaces just that version.
///
/// # Errors
/// Everything but a conflict.
pub async fn write(api: &Api<Secret>, secret: &Secret) -> Result<Written, kube::Error> {
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let result = match secret.metadata.resource_version.as_deref() {
        None => api.create(&params, secret).await,
        Some(_) => api.replace(name, &params, secret).await,
    };
    match result {
        Ok(secret) => Ok(Written::Done(Box::new(secret))),
        // 409 is both AlreadyExists and Conflict; 404 is a replaced Secret that is gone.
        Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(Written::Conflict),
        Err(error) => Err(error),
    }
}
