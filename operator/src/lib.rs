//! Keyplane: Kubernetes controllers that hold the keys of other clusters' control planes.

pub mod admin;
pub mod app;
pub mod approval;
pub mod args;
pub mod cluster;
pub mod controllers;
pub mod explain;
pub mod kube;
pub mod kubeconfig;
pub mod manifests;
pub mod metrics;
pub mod pki;
pub mod plan;
pub mod render;
pub mod target;
pub mod yaml;
