//! Small pieces of work with the Kubernetes API: writing without overwriting, applying, status, Events,
//! backoff, and clients of target clusters.

pub mod apply;
pub mod backoff;
pub mod connect;
pub mod events;
pub mod resolve;
pub mod write;

/// The field manager of everything that Keyplane applies.
pub const FIELD_MANAGER: &str = "keyplane";

/// An error with its causes: the outermost one of an HTTP client says little.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        // Many errors repeat their cause in their own words.
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}
