//! Facts about a rotation: the certificates that the servers of a target cluster accept and present.

use std::collections::{BTreeMap, BTreeSet};

use crate::pki::CertificateFacts;

/// The results of the probes. A CA is named by the fingerprint of its certificate and a key by its identifier, so that
/// the facts do not depend on which one is old and which one is new.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RotationFacts {
    /// The API servers that answer at their own address, by node.
    pub api_servers: BTreeMap<String, Server>,
    /// The etcd members that answer, by node.
    pub etcd: BTreeMap<String, Server>,
    /// The kubelets by node; `None` for a kubelet that does not answer. The map is `None` until the Nodes are listed.
    pub kubelets: Option<BTreeMap<String, Option<Server>>>,
    /// The CAs in `kube-root-ca.crt`, by namespace. `None` until the ConfigMaps are listed.
    pub root_cas: Option<BTreeMap<String, BTreeSet<String>>>,
    /// The CAs in `client-ca-file` of `extension-apiserver-authentication`.
    pub client_cas: Option<BTreeSet<String>>,
    /// The CAs in `requestheader-client-ca-file` of `extension-apiserver-authentication`.
    pub front_proxy_cas: Option<BTreeSet<String>>,
    /// The trust bundle that `cluster-info` and the other target objects were last written with.
    pub prepared: Option<String>,
}

/// The result of probing a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Server {
    /// The certificate chain that the server presents, its own certificate first.
    pub presents: Vec<CertificateFacts>,
    /// Whether the server accepts client certificates of these CAs.
    pub accepts: BTreeMap<String, bool>,
    /// Whether the server accepts user names in request headers from clients with certificates of these CAs, as an
    /// aggregated API server does from kube-apiserver.
    pub accepts_front_proxy: BTreeMap<String, bool>,
    /// The identifiers of the keys that verify service-account tokens (RFC 7517 `kid`).
    pub token_keys: BTreeSet<String>,
}

impl Server {
    /// Returns whether the server presents a certificate of this CA.
    #[must_use]
    pub fn presents_certificate_of(&self, ca: &CertificateFacts) -> bool {
        self.presents.first().is_some_and(|certificate| certificate.is_signed_by(ca))
    }
}
