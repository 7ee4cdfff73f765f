//! Reads of single objects without a process of kubectl. A waiting test reads several times in a second, and to start
//! kubectl costs a hundred times what the read itself costs.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tokio::runtime::{Builder, Handle};
use tokio::time::timeout;

/// The timeout of a read.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The API path of each kind, and whether its objects have a namespace.
const KINDS: [(&str, &str, bool); 18] = [
    ("certificatepolicy", "/apis/keyplane.io/v1alpha1/{}certificatepolicies", true),
    ("clusterspec", "/apis/keyplane.io/v1alpha1/{}clusterspecs", true),
    ("nodepool", "/apis/keyplane.io/v1alpha1/{}nodepools", true),
    ("configmap", "/api/v1/{}configmaps", true),
    ("pod", "/api/v1/{}pods", true),
    ("secret", "/api/v1/{}secrets", true),
    ("service", "/api/v1/{}services", true),
    ("serviceaccount", "/api/v1/{}serviceaccounts", true),
    ("node", "/api/v1/nodes", false),
    ("daemonset", "/apis/apps/v1/{}daemonsets", true),
    ("deployment", "/apis/apps/v1/{}deployments", true),
    ("csr", "/apis/certificates.k8s.io/v1/certificatesigningrequests", false),
    ("lease", "/apis/coordination.k8s.io/v1/{}leases", true),
    ("role", "/apis/rbac.authorization.k8s.io/v1/{}roles", true),
    ("rolebinding", "/apis/rbac.authorization.k8s.io/v1/{}rolebindings", true),
    ("clusterrole", "/apis/rbac.authorization.k8s.io/v1/clusterroles", false),
    ("clusterrolebinding", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", false),
    ("namespace", "/api/v1/namespaces", false),
];

/// The object that `kubectl get ARGUMENTS -o json` would print. Nothing where the arguments or the kubeconfig are for
/// kubectl itself: more than a kind, a name and a namespace, or a server that this client does not come to terms with.
pub(super) fn object(kubeconfig: &Path, arguments: &[&str]) -> Option<Result<Value>> {
    let path = path_of(arguments)?;
    let text = match text(kubeconfig, &path)? {
        Ok(text) => text,
        Err(error) => return Some(Err(error)),
    };
    let object = serde_json::from_str::<Value>(&text).with_context(|| format!("{path} is no JSON"));
    Some(object.map(|mut object| {
        // kubectl does not show them either.
        object["metadata"].as_object_mut().map(|metadata| metadata.remove("managedFields"));
        object
    }))
}

/// The answer of a path that is no object, such as `/readyz`.
pub(super) fn text(kubeconfig: &Path, path: &str) -> Option<Result<String>> {
    // A runtime can't start another one.
    if Handle::try_current().is_ok() {
        return None;
    }
    let runtime = Builder::new_current_thread().enable_all().build().ok()?;
    let answer = runtime.block_on(async { timeout(TIMEOUT, get(kubeconfig, path)).await });
    match answer {
        Err(_) => Some(Err(anyhow!("no answer to {path} within {} s", TIMEOUT.as_secs()))),
        Ok(Ok(text)) => Some(Ok(text)),
        Ok(Err(error)) => match error.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => {
                Some(Err(anyhow!("Error from server ({}): {}", status.reason, status.message)))
            }
            _ => is_silence(&error).then_some(Err(error)),
        },
    }
}

async fn get(kubeconfig: &Path, path: &str) -> Result<String> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // A client, and with it a connection, for each read: as kubectl does it.
    let client = Client::try_from(config)?;
    Ok(client.request_text(http::Request::get(path).body(vec![])?).await?)
}

/// Whether nobody listens: kubectl would not fare better.
fn is_silence(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
        use io::ErrorKind as Kind;
        matches!(
            cause.kind(),
            Kind::ConnectionRefused
                | Kind::ConnectionReset
                | Kind::HostUnreachable
                | Kind::NetworkUnreachable
                | Kind::TimedOut
                | Kind::UnexpectedEof
        )
    })
}

/// The path of `get KIND NAME`, perhaps with `-n NAMESPACE`.
fn path_of(arguments: &[&str]) -> Option<String> {
    let [verb, rest @ ..] = arguments else { return None };
    let (kind, name, namespace) = match rest {
        [kind, name] => (kind, name, "default"),
        [kind, name, "-n" | "--namespace", namespace] | [kind, "-n" | "--namespace", namespace, name] => {
            (kind, name, *namespace)
        }
        _ => return None,
    };
    let is_name = |text: &str| !text.starts_with('-') && !text.contains(['/', ',', '?', '%']);
    if *verb != "get" || !is_name(name) || !is_name(namespace) {
        return None;
    }
    let (_, path, has_namespace) = KINDS.iter().find(|(known, ..)| known == kind)?;
    let namespace = if *has_namespace { format!("namespaces/{namespace}/") } else { String::new() };
    Some(format!("{}/{name}", path.replace("{}", &namespace)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_has_a_path_with_and_without_a_namespace() {
        let path = |line: &str| path_of(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(path("get node cp1").unwrap(), "/api/v1/nodes/cp1");
        assert_eq!(path("get pod web").unwrap(), "/api/v1/namespaces/default/pods/web");
        let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/cp1";
        assert_eq!(path("get lease -n kube-node-lease cp1").unwrap(), lease);
        assert_eq!(path("get lease cp1 --namespace kube-node-lease").unwrap(), lease);
    }

    #[test]
    fn lists_and_further_flags_are_for_kubectl() {
        for line in ["get pods", "get pod -A", "get pod -l a=b", "get secrets,configmaps x", "get pod x -o yaml"] {
            assert_eq!(path_of(&line.split(' ').collect::<Vec<_>>()), None, "{line}");
        }
    }
}
