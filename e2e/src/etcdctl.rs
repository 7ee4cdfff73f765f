//! The real etcdctl on a control-plane machine, with the pair that kubeadm has for looking after etcd.

use anyhow::Result;

use crate::machine::Machine;

/// Asks the member on this machine.
///
/// # Errors
/// When etcdctl fails; the message holds its words.
pub fn etcdctl(machine: &Machine, arguments: &[&str]) -> Result<String> {
    etcdctl_to(machine, "https://127.0.0.1:2379", arguments)
}

/// Asks the members at these endpoints, with a comma between them, as this machine.
///
/// # Errors
/// When etcdctl fails; the message holds its words.
pub fn etcdctl_to(machine: &Machine, endpoints: &str, arguments: &[&str]) -> Result<String> {
    let pki = "/etc/kubernetes/pki/etcd";
    let flags = [
        format!("--endpoints={endpoints}"),
        "--command-timeout=5s".to_owned(),
        format!("--cacert={pki}/ca.crt"),
        format!("--cert={pki}/healthcheck-client.crt"),
        format!("--key={pki}/healthcheck-client.key"),
    ];
    let line = ["etcdctl"].into_iter().chain(flags.iter().map(String::as_str)).chain(arguments.iter().copied());
    machine.run(&line.collect::<Vec<_>>())
}
