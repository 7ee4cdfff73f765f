//! The agents on the machines, seen from the operator: what each may do, how it gets its credential, what it reports,
//! and what follows from that. The agent itself is `keyplane node`.

pub mod bootstrap;
pub mod machines;
pub mod objects;
pub mod settings;

pub use machines::{holds_current, machines};
