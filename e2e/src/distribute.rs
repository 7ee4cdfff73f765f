//! Distributes a node's files from the management cluster to its machine, as an administrator does without an agent.

use anyhow::{Context, Result};

use crate::kubectl::Kubectl;
use crate::machine::Machine;
use crate::node_files::{files, is_of_the_lab};

/// Writes the files of the Secret `<cluster>-<node>-pki` and the `ConfigMap` `<cluster>-<node>-config` of `namespace`
/// to `machine`, and returns their paths. The node's name is the machine's. containerd's files are left out.
///
/// # Errors
/// When an object isn't there, its index does not fit its content, or a file can't be written.
pub fn apply_files(management: &Kubectl, namespace: &str, cluster: &str, machine: &Machine) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    // Keys first: a manifest that the kubelet sees starts a pod that reads them.
    for (kind, suffix) in [("secret", "pki"), ("configmap", "config")] {
        let name = format!("{cluster}-{}-{suffix}", machine.name());
        let object = management.json(&["get", kind, &name, "--namespace", namespace])?;
        for file in files(&object).with_context(|| format!("{kind} {name}"))? {
            if is_of_the_lab(&file.path) {
                continue;
            }
            machine.put_file(&file.path, &file.content, file.mode)?;
            if file.owner != "root:root" {
                machine.run(&["chown", &file.owner, &file.path])?;
            }
            paths.push(file.path);
        }
    }
    Ok(paths)
}
