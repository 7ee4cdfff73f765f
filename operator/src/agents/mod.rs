//! The agents on the machines, seen from the operator: what each may do, how it gets its credential, what it reports,
//! and what follows from that. The agent itself is `keyplane node`.

pub mod bootstrap;
mod facts;
pub mod machines;
pub mod names;
pub mod objects;
mod report;

pub use facts::AgentFacts;
pub use machines::{holds_current, machines};
pub use report::{
    CredentialKind, KubeletReport, LeafReport, NodeReport, REPORT_ANNOTATION, RESTART_TURN_ANNOTATION, WantedRestart,
};
