//! Carrying a node's files from the management cluster to its machine, as an administrator or an agent would.

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::kubectl::Kubectl;
use crate::machine::Machine;

/// The key under which an object lists its files.
const INDEX: &str = "index.json";

#[derive(Debug, Deserialize)]
struct Line {
    key: String,
    path: String,
    mode: String,
    owner: String,
}

/// What the lab has in a form of its own: containerd, whose configuration is a machine's of this lab.
const LAB_OWN: &str = "/etc/containerd/";

/// A file that an object carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedFile {
    /// Where it belongs on the machine.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// Its owner, as `chown` wants it.
    pub owner: String,
    /// What is in it.
    pub content: Vec<u8>,
}

/// Writes the files of the Secret `<cluster>-<node>-pki` and the `ConfigMap` `<cluster>-<node>-config` of `namespace`
/// to `machine`, and returns their paths. The node's name is the machine's. containerd's files are left out.
///
/// # Errors
/// When an object isn't there, its index does not fit its content, or a file can't be written.
pub fn carry(management: &Kubectl, namespace: &str, cluster: &str, machine: &Machine) -> Result<Vec<String>> {
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

/// Whether the lab has its own form of this file.
pub(crate) fn is_of_the_lab(path: &str) -> bool {
    path.starts_with(LAB_OWN)
}

/// The files that a Secret or a `ConfigMap` carries, in the order of its index.
///
/// # Errors
/// When it has no index, or the index names what isn't there.
pub fn files(object: &Value) -> Result<Vec<CarriedFile>> {
    let index: Vec<Line> = serde_json::from_slice(&value(object, INDEX)?).context("its index can't be read")?;
    index
        .into_iter()
        .map(|line| {
            let mode = u32::from_str_radix(&line.mode, 8);
            let mode = mode.with_context(|| format!("{} has the mode {:?}", line.path, line.mode))?;
            let content = value(object, &line.key).with_context(|| format!("the index names {}", line.path))?;
            Ok(CarriedFile { path: line.path, mode, owner: line.owner, content })
        })
        .collect()
}

fn value(object: &Value, key: &str) -> Result<Vec<u8>> {
    let decode = |text: &str| BASE64_STANDARD.decode(text).with_context(|| format!("{key} is not base64"));
    if let Some(text) = object["binaryData"][key].as_str() {
        return decode(text);
    }
    match object["data"][key].as_str() {
        Some(text) if object["kind"] == "Secret" => decode(text),
        Some(text) => Ok(text.as_bytes().to_vec()),
        None => bail!("it has no key {key}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const INDEX_TEXT: &str =
        r#"[{"key":"ca.crt","path":"/etc/kubernetes/pki/ca.crt","mode":"0644","owner":"root:root"}]"#;

    fn expected() -> Vec<CarriedFile> {
        let path = "/etc/kubernetes/pki/ca.crt".to_owned();
        vec![CarriedFile { path, mode: 0o644, owner: "root:root".to_owned(), content: b"text".to_vec() }]
    }

    #[test]
    fn a_secret_is_decoded_and_a_config_map_is_not() {
        let secret = json!({"kind": "Secret", "data": {
            "index.json": BASE64_STANDARD.encode(INDEX_TEXT), "ca.crt": BASE64_STANDARD.encode("text"),
        }});
        assert_eq!(files(&secret).unwrap(), expected());
        let map = json!({"kind": "ConfigMap", "data": {"index.json": INDEX_TEXT, "ca.crt": "text"}});
        assert_eq!(files(&map).unwrap(), expected());
    }

    #[test]
    fn an_index_that_names_what_is_not_there_is_told() {
        let map = json!({"kind": "ConfigMap", "data": {"index.json": INDEX_TEXT}});
        let told = format!("{:#}", files(&map).unwrap_err());
        assert!(told.contains("/etc/kubernetes/pki/ca.crt") && told.contains("no key ca.crt"), "{told}");
    }
}
