//! The agents on the nodes of a cluster.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Agents for the declared nodes. Each node may run an agent, `keyplane node`, which distributes the node's files from
/// the management cluster. Each agent gets a ServiceAccount in this namespace. This ServiceAccount can read the two
/// objects of the node and report in the node's Lease, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeAgent {
    /// The URL at which the nodes reach the API of the management cluster, for example
    /// `https://management.example:6443`.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^https://([a-z0-9]([a-z0-9.-]*[a-z0-9])?|[[][0-9a-f:.]+[]])(:[1-9][0-9]{0,4})?(/[A-Za-z0-9._/-]*)?$')")
        .message("spec.nodeAgent.managementServer must be https:// with a host and a port, for example https://management.example:6443"))]
    pub management_server: String,

    /// The trust bundle, as PEM, with which the nodes verify that server. Not set means the one in the ConfigMap
    /// `kube-root-ca.crt` of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    #[x_kube(validation = Rule::new("self.startsWith('-----BEGIN CERTIFICATE-----') && !self.contains('PRIVATE KEY')")
        .message("spec.nodeAgent.certificateAuthority must be certificates in PEM form and nothing else: every node gets it"))]
    pub certificate_authority: Option<String>,
}
