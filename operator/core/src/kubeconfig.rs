//! Kubeconfigs as kubeadm writes them.

use serde_json::{Value, json};

use crate::model::Endpoint;
use crate::yaml;

/// The name of the cluster in every kubeconfig: kubeadm's `clusterName` default.
pub const CLUSTER_NAME: &str = "kubernetes";

/// Where a running kubelet keeps its client certificate and key, in one file that it moves on by itself.
pub const KUBELET_CLIENT_CURRENT: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// A client's certificate and key.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// In the kubeconfig, as PEM.
    Embedded {
        /// The certificate.
        certificate: &'a str,
        /// The key.
        key: &'a str,
    },
    /// In a file on the machine that holds both.
    File(&'a str),
    /// A bootstrap token in their place.
    Token(&'a str),
}

/// Writes a kubeconfig with one cluster, one user and one context.
#[must_use]
pub fn write(server: &Endpoint, authority: &str, user: &str, credential: Credential<'_>) -> String {
    write_through(None, server, authority, user, credential)
}

/// Writes a kubeconfig that reaches the server through a proxy, where there is one.
#[must_use]
pub fn write_through(
    proxy_url: Option<&str>,
    server: &Endpoint,
    authority: &str,
    user: &str,
    credential: Credential<'_>,
) -> String {
    let context = format!("{user}@{CLUSTER_NAME}");
    let user_info = match credential {
        Credential::Embedded { certificate, key } => json!({
            "client-certificate-data": base64(certificate),
            "client-key-data": base64(key),
        }),
        Credential::File(path) => json!({"client-certificate": path, "client-key": path}),
        Credential::Token(token) => json!({"token": token}),
    };
    let mut cluster = json!({"certificate-authority-data": base64(authority), "server": format!("https://{server}")});
    if let Some(proxy_url) = proxy_url {
        cluster["proxy-url"] = proxy_url.into();
    }
    yaml::write(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CLUSTER_NAME, "cluster": cluster}],
        "users": [{"name": user, "user": user_info}],
        "contexts": [{"name": context, "context": {"cluster": CLUSTER_NAME, "user": user}}],
        "current-context": context,
    }))
}

/// The cluster alone, without a user: what `kube-public/cluster-info` holds.
#[must_use]
pub fn write_cluster_info(server: &Endpoint, authority: &str) -> String {
    yaml::write(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "",
            "cluster": {"certificate-authority-data": base64(authority), "server": format!("https://{server}")},
        }],
        "contexts": null,
        "current-context": "",
        "users": null,
    }))
}

/// The certificate and key that a kubeconfig embeds, as PEM; nothing if it embeds none or can't be read.
#[must_use]
pub fn embedded_credential(text: &str) -> Option<(String, String)> {
    let config: Value = serde_saphyr::from_str(text).ok()?;
    let user = config.pointer("/users/0/user")?;
    let field = |name: &str| user.get(name)?.as_str().and_then(from_base64);
    Some((field("client-certificate-data")?, field("client-key-data")?))
}

/// Standard base64 with padding.
pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    // ByteString is how the Kubernetes API writes bytes: standard base64 with padding, as a kubeconfig has it.
    match serde_json::to_value(k8s_openapi::ByteString(bytes.as_ref().to_vec())) {
        Ok(serde_json::Value::String(encoded)) => encoded,
        _ => String::new(),
    }
}

fn from_base64(text: &str) -> Option<String> {
    let bytes: k8s_openapi::ByteString = serde_json::from_value(text.into()).ok()?;
    String::from_utf8(bytes.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Host;

    fn server() -> Endpoint {
        Endpoint { host: Host::Name("api.demo.example".to_owned()), port: 6443 }
    }

    #[test]
    fn what_is_embedded_comes_back() {
        let text = write(&server(), "CA", "admin", Credential::Embedded { certificate: "CERT\n", key: "KEY\n" });
        assert_eq!(embedded_credential(&text), Some(("CERT\n".to_owned(), "KEY\n".to_owned())));
    }

    #[test]
    fn a_kubeconfig_that_refers_to_a_file_embeds_nothing() {
        let text = write(&server(), "CA", "system:node:cp1", Credential::File(KUBELET_CLIENT_CURRENT));
        assert!(text.contains(KUBELET_CLIENT_CURRENT));
        assert_eq!(embedded_credential(&text), None);
    }
}
