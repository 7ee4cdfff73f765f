//! `keyplane node`: the agent on a node. The agent syncs the node's Secret and ConfigMap from the management cluster to
//! files on the node. It restarts components that do not reload their files, replaces the kubelet's certificates during
//! a CA rotation, and reports the applied files.
//!
//! The modules `index`, `units`, `kubelet_certificates`, `own_kubeconfig`, `token`, `trusted_cas` and `file_owners` are
//! pure and decide. The other modules do I/O.

mod agent;
mod apply;
mod credential;
mod etcd;
mod file_owners;
mod files;
pub mod index;
mod kubelet;
pub mod kubelet_certificates;
mod machine;
mod management;
mod notes;
mod options;
mod own_kubeconfig;
mod process;
mod restart;
mod token;
pub mod trusted_cas;
mod units;

pub use agent::run;
pub use options::Options;
