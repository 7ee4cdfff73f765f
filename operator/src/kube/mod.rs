//! Small pieces of work with the Kubernetes API: writing Secrets without overwriting, applying the rest, status, Events,
//! backoff, and clients of target clusters.

pub mod apply;
pub mod backoff;
pub mod events;
pub mod secrets;
pub mod target_client;

/// The field manager of everything that Keyplane applies.
pub const FIELD_MANAGER: &str = "keyplane";
