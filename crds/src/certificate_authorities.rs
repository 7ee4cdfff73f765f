//! Authorities of the user's own.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::LocalReference;

/// Authorities of the user's own, in place of those that Keyplane makes. Keyplane keeps a copy of each in the Secret of its
/// own, and never writes the user's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(!has(self.cluster) || !has(self.etcd) || self.cluster.secretRef.name != self.etcd.secretRef.name) && (!has(self.cluster) || !has(self.frontProxy) || self.cluster.secretRef.name != self.frontProxy.secretRef.name) && (!has(self.etcd) || !has(self.frontProxy) || self.etcd.secretRef.name != self.frontProxy.secretRef.name)")
    .message("spec.certificateAuthorities: cluster, etcd and frontProxy need an authority each: with one for two of them, who is let in by the one would be let in by the other; name three Secrets"))]
pub struct CertificateAuthorities {
    /// The authority of API servers, kubelets and kubeconfigs, `ca`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<GivenAuthority>,

    /// The authority of etcd and its clients, `etcd-ca`. An external etcd has its owner's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<GivenAuthority>,

    /// The authority of the API servers as a proxy before aggregated API servers, `front-proxy-ca`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub front_proxy: Option<GivenAuthority>,
}

/// An authority of the user's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GivenAuthority {
    /// The Secret, in the same namespace, with `tls.crt` (the authority's certificate, and below it those of the
    /// authorities above it, if it is an intermediate one), `tls.key` (its private key), and, if it is wanted, `ca.crt`
    /// (the root). Without `tls.key` its owner signs outside: Keyplane asks for every certificate. A new authority in it
    /// is taken up by a rotation, a new certificate of the same key at once.
    pub secret_ref: LocalReference,
}
