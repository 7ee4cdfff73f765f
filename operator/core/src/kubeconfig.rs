//! Renders and parses kubeconfigs in the form of kubeadm.

use serde_json::{Value, json};

use crate::model::Endpoint;
use crate::yaml;

/// The cluster name in kubeconfigs: the default `clusterName` of kubeadm.
pub const CLUSTER_NAME: &str = "kubernetes";

/// The file with the current client certificate and key of a kubelet. The kubelet rotates the file by itself.
pub const KUBELET_CLIENT_CURRENT: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// The client credential in a kubeconfig.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// An embedded certificate and key, as PEM.
    Embedded {
        /// The certificate.
        certificate: &'a str,
        /// The key.
        key: &'a str,
    },
    /// The path of a file on the node with both the certificate and the key.
    File(&'a str),
    /// A bootstrap token.
    Token(&'a str),
}

/// Renders a kubeconfig with one cluster, one user and one context.
#[must_use]
pub fn write(server: &Endpoint, ca: &str, user: &str, credential: Credential<'_>) -> String {
    write_through(None, server, ca, user, credential)
}

/// Renders a kubeconfig with an optional proxy.
#[must_use]
pub fn write_through(
    proxy_url: Option<&str>,
    server: &Endpoint,
    ca: &str,
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
    let mut cluster = json!({"certificate-authority-data": base64(ca), "server": format!("https://{server}")});
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

/// Renders the kubeconfig without a user in the ConfigMap `kube-public/cluster-info`.
#[must_use]
pub fn write_cluster_info(server: &Endpoint, ca: &str) -> String {
    yaml::write(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "",
            "cluster": {"certificate-authority-data": base64(ca), "server": format!("https://{server}")},
        }],
        "contexts": null,
        "current-context": "",
        "users": null,
    }))
}

/// Returns the embedded certificate and key of a kubeconfig as PEM, or `None` if the kubeconfig has none or can't be
/// parsed.
#[must_use]
pub fn embedded_credential(text: &str) -> Option<(String, String)> {
    let config: Value = serde_saphyr::from_str(text).ok()?;
    let user = config.pointer("/users/0/user")?;
    let field = |name: &str| user.get(name)?.as_str().and_then(from_base64);
    Some((field("client-certificate-data")?, field("client-key-data")?))
}

/// Encodes bytes as standard base64 with padding.
pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    // ByteString is the encoding of the Kubernetes API: standard base64 with padding, as in a kubeconfig.
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
    fn reads_embedded_certificate_and_key() {
        let text = write(&server(), "CA", "admin", Credential::Embedded { certificate: "CERT\n", key: "KEY\n" });
        assert_eq!(embedded_credential(&text), Some(("CERT\n".to_owned(), "KEY\n".to_owned())));
    }

    #[test]
    fn kubeconfig_with_file_reference_has_no_embedded_credential() {
        let text = write(&server(), "CA", "system:node:cp1", Credential::File(KUBELET_CLIENT_CURRENT));
        assert!(text.contains(KUBELET_CLIENT_CURRENT));
        assert_eq!(embedded_credential(&text), None);
    }
}
