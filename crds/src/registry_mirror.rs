//! `RegistryMirror`: the sources from which containerd on a node pulls the images of a registry.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Mirrors of one registry: `/etc/containerd/certs.d/<registry>/hosts.toml` on every node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryMirror {
    /// The registry as in image names, for example `registry.k8s.io` or `docker.io`; `_default` stands for every
    /// registry without an entry.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == '_default' || self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]+)?$')")
        .message("spec.registryMirrors[].registry is a host and a port as image names have them, for example registry.k8s.io, or _default"))]
    pub registry: String,

    /// The mirrors, in the order in which containerd tries them, for example `https://mirror.corp.example`. A URL whose
    /// path has a segment `v2` is used unchanged; to others containerd adds `/v2`.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 512)))]
    #[x_kube(validation = Rule::new("self.all(e, e.matches('^https?://[A-Za-z0-9._:-]+(/[A-Za-z0-9._~/-]*)?$') || e.matches('^https?://\\\\[[0-9a-f:.]+\\\\](:[0-9]+)?(/[A-Za-z0-9._~/-]*)?$'))")
        .message("spec.registryMirrors[].endpoints: each must be a URL without user and query, for example https://mirror.corp.example"))]
    pub endpoints: Vec<String>,

    /// Whether containerd tries the registry itself when no mirror has an image. `false` saves the wait on nodes that
    /// can't reach the registry.
    #[serde(default = "RegistryMirror::default_fallback")]
    pub fallback: bool,

    /// The trust bundle, as PEM, that verifies the certificates of the mirrors. Not set means the trust bundle of the
    /// node.
    #[serde(rename = "caBundle", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    #[x_kube(validation = Rule::new("self.startsWith('-----BEGIN CERTIFICATE-----') && !self.contains('PRIVATE KEY')")
        .message("spec.registryMirrors[].caBundle must be certificates in PEM, and no key"))]
    pub ca_bundle: Option<String>,
}

impl RegistryMirror {
    /// containerd's default.
    fn default_fallback() -> bool {
        true
    }
}
