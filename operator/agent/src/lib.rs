//! `keyplane node`: the agent on a machine. It carries the machine's two objects from the management cluster to the
//! machine, restarts what does not read its files anew by itself, moves the kubelet's certificates to another authority,
//! and reports what the machine holds.
//!
//! What is to be done is decided in `index`, `units`, `leaves`, `own_kubeconfig`, `token` and `owners`, which are pure;
//! the rest reads and writes.

mod agent;
pub mod authorities;
mod carry;
mod credential;
mod etcd;
mod files;
pub mod index;
mod kubelet;
pub mod leaves;
mod machine;
mod management;
mod options;
mod own_kubeconfig;
mod owners;
mod process;
mod restart;
mod token;
mod units;

pub use agent::run;
pub use options::Options;
