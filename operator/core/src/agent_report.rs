//! What an agent reports: one JSON text in its Lease. Nothing in it is secret.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What an agent reports. When it did, by its own clock, is the Lease's `renewTime`: so a report that says nothing new is
/// the same text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// The agent's version.
    pub version: String,
    /// With what it reports.
    #[serde(default)]
    pub credential: CredentialKind,
    /// The content checksum of the Secret whose files are on the machine, every one of them read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The same of the ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// When it last changed a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Timestamp>,
    /// What it could not do, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// What it waits for, such as a certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<String>,
    /// What a person has to do on the machine so that a file takes effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<String>,
    /// For what etcd there was started anew last: the machine's ConfigMap said so in [`keyplane_crds::keys::ETCD_RESTART_ANNOTATION`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_restart: Option<String>,
    /// What it would restart, and waits for its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<WantedRestart>,
    /// The kubelet that runs there.
    #[serde(default)]
    pub kubelet: KubeletReport,
}

/// Units of a control-plane machine that are to be started anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WantedRestart {
    /// Their names, in the order in which they are restarted.
    pub units: Vec<String>,
    /// The checksum of what they were started with and what they are to be started with:
    /// [`keyplane_crds::keys::RESTART_PERMIT_ANNOTATION`] with this value says that it is the machine's turn.
    pub mark: String,
}

/// With which credential an agent reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CredentialKind {
    /// The one that it was given to begin with.
    #[default]
    Bootstrap,
    /// One that it asked for itself.
    Renewed,
}

/// What is known on the machine of its kubelet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeletReport {
    /// When its process started; not set while none runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// The certificate with which it goes to the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<LeafReport>,
    /// The certificate that it presents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<LeafReport>,
}

/// A certificate of a kubelet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeafReport {
    /// The issuer's common name.
    pub issuer: String,
    /// The identifier of the issuer's key, in lower-case hexadecimal: authorities before and after a rotation have the
    /// same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_key_id: Option<String>,
    /// The serial number, as openssl prints it.
    pub serial: String,
    /// The end of its validity.
    pub not_after: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_comes_back_and_that_of_a_later_agent_can_be_read() {
        let report = NodeReport {
            version: "0.1.0".to_owned(),
            credential: CredentialKind::Renewed,
            secret: Some("a".to_owned()),
            kubelet: KubeletReport {
                client: Some(LeafReport {
                    issuer: "kubernetes".to_owned(),
                    authority_key_id: Some("ab".to_owned()),
                    serial: "01".to_owned(),
                    not_after: Timestamp::UNIX_EPOCH,
                }),
                ..KubeletReport::default()
            },
            ..NodeReport::default()
        };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<NodeReport>(&text).unwrap(), report);
        let later = r#"{"version":"9","later":{"a":1}}"#;
        assert_eq!(serde_json::from_str::<NodeReport>(later).unwrap().credential, CredentialKind::Bootstrap);
    }
}
