//! How authorities and the service-account key are replaced while the cluster runs: which stage uses what, and the facts
//! that let a stage go on.
//!
//! A rotation's state lies in the Secret of what is rotated, as an annotation ([`State`]): whatever is killed at whatever
//! moment, the next look at the Secret resumes. A stage is entered by one write of that Secret; what follows from it
//! (files of machines, kubeconfigs, bundles) is derived by the plan. A stage ends when nothing is left to write, every
//! machine holds it, every restart that it needs is done, and the probes of [`RotationFacts`] agree ([`waits`]): facts,
//! not time. The one exception are client-go's five-minute polls, which nothing outside the process shows.

mod facts;
pub mod reload;
pub mod revocation;
mod stage;
mod waits;

pub use facts::{RotationFacts, Server};
pub use stage::{Stage, State, Subject};
pub use waits::{Circumstances, HOLD, waits};
