//! The lab: real machines' worth of Kubernetes on one host, without Docker and without systemd.
//!
//! A [`Lab`] owns a folder, a bridge and everything that runs on it. A [`Machine`] on the bridge is a set of namespaces
//! with its own `/etc`, `/var`, `/run`, containerd and kubelet. [`Management`] is the cluster in which Keyplane lives,
//! [`Operator`] is Keyplane itself. What the lab made is gone when the [`Lab`] is dropped, and what a killed owner left
//! is found again by name and removed by [`sweep`].

pub mod archive;
pub mod audit;
pub mod bastion;
pub mod bench;
pub mod binary;
pub mod boot;
pub mod cgroup;
pub mod client_keys;
pub mod command;
pub mod distribute;
pub mod etcdctl;
pub mod helm;
pub mod image;
pub mod installation;
pub mod interrupt;
pub mod issuer;
pub mod join;
pub mod kubectl;
pub mod lab;
mod limits;
pub mod load;
pub mod load_balancer;
pub mod machine;
pub mod management;
pub mod name_server;
pub mod network;
pub mod node_files;
pub mod operator;
pub mod oracle;
pub mod parts;
pub mod preflight;
pub mod process;
pub mod rotation_lab;
pub mod runner;
pub mod scene;
pub mod site;
pub mod smoke;
pub mod subnet;
pub mod sweep;
pub mod unit;
pub mod wait;

pub use helm::Helm;
pub use installation::Installation;
pub use kubectl::Kubectl;
pub use lab::Lab;
pub use load_balancer::LoadBalancer;
pub use machine::Machine;
pub use management::Management;
pub use name_server::NameServer;
pub use operator::Operator;
pub use parts::Parts;
pub use wait::eventually;
