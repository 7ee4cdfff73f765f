//! kube-proxy (kubeadm's `phases/addons/proxy` and `componentconfigs/kubeproxy.go`).

use serde_json::{Value, json};

use super::{KUBE_SYSTEM, RBAC, cluster_role_binding, labelled, resources, service_account};
use crate::images::Image;
use crate::manifests::{KUBE_PROXY_DIRECTORY as DIRECTORY, kube_proxy_configuration};
use crate::model::{Cluster, Version};
use crate::target_objects::{BOOTSTRAPPERS, TargetObject};
use crate::yaml;

const NAME: &str = "kube-proxy";
/// The key of the configuration in kubeadm's ConfigMap.
const CONFIGURATION: &str = "config.conf";
/// The directory with the ServiceAccount token in a Pod.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

pub(super) fn objects(cluster: &Cluster, version: Version) -> Vec<TargetObject> {
    let in_kube_system = |group, kind, content| TargetObject::new(group, kind, Some(KUBE_SYSTEM), NAME, content);
    // A node that joins with kubeadm reads the configuration before its Node exists.
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [NAME], "verbs": ["get"]});
    let binding = json!({
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": NAME},
        "subjects": [{"kind": "Group", "name": BOOTSTRAPPERS}],
    });
    let data = json!({"data": {"kubeconfig.conf": kubeconfig(cluster), CONFIGURATION: yaml::write(&kube_proxy_configuration(cluster))}});
    vec![
        service_account(KUBE_SYSTEM, NAME),
        cluster_role_binding("kubeadm:node-proxier", "system:node-proxier", KUBE_SYSTEM, NAME),
        in_kube_system(RBAC, "Role", json!({"rules": [rule]})),
        in_kube_system(RBAC, "RoleBinding", binding),
        labelled(in_kube_system("", "ConfigMap", data), &[("app", NAME)]),
        labelled(in_kube_system("apps", "DaemonSet", daemon_set(cluster, version)), &[("k8s-app", NAME)]),
    ]
}

/// Renders the kubeconfig. The server is the control-plane endpoint, because the Service `kubernetes` is reachable only
/// once kube-proxy runs.
fn kubeconfig(cluster: &Cluster) -> String {
    yaml::write(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "default",
            "cluster": {
                "certificate-authority": format!("{SERVICE_ACCOUNT}/ca.crt"),
                "server": format!("https://{}", cluster.endpoint),
            },
        }],
        "contexts": [{"name": "default", "context": {"cluster": "default", "namespace": "default", "user": "default"}}],
        "current-context": "default",
        "users": [{"name": "default", "user": {"tokenFile": format!("{SERVICE_ACCOUNT}/token")}}],
    }))
}

fn daemon_set(cluster: &Cluster, version: Version) -> Value {
    let mut container = json!({
        "name": NAME,
        "image": Image::KubeProxy.reference_for(cluster, version),
        "imagePullPolicy": "IfNotPresent",
        "command": [
            "/usr/local/bin/kube-proxy",
            format!("--config={DIRECTORY}/{CONFIGURATION}"),
            "--hostname-override=$(NODE_NAME)",
        ],
        "securityContext": {"privileged": true},
        "volumeMounts": [
            {"mountPath": DIRECTORY, "name": NAME},
            {"mountPath": "/run/xtables.lock", "name": "xtables-lock"},
            {"mountPath": "/lib/modules", "name": "lib-modules", "readOnly": true},
        ],
        "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
    });
    let sized = cluster.sizing().map(|sizing| {
        let (cpu, memory) = sizing.proxy_requests();
        json!({"requests": {"cpu": cpu, "memory": memory}})
    });
    let written = cluster.spec.addons.kube_proxy.resources.as_ref();
    // Without either, the field is not applied, so the user can set it in the target cluster.
    if written.is_some() || sized.is_some() {
        container["resources"] = resources(written, sized.unwrap_or_default());
    }
    json!({"spec": {
        "selector": {"matchLabels": {"k8s-app": NAME}},
        "updateStrategy": {"type": "RollingUpdate"},
        "template": {
            "metadata": {"labels": {"k8s-app": NAME}},
            "spec": {
                "priorityClassName": "system-node-critical",
                "containers": [container],
                "hostNetwork": true,
                "serviceAccountName": NAME,
                "volumes": [
                    {"name": NAME, "configMap": {"name": NAME}},
                    {"name": "xtables-lock", "hostPath": {"path": "/run/xtables.lock", "type": "FileOrCreate"}},
                    {"name": "lib-modules", "hostPath": {"path": "/lib/modules"}},
                ],
                "tolerations": [{"operator": "Exists"}],
                "nodeSelector": {"kubernetes.io/os": "linux"},
            },
        },
    }})
}
