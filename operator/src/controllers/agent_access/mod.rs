//! The agents' objects in the management cluster: reconciled from caches. The agents' reports are read from the same
//! caches. A heartbeat without a change causes no reconciliation.

mod keep;
mod watched;

pub use watched::{Agents, watch};
