//! User-provided certificate authorities.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::LocalReference;

/// User-provided CAs, in place of those that Keyplane generates. Keyplane copies each one into a Secret of its own, and
/// never writes to your Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(!has(self.cluster) || !has(self.etcd) || self.cluster.secretRef.name != self.etcd.secretRef.name) && (!has(self.cluster) || !has(self.frontProxy) || self.cluster.secretRef.name != self.frontProxy.secretRef.name) && (!has(self.etcd) || !has(self.frontProxy) || self.etcd.secretRef.name != self.frontProxy.secretRef.name)")
    .message("spec.certificateAuthorities: cluster, etcd and frontProxy must be three different CAs: with a shared CA, servers of one would accept clients of another; name three Secrets"))]
pub struct CertificateAuthorities {
    /// The cluster CA, `ca`: for API servers, kubelets and kubeconfigs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<UserProvidedCa>,

    /// The etcd CA, `etcd-ca`: for etcd and its clients. An external etcd has the CA of its owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<UserProvidedCa>,

    /// The front-proxy CA, `front-proxy-ca`: for the API servers as a proxy in front of aggregated API servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub front_proxy: Option<UserProvidedCa>,
}

/// A user-provided CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserProvidedCa {
    /// The Secret, in the same namespace. Its key `tls.crt` holds the CA certificate; for an intermediate CA, the
    /// certificates of the CAs above follow. `tls.key` holds the private key. `ca.crt` is optional and holds the root
    /// certificate. Without `tls.key` it is an external CA: Keyplane requests each certificate from an external signer.
    /// A new CA in the Secret starts a CA rotation. A new certificate of the same key is used at once.
    pub secret_ref: LocalReference,
}
