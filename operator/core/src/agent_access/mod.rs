//! The agents on the nodes from the operator's view: their permissions, bootstrap credentials, reports, and settings.
//! The agent itself is `keyplane node`.

pub mod bootstrap;
pub mod machines;
pub mod objects;
pub mod settings;

pub use machines::{check_applied, machines};
