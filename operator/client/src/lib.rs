//! Helpers for the Kubernetes API: writes with optimistic concurrency, server-side apply, status updates, Events,
//! backoff, and clients from kubeconfigs.

pub mod apply;
pub mod backoff;
pub mod connect;
pub mod events;
pub mod resolve;
pub mod write;

/// Keyplane's field manager.
pub const FIELD_MANAGER: &str = "keyplane";

/// Returns the message of an error with all its causes, because the outermost error of an HTTP client has little
/// detail.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let message = cause.to_string();
        // Many errors already contain the message of their cause.
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        source = cause.source();
    }
    text
}
