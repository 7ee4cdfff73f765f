//! Merges kubelet kubeconfigs. Keyplane owns the server address and the trust bundle. The kubelet owns the credential
//! as soon as it has its own certificate.

use serde_json::Value;

use keyplane_core::kubeconfig::{CLUSTER_NAME, KUBELET_CLIENT_CURRENT, base64};
use keyplane_core::yaml;

/// The paths of a kubelet's kubeconfig.
pub const KUBELET_KUBECONFIGS: [&str; 2] = ["/etc/kubernetes/kubelet.conf", "/var/lib/kubelet/kubeconfig"];

/// Returns the kubeconfig to write. If the existing kubeconfig refers to the kubelet's own certificate, and the wanted
/// one embeds a certificate, the result has the wanted cluster and the existing user. Otherwise the result is the
/// wanted one.
#[must_use]
pub fn keep_user(found: Option<&[u8]>, wanted: &[u8]) -> Vec<u8> {
    found.and_then(|found| kept(found, wanted)).unwrap_or_else(|| wanted.to_vec())
}

fn kept(text: &[u8], wanted: &[u8]) -> Option<Vec<u8>> {
    let parse = |text: &[u8]| serde_saphyr::from_str::<Value>(std::str::from_utf8(text).ok()?).ok();
    let (mut found, wanted) = (parse(text)?, parse(wanted)?);
    if !refers(&found) || wanted.pointer("/users/0/user/client-certificate-data").is_none() {
        return None;
    }
    let cluster = wanted.pointer("/clusters/0/cluster")?.clone();
    let place = found.pointer_mut("/clusters/0/cluster")?;
    if *place == cluster {
        return Some(text.to_vec());
    }
    *place = cluster;
    Some(yaml::write(&found).into_bytes())
}

fn refers(config: &Value) -> bool {
    config.pointer("/users/0/user/client-certificate").and_then(Value::as_str) == Some(KUBELET_CLIENT_CURRENT)
}

/// Returns a kubeconfig that a kubelet wrote for itself with this trust bundle. Returns `None` if the kubeconfig
/// already has the bundle, or if neither a kubelet nor Keyplane wrote the kubeconfig.
#[must_use]
pub fn with_bundle(found: &[u8], bundle: &str) -> Option<Vec<u8>> {
    let mut config: Value = serde_saphyr::from_str(std::str::from_utf8(found).ok()?).ok()?;
    let names = [CLUSTER_NAME, "default-cluster"];
    let is_ours = config.pointer("/clusters/0/name").and_then(Value::as_str).is_some_and(|name| names.contains(&name));
    let only = config.get("clusters").and_then(Value::as_array).is_some_and(|clusters| clusters.len() == 1);
    if !is_ours || !only {
        return None;
    }
    let cluster = config.pointer_mut("/clusters/0/cluster")?.as_object_mut()?;
    let wanted = Value::String(base64(bundle));
    // A kubeconfig with a CA file needs no data, and data would override the file.
    if cluster.contains_key("certificate-authority") || cluster.get("certificate-authority-data") == Some(&wanted) {
        return None;
    }
    cluster.insert("certificate-authority-data".to_owned(), wanted);
    Some(yaml::write(&config).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyplane_core::kubeconfig::{Credential, write};
    use keyplane_core::model::{Endpoint, Host};

    fn config(ca: &str, credential: Credential<'_>) -> Vec<u8> {
        let server = Endpoint { host: Host::Name("api.demo.example".to_owned()), port: 6443 };
        write(&server, ca, "system:node:cp1", credential).into_bytes()
    }

    const EMBEDDED: Credential<'static> = Credential::Embedded { certificate: "CERT", key: "KEY" };
    const OWN: Credential<'static> = Credential::File(KUBELET_CLIENT_CURRENT);

    #[test]
    fn keeps_own_certificate_and_replaces_trust_bundle() {
        let (old, wanted) = (config("OLD", OWN), config("NEW", EMBEDDED));
        assert_eq!(keep_user(Some(&old), &wanted), config("NEW", OWN));
        // The second call changes nothing.
        assert_eq!(keep_user(Some(&config("NEW", OWN)), &wanted), config("NEW", OWN));
    }

    #[test]
    fn kubelet_without_own_certificate_gets_wanted_kubeconfig() {
        let wanted = config("NEW", EMBEDDED);
        for found in [None, Some(config("OLD", EMBEDDED)), Some(b"broken".to_vec())] {
            assert_eq!(keep_user(found.as_deref(), &wanted), wanted);
        }
        assert_eq!(keep_user(Some(&config("OLD", EMBEDDED)), &config("NEW", OWN)), config("NEW", OWN));
    }

    #[test]
    fn updates_bundle_in_kubeconfig_of_joined_worker() {
        // As a kubelet writes it when it joins with a token (`bootstrap.writeKubeconfigFromBootstrapping`).
        let joined = |ca: &str| {
            let text = String::from_utf8(config(ca, OWN)).unwrap();
            text.replace("name: kubernetes", "name: default-cluster").into_bytes()
        };
        let rewritten = with_bundle(&joined("OLD"), "NEW").unwrap();
        let value = |text: &[u8]| serde_saphyr::from_str::<Value>(std::str::from_utf8(text).unwrap()).unwrap();
        assert_eq!(value(&rewritten), value(&joined("NEW")));
        assert_eq!(with_bundle(&rewritten, "NEW"), None);
    }

    #[test]
    fn leaves_foreign_kubeconfig_unchanged() {
        let text = String::from_utf8(config("OLD", OWN)).unwrap();
        let other = text.replace("name: kubernetes", "name: production");
        let file = text.replace("certificate-authority-data: ", "certificate-authority: /x/");
        for text in [other.as_str(), &file, "broken: [", ""] {
            assert_eq!(with_bundle(text.as_bytes(), "NEW"), None, "{text}");
        }
    }
}
