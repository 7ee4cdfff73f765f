//! The files of a node that a Secret or a `ConfigMap` of the management cluster holds.

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;

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

/// A file that an object holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFile {
    /// Where it belongs on the machine.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// Its owner, as `chown` wants it.
    pub owner: String,
    /// What is in it.
    pub content: Vec<u8>,
}

/// Whether the lab has its own form of this file.
pub(crate) fn is_of_the_lab(path: &str) -> bool {
    path.starts_with(LAB_OWN)
}

/// The files that a Secret or a `ConfigMap` holds, in the order of its index.
///
/// # Errors
/// When it has no index, or the index names what isn't there.
pub fn files(object: &Value) -> Result<Vec<NodeFile>> {
    let index: Vec<Line> = serde_json::from_slice(&value(object, INDEX)?).context("its index can't be read")?;
    index
        .into_iter()
        .map(|line| {
            let mode = u32::from_str_radix(&line.mode, 8);
            let mode = mode.with_context(|| format!("{} has the mode {:?}", line.path, line.mode))?;
            let content = value(object, &line.key).with_context(|| format!("the index names {}", line.path))?;
            Ok(NodeFile { path: line.path, mode, owner: line.owner, content })
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

    fn expected() -> Vec<NodeFile> {
        let path = "/etc/kubernetes/pki/ca.crt".to_owned();
        vec![NodeFile { path, mode: 0o644, owner: "root:root".to_owned(), content: b"text".to_vec() }]
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
