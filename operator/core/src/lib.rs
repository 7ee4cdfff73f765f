//! The decisions of Keyplane.

pub mod addons;
pub mod agent_access;
pub mod agent_report;
pub mod approval;
pub mod authorities;
pub mod blocker;
pub mod checksum;
pub mod cluster_bootstrap;
pub mod encryption;
pub mod etcd;
pub mod external_signer;
pub mod host_files;
pub mod images;
pub mod inventory;
pub mod join;
pub mod kubeconfig;
pub mod manifests;
pub mod model;
pub mod names;
pub mod objects;
pub mod observed;
pub mod pki;
pub mod plan;
pub mod rollout;
pub mod rotation;
pub mod target_objects;
pub mod yaml;

// The unit tests here need keys and certificates. The crate that makes them depends on this one, so its X.509 writer is
// compiled into the tests.
#[cfg(test)]
extern crate self as keyplane_core;
#[cfg(test)]
#[path = "../../issuance/src/x509/mod.rs"]
mod x509;
