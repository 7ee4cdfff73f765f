//! Rotation of the CAs and of the service-account key in a running cluster: the stages, and the conditions for each
//! next stage.
//!
//! The state of a rotation is an annotation ([`State`]) on the Secret of the CA or key. A controller that is killed at
//! any moment resumes from that Secret. One write of the Secret enters a stage, and the plan derives the files of
//! nodes, the kubeconfigs and the bundles. A stage ends after everything is written, every node has applied its files,
//! every required restart is done, and the probes in [`RotationFacts`] agree ([`waits`]). So stages depend on facts,
//! not on time. The exception are client-go's five-minute polls, which can't be observed from outside the process.

mod facts;
pub mod reload;
pub mod revocation;
mod stage;
mod waits;

pub use facts::{RotationFacts, Server};
pub use stage::{Stage, State, Subject};
pub use waits::{CLIENT_RELOAD_WAIT, StageInputs, waits};
