//! Keyplane: Kubernetes controllers that hold the keys of other clusters' control planes.

pub mod admin;
pub mod app;
pub mod args;
pub mod controllers;
pub mod etcd_client;
pub mod expiration;
pub mod explain;
pub mod images;
pub mod metrics;
pub mod render;
pub mod target_client;
