//! Keyplane: Kubernetes controllers that hold the keys of other clusters' control planes.

pub mod addons;
pub mod admin;
pub mod app;
pub mod approval;
pub mod args;
pub mod checksum;
pub mod cluster;
pub mod controllers;
pub mod etcd;
pub mod etcd_client;
pub mod expiration;
pub mod explain;
pub mod images;
pub mod join;
pub mod kube;
pub mod kubeconfig;
pub mod manifests;
pub mod metrics;
pub mod pki;
pub mod plan;
pub mod preparation;
pub mod render;
pub mod rollout;
pub mod rotation;
pub mod target;
pub mod yaml;
