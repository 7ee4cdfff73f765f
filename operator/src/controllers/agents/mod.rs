//! The agents' objects in the management cluster: kept as they should be, from what watches know. What an agent reports
//! is read here too; its heartbeat alone asks nobody for anything.

mod keep;
mod watched;

pub use watched::{Agents, watch};
