//! Keyplane: Kubernetes controllers that hold the keys of other clusters' control planes.

pub mod app;
pub mod args;
pub mod cluster;
pub mod kubeconfig;
pub mod manifests;
pub mod pki;
pub mod plan;
pub mod render;
pub mod target;
pub mod yaml;
