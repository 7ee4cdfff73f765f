//! How workers join: their files, the tokens with which they ask for a certificate, the data that their first boot
//! reads, and how far each has come.
//!
//! A machine gets no key from Keyplane. Its kubelet makes one and asks for a certificate with a bootstrap token, which
//! is good for that alone, lives for a day, and exists only while a machine of the pool is missing.

mod bootstrap_data;
mod cloud_config;
mod files;
mod ignition;
pub mod labels;
mod marks;
pub mod objects;
mod pool;
mod rights;
mod script;
pub mod state;
pub mod token;

pub use bootstrap_data::{AgentFiles, bootstrap_data};
pub use files::worker_files;
pub use marks::mark_worker;
pub use pool::{Machine, Pool, Selector};
pub use rights::{ADMISSION_POLICY, RIGHTS, target_objects};
