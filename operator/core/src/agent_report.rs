//! The report of an agent: JSON in an annotation of its Lease. The report contains nothing secret.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The report of an agent. The time of the report, by the node's clock, is the Lease's `renewTime`, so the text stays
/// the same while nothing changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// The agent's version.
    pub version: String,
    /// The credential that the agent reports with.
    #[serde(default)]
    pub credential: CredentialKind,
    /// The content checksum of the Secret whose files are on the node. The agent has read every file back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The content checksum of the ConfigMap whose files are on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// The time of the last change of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Timestamp>,
    /// The errors of the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// The conditions that the agent waits for, such as a certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<String>,
    /// The tasks of the user on the node before a file takes effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<String>,
    /// The checksum of the last restart of etcd, from [`keyplane_crds::keys::ETCD_RESTART_ANNOTATION`] of the node's
    /// ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_restart: Option<String>,
    /// The units that the agent wants to restart, and that wait for a restart permit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<WantedRestart>,
    /// The kubelet on the node.
    #[serde(default)]
    pub kubelet: KubeletReport,
}

/// Systemd units of a control-plane node that need a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WantedRestart {
    /// The names of the units, in the order of the restart.
    pub units: Vec<String>,
    /// The checksum of the previous and the new files of the units. The annotation
    /// [`keyplane_crds::keys::RESTART_PERMIT_ANNOTATION`] with this value permits the restart.
    pub mark: String,
}

/// The credential that an agent reports with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CredentialKind {
    /// The bootstrap token.
    #[default]
    Bootstrap,
    /// A token that the agent has requested itself.
    Renewed,
}

/// The state of the kubelet on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeletReport {
    /// The start time of the process; unset while the kubelet is not running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// The client certificate for the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<LeafReport>,
    /// The serving certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<LeafReport>,
}

/// A certificate of a kubelet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeafReport {
    /// The issuer's common name.
    pub issuer: String,
    /// The identifier of the issuer's key, in lower-case hexadecimal. The CAs before and after a rotation have the same
    /// subject, so the name alone is not sufficient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_key_id: Option<String>,
    /// The serial number, as openssl prints it.
    pub serial: String,
    /// The expiry.
    pub not_after: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_round_trips_and_ignores_unknown_fields() {
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
