//! The decisions of Keyplane: pure functions of (spec, observed state, now).
//!
//! ```text
//! ClusterSpec -> model ──┐
//!                        ├─> rollout -> plan -> status
//! API objects -> observed┘
//! ```
//!
//! Nothing here has a client, a task, a clock or randomness: Cargo.toml and clippy.toml keep them out. The crate
//! `keyplane-issuance` generates keys, and the crate `keyplane` observes and writes.
//!
//! `ARCHITECTURE.md` describes the layers and says where a change goes. The modules below are listed by layer, and each
//! names only modules of the layers before its own. `operator/tests/architecture.rs` enforces that.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

// Layer 1
pub mod checksum;
pub mod yaml;

// Layer 2
pub mod approval;
pub mod pki;

// Layer 3
pub mod encryption;
pub mod external_signer;
pub mod rotation;

// Layer 4
pub mod model;

// Layer 5
pub mod agent_report;
pub mod blocker;
pub mod etcd;
pub mod images;
pub mod inventory;
pub mod kubeconfig;
pub mod names;
pub mod target_objects;

// Layer 6
pub mod host_files;
pub mod objects;

// Layer 7
pub mod manifests;

// Layer 8
pub mod addons;
pub mod join;

// Layer 9
pub mod cluster_bootstrap;
pub mod observed;

// Layer 10
pub mod agent_access;
pub mod certificate_authorities;

// Layer 11
pub mod rollout;

// Layer 12
pub mod plan;

// Layer 13
pub mod status;

// The unit tests here need keys and certificates. The crate that makes them depends on this one, so its X.509 writer is
// compiled into the tests.
#[cfg(test)]
extern crate self as keyplane_core;
#[cfg(test)]
#[allow(dead_code, unused_imports)]
#[path = "../../issuance/src/x509/mod.rs"]
mod x509;
