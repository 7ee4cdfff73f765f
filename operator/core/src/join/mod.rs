//! Joining of worker nodes: their files, bootstrap tokens, join data and status.
//!
//! A worker node gets no key from Keyplane. Its kubelet generates a key and requests a certificate with a bootstrap
//! token. The token is valid for nothing else, lives for a day by default, and exists only while a node of the pool is
//! missing.

mod agent_files;
mod bootstrap_data;
mod cloud_config;
mod files;
mod ignition;
pub mod labels;
mod labels_and_taints;
pub mod objects;
mod pool;
mod rights;
mod script;
pub mod state;
pub mod token;

pub use agent_files::AgentFiles;
pub use bootstrap_data::bootstrap_data;
pub use files::worker_files;
pub use labels_and_taints::worker_label_patch;
pub use pool::{Machine, Pool, Selector};
pub use rights::{ADMISSION_POLICY, JOIN_ROLE, target_objects};
