//! Access to the API servers of the target cluster from outside.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// How Keyplane and people reach the API servers of the target cluster. The nodes of the cluster reach them directly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// The proxy through which Keyplane dials the target cluster. The kubeconfigs for people name it too: the one in
    /// `<cluster>-kubeconfig` and those of `users`. The proxy forwards encrypted bytes and needs no trust. With
    /// `https://`, the cluster CA verifies the proxy's own certificate, as with kubectl.
    #[serde(rename = "proxyURL", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^(http|https|socks5)://([a-z0-9]([a-z0-9.-]*[a-z0-9])?|[[][0-9a-f:.]+[]]):[1-9][0-9]{0,4}$')")
        .message("spec.access.proxyURL must be http://, https:// or socks5:// with a host and a port and nothing else, for example http://bastion.example:3128: a user and password would be shown to everybody who reads the ClusterSpec"))]
    pub proxy_url: Option<String>,
}
