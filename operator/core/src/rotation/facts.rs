//! What the servers of a target were seen to accept and to present while something is rotated.

use std::collections::{BTreeMap, BTreeSet};

use crate::pki::CertificateFacts;

/// The answers to the probes. An authority is named by the fingerprint of its certificate, a key by its identifier, so
/// that nothing here depends on which one is the old and which one the new.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RotationFacts {
    /// Each API server that answers at its own address, by node.
    pub api_servers: BTreeMap<String, Server>,
    /// Each member of etcd that answers, by node.
    pub etcd: BTreeMap<String, Server>,
    /// Each kubelet that answers, by node. Nothing while the Nodes were not listed.
    pub kubelets: Option<BTreeMap<String, Option<Server>>>,
    /// What `kube-root-ca.crt` holds, by namespace. Nothing before they were listed.
    pub root_authorities: Option<BTreeMap<String, BTreeSet<String>>>,
    /// What `client-ca-file` of `extension-apiserver-authentication` holds.
    pub client_authorities: Option<BTreeSet<String>>,
    /// What `requestheader-client-ca-file` of `extension-apiserver-authentication` holds.
    pub front_proxy_authorities: Option<BTreeSet<String>>,
    /// The bundle that `cluster-info` and the other objects of the target were last made with.
    pub prepared: Option<String>,
}

/// A server, as it was probed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Server {
    /// The certificates that it presents, its own first.
    pub presents: Vec<CertificateFacts>,
    /// Whether it takes client certificates of these authorities.
    pub accepts: BTreeMap<String, bool>,
    /// Whether it takes users' names from clients with certificates of these authorities, as an API server does from
    /// another one in front of it.
    pub accepts_front_proxy: BTreeMap<String, bool>,
    /// The identifiers of the keys with which it verifies service-account tokens (RFC 7517 `kid`).
    pub token_keys: BTreeSet<String>,
}

impl Server {
    /// Whether the certificate that it presents is one of this authority.
    #[must_use]
    pub fn presents_one_of(&self, authority: &CertificateFacts) -> bool {
        self.presents.first().is_some_and(|certificate| certificate.is_signed_by(authority))
    }
}
