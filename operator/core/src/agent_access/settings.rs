//! The settings of an agent: a file, and flags that override it.

use serde::{Deserialize, Serialize};

/// The path of the settings file in the bootstrap data.
pub const DEFAULT_FILE: &str = "/etc/keyplane/node.yaml";

/// The settings in the file. JSON is valid YAML.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileSettings {
    /// The URL of the management cluster's API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management_server: Option<String>,
    /// The path of the CA bundle that verifies the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<String>,
    /// The path of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The ClusterSpec's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The ClusterSpec's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The node's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// The complete settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The URL of the management cluster's API server.
    pub management_server: String,
    /// The path of the CA bundle that verifies the API server.
    pub certificate_authority: String,
    /// The path of the token.
    pub token: String,
    /// The ClusterSpec's namespace.
    pub namespace: String,
    /// The ClusterSpec's name.
    pub cluster: String,
    /// The node's name.
    pub node: String,
}

impl FileSettings {
    /// Returns these settings, completed with those of `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            management_server: self.management_server.or(other.management_server),
            certificate_authority: self.certificate_authority.or(other.certificate_authority),
            token: self.token.or(other.token),
            namespace: self.namespace.or(other.namespace),
            cluster: self.cluster.or(other.cluster),
            node: self.node.or(other.node),
        }
    }

    /// Returns the complete settings.
    ///
    /// # Errors
    /// Returns a message that names the missing setting and how to set it.
    pub fn complete(self) -> Result<Settings, String> {
        let needed = |value: Option<String>, flag: &str, key: &str| {
            let message =
                || format!("{key} is not set: set it in {DEFAULT_FILE} (or in the file of --config), or pass --{flag}");
            value.filter(|value| !value.is_empty()).ok_or_else(message)
        };
        let management_server = needed(self.management_server, "management-server", "managementServer")?;
        if !management_server.starts_with("https://") {
            return Err(format!("managementServer is {management_server:?}: it must start with https://"));
        }
        Ok(Settings {
            management_server,
            certificate_authority: self.certificate_authority.unwrap_or_else(|| "/etc/keyplane/ca.crt".to_owned()),
            token: self.token.unwrap_or_else(|| "/etc/keyplane/token".to_owned()),
            namespace: needed(self.namespace, "namespace", "namespace")?,
            cluster: needed(self.cluster, "cluster", "cluster")?,
            node: needed(self.node, "node-name", "node")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_override_the_file_and_errors_name_missing_settings() {
        let file = "managementServer: https://m:6443\nnamespace: default\ncluster: demo\nnode: cp1\n";
        let file: FileSettings = serde_saphyr::from_str(file).unwrap();
        let flags = FileSettings { node: Some("cp2".to_owned()), ..FileSettings::default() };
        let settings = flags.or(file.clone()).complete().unwrap();
        assert_eq!((settings.node.as_str(), settings.token.as_str()), ("cp2", "/etc/keyplane/token"));
        let message = FileSettings { cluster: None, ..file.clone() }.complete().unwrap_err();
        assert!(message.starts_with("cluster is not set") && message.contains("--cluster"), "{message}");
        let plain = FileSettings { management_server: Some("http://m".to_owned()), ..file };
        assert!(plain.complete().unwrap_err().contains("https://"));
        assert!(serde_saphyr::from_str::<FileSettings>("clutser: demo").is_err());
    }
}
