//! How the target's API is reached from outside.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// How Keyplane and people reach the target's API servers. The machines of the cluster reach them directly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// The proxy through which Keyplane dials the target, and which the kubeconfigs for people name: the one in
    /// `<cluster>-kubeconfig` and those of `users`. It forwards encrypted bytes and needs no trust. With `https://` the
    /// proxy's own certificate is verified with the cluster's authority, as kubectl does it.
    #[serde(rename = "proxyURL", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^(http|https|socks5)://([a-z0-9]([a-z0-9.-]*[a-z0-9])?|[[][0-9a-f:.]+[]]):[1-9][0-9]{0,4}$')")
        .message("spec.access.proxyURL must be http://, https:// or socks5:// with a host and a port and nothing else, for example http://bastion.example:3128: a user and password would be shown to everybody who reads the ClusterSpec"))]
    pub proxy_url: Option<String>,
}
