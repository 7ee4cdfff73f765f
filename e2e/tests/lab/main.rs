//! The tests on real parts. They are one program, so that those which mostly wait for machines wait at the same time.

mod addons;
mod admission;
mod agent;
mod approver;
mod chart;
mod csr;
mod dual_stack;
mod emergencies;
mod encryption;
mod examples;
mod external_signing;
mod first_light;
mod kubeadm;
mod machines;
mod operator;
mod options;
mod oracle;
mod own_authority;
mod renewal;
mod rotation;
mod smoke;
mod systemd;
mod three_nodes;
mod upgrade;
mod whole_lab;
mod worker;
