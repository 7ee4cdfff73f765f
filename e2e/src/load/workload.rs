//! What the load has in the cluster: on every node a pod that talks (for logs and exec) and asks the API server, one
//! aggregated API server, and an object that is written all the time for the watch.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::image::{TOOLBOX, WITNESS};
use crate::kubectl::{Kubectl, documents};
use crate::wait::{PATIENCE, eventually};

/// The namespace of all of it.
pub const NAMESPACE: &str = "load";

/// The ConfigMap that is written all the time.
pub(super) const BEAT: &str = "beat";

/// The DaemonSet, and the container in its pods that asks; the other one talks.
const WITNESS_PODS: &str = "witness";
pub(super) const ASKS: &str = "ask";
pub(super) const TALKS: &str = "talk";

/// The aggregated API.
const SERVER: &str = "witness-server";
pub(super) const WHO_AM_I: &str = "/apis/witness.keyplane.io/v1/whoami";

/// A pod of the load, of which there is one on each node.
#[derive(Clone, Debug)]
pub(super) struct Witness {
    pub(super) pod: String,
    pub(super) node: String,
}

/// Puts all of it into the cluster and waits until it works. Gives back the pods.
///
/// # Errors
/// When it does not come up.
pub(super) fn start(target: &Kubectl, nodes: usize) -> Result<Vec<Witness>> {
    eventually("objects of the load", PATIENCE, || target.apply(&documents(&objects())))?;
    // A kubelet makes its Lease a moment after its Node.
    eventually("a Lease of each kubelet", PATIENCE, || {
        let leases = target.run(&["get", "leases", "-n", "kube-node-lease", "-o", "name"])?;
        ensure!(leases.lines().count() == nodes, "{leases}");
        Ok(())
    })?;
    eventually("a pod of the load on each node", PATIENCE, || {
        let status = target.json(&["get", "daemonset", WITNESS_PODS, "-n", NAMESPACE])?["status"].clone();
        ensure!(status["numberAvailable"] == nodes && status["desiredNumberScheduled"] == nodes, "{status}");
        Ok(())
    })?;
    eventually("aggregated API", PATIENCE, || target.run(&["get", "--raw", WHO_AM_I]))?;
    let list = target.json(&["get", "pods", "-n", NAMESPACE, "-l", &format!("app={WITNESS_PODS}")])?;
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pods = list["items"].as_array().into_iter().flatten();
    let pods: Vec<_> =
        pods.map(|pod| Witness { pod: word(&pod["metadata"]["name"]), node: word(&pod["spec"]["nodeName"]) }).collect();
    ensure!(pods.len() == nodes, "{pods:?}");
    for Witness { pod, .. } in &pods {
        // Its node's kubelet may still wait for its serving certificate.
        eventually(&format!("log of {pod}"), PATIENCE, || target.run(&["logs", "-n", NAMESPACE, pod, "-c", TALKS]))?;
    }
    Ok(pods)
}

fn objects() -> Vec<Value> {
    let account = "witness";
    let role = |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let subjects = json!([{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]);
    let rbac = "rbac.authorization.k8s.io/v1";
    let talk = "while :; do date; sleep 1; done";
    let container = |name: &str, image: &str| json!({"name": name, "image": image, "imagePullPolicy": "Never"});
    let mut talking = container(TALKS, TOOLBOX);
    talking["command"] = json!(["sh", "-c", talk]);
    let mut asking = container(ASKS, WITNESS);
    asking["args"] = json!([ASKS]);
    let mut serving = container("serve", WITNESS);
    serving["args"] = json!(["serve"]);
    serving["readinessProbe"] = json!({"httpGet": {"scheme": "HTTPS", "port": 8443, "path": "/readyz"}});
    let pod = |app: &str, containers: Value| {
        json!({
            "metadata": {"labels": {"app": app}},
            "spec": {
                "serviceAccountName": account, "containers": containers, "terminationGracePeriodSeconds": 1,
                // It stays where it is, whatever happens to its node: a pod that is moved counts as a failure.
                "tolerations": [{"operator": "Exists"}],
            },
        })
    };
    let select = |app: &str| json!({"matchLabels": {"app": app}});
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": NAMESPACE}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": BEAT, "namespace": NAMESPACE}, "data": {"at": "0"}}),
        json!({"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": "witness"},
            "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]}]}),
        json!({"apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": "witness"},
            "roleRef": role("ClusterRole", "witness"), "subjects": subjects}),
        json!({"apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": "witness-delegates"},
            "roleRef": role("ClusterRole", "system:auth-delegator"), "subjects": subjects}),
        json!({"apiVersion": rbac, "kind": "RoleBinding", "metadata": {"name": "witness", "namespace": "kube-system"},
            "roleRef": role("Role", "extension-apiserver-authentication-reader"), "subjects": subjects}),
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": WITNESS_PODS, "namespace": NAMESPACE},
            "spec": {"selector": select(WITNESS_PODS), "template": pod(WITNESS_PODS, json!([talking, asking]))}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": SERVER, "namespace": NAMESPACE},
            "spec": {"selector": select(SERVER), "template": pod(SERVER, json!([serving]))}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVER, "namespace": NAMESPACE},
            "spec": {"selector": {"app": SERVER}, "ports": [{"port": 443, "targetPort": 8443}]}}),
        json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": "v1.witness.keyplane.io"},
            "spec": {"group": "witness.keyplane.io", "version": "v1", "insecureSkipTLSVerify": true,
                "groupPriorityMinimum": 100, "versionPriority": 100,
                "service": {"name": SERVER, "namespace": NAMESPACE}}}),
    ]
}
