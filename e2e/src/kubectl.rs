//! The real kubectl with one kubeconfig.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use crate::command::{self, FEWER_COLLECTIONS};
use crate::parts::Parts;

mod in_process;

/// kubectl as one user of one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// kubectl with the kubeconfig in this file.
    #[must_use]
    pub fn new(parts: &Parts, kubeconfig: &Path) -> Self {
        Self { program: parts.program("kubectl"), kubeconfig: kubeconfig.to_owned() }
    }

    /// The file with the kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client in this process with the same kubeconfig.
    ///
    /// # Errors
    /// When the kubeconfig can't be used.
    pub async fn client(&self) -> Result<Client> {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    /// The command line `kubectl` with these arguments, to be run by the caller.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        let (variable, value) = FEWER_COLLECTIONS;
        command.env("KUBECONFIG", &self.kubeconfig).env(variable, value).args(arguments);
        command
    }

    /// Runs it and returns its standard output.
    ///
    /// # Errors
    /// When it fails; the message holds its words.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        if let ["get", "--raw", path] = arguments
            && let Some(text) = in_process::text(&self.kubeconfig, path)
        {
            return text.with_context(|| format!("kubectl get --raw {path}"));
        }
        command::run(&mut self.command(arguments))
    }

    /// Like [`Kubectl::run`] with `-o json`, parsed. A single object is read without a process of kubectl.
    ///
    /// # Errors
    /// When it fails or answers something else.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        if let Some(object) = in_process::object(&self.kubeconfig, arguments) {
            return object.with_context(|| format!("kubectl {}", arguments.join(" ")));
        }
        let text = self.run(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("kubectl {arguments:?} did not answer with JSON"))
    }

    /// The text that a Secret has under a key.
    ///
    /// # Errors
    /// When there is no such Secret, key or text.
    pub fn secret_text(&self, name: &str, key: &str) -> Result<String> {
        let secret = self.json(&["get", "secret", name])?;
        let value = secret["data"][key].as_str().with_context(|| format!("the Secret {name} has no key `{key}`"))?;
        let bytes = BASE64_STANDARD.decode(value).with_context(|| format!("`{key}` of {name} is not base64"))?;
        String::from_utf8(bytes).with_context(|| format!("`{key}` of {name} is no text"))
    }

    /// Applies these objects.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        command::run_with_input(&mut self.command(&["apply", "-f", "-"]), yaml.as_bytes())
    }

    /// What a condition that is not `True` says: its reason and message.
    ///
    /// # Errors
    /// When it is `True`.
    pub fn complaint(&self, what: &[&str], kind: &str) -> Result<String> {
        match self.check_condition(what, kind) {
            Ok(()) => bail!("{} has the condition {kind}", what.join(" ")),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    /// For polling code: an error unless the condition `kind` of the object `what` (its kind and name, perhaps with
    /// `-n` and a namespace) is `True`.
    ///
    /// # Errors
    /// When it is not; the message holds the condition's reason and message.
    pub fn check_condition(&self, what: &[&str], kind: &str) -> Result<()> {
        let object = self.json(&[&["get"], what].concat())?;
        judge_condition(&object, kind).with_context(|| what.join(" "))
    }
}

/// Several objects as one stream of YAML documents, which kubectl and kubeadm read. JSON is YAML.
#[must_use]
pub fn documents(objects: &[Value]) -> String {
    objects.iter().flat_map(|object| ["---\n".to_owned(), object.to_string(), "\n".to_owned()]).collect()
}

/// These bytes as JSON holds them.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

fn judge_condition(object: &Value, kind: &str) -> Result<()> {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(condition) = conditions.iter().find(|condition| condition["type"] == kind) else {
        bail!("it has no condition {kind}");
    };
    if condition["status"] == "True" {
        return Ok(());
    }
    let word = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    bail!("{kind} is {}: {}: {}", word("status"), word("reason"), word("message"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_that_is_not_true_tells_why() {
        let object = json!({"status": {"conditions": [
            {"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "no CNI"},
            {"type": "Rendered", "status": "True"},
        ]}});
        assert!(judge_condition(&object, "Rendered").is_ok());
        let told = judge_condition(&object, "Ready").unwrap_err().to_string();
        assert_eq!(told, "Ready is False: KubeletNotReady: no CNI");
        assert!(judge_condition(&object, "Other").unwrap_err().to_string().contains("no condition Other"));
    }
}
