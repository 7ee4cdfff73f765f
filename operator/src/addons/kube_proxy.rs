//! kube-proxy (kubeadm's `phases/addons/proxy` and `componentconfigs/kubeproxy.go`).

use serde_json::{Value, json};

use super::{KUBE_SYSTEM, RBAC, cluster_role_binding, labelled, resources, service_account};
use crate::cluster::{Cluster, Version, joined};
use crate::manifests::Image;
use crate::target::{BOOTSTRAPPERS, TargetObject};
use crate::yaml;

const NAME: &str = "kube-proxy";
/// kubeadm's key of the configuration.
const CONFIGURATION: &str = "config.conf";
const DIRECTORY: &str = "/var/lib/kube-proxy";
/// What a Pod has of its ServiceAccount.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

pub(super) fn objects(cluster: &Cluster, version: Version) -> Vec<TargetObject> {
    let in_kube_system = |group, kind, content| TargetObject::new(group, kind, Some(KUBE_SYSTEM), NAME, content);
    // A machine that joins with kubeadm reads the configuration before it has a Node.
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [NAME], "verbs": ["get"]});
    let binding = json!({
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": NAME},
        "subjects": [{"kind": "Group", "name": BOOTSTRAPPERS}],
    });
    let data =
        json!({"data": {"kubeconfig.conf": kubeconfig(cluster), CONFIGURATION: yaml::write(&configuration(cluster))}});
    vec![
        service_account(KUBE_SYSTEM, NAME),
        cluster_role_binding("kubeadm:node-proxier", "system:node-proxier", KUBE_SYSTEM, NAME),
        in_kube_system(RBAC, "Role", json!({"rules": [rule]})),
        in_kube_system(RBAC, "RoleBinding", binding),
        labelled(in_kube_system("", "ConfigMap", data), &[("app", NAME)]),
        labelled(in_kube_system("apps", "DaemonSet", daemon_set(cluster, version)), &[("k8s-app", NAME)]),
    ]
}

/// It goes to the endpoint of all API servers: the Service `kubernetes` is reachable only once kube-proxy works.
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

/// What kubeadm marshals, with the zero values that the API type has no way to leave out, and the user's settings.
pub(super) fn configuration(cluster: &Cluster) -> Value {
    let written = &cluster.spec.addons.kube_proxy;
    let mode = if written.mode.is_empty() { "iptables" } else { written.mode.as_str() };
    let ipv6 = cluster.nodes.first().is_some_and(|node| node.advertise_address.is_ipv6());
    let mut configuration = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": if ipv6 { "::" } else { "0.0.0.0" },
        "bindAddressHardFail": false,
        "clientConnection": {
            "acceptContentTypes": "",
            "burst": 0,
            "contentType": "",
            "kubeconfig": format!("{DIRECTORY}/kubeconfig.conf"),
            "qps": 0,
        },
        "clusterCIDR": joined(&cluster.pod_cidrs),
        "configSyncPeriod": "0s",
        "conntrack": {
            "maxPerCore": null,
            "min": null,
            "tcpBeLiberal": false,
            "tcpCloseWaitTimeout": null,
            "tcpEstablishedTimeout": null,
            "udpStreamTimeout": "0s",
            "udpTimeout": "0s",
        },
        "detectLocal": {"bridgeInterface": "", "interfaceNamePrefix": ""},
        "detectLocalMode": "",
        "enableProfiling": false,
        "healthzBindAddress": "",
        "hostnameOverride": "",
        "iptables": {
            "localhostNodePorts": null,
            "masqueradeAll": false,
            "masqueradeBit": null,
            "minSyncPeriod": "0s",
            "syncPeriod": "0s",
        },
        "ipvs": {
            "excludeCIDRs": null,
            "minSyncPeriod": "0s",
            "scheduler": "",
            "strictARP": false,
            "syncPeriod": "0s",
            "tcpFinTimeout": "0s",
            "tcpTimeout": "0s",
            "udpTimeout": "0s",
        },
        "logging": {
            "flushFrequency": 0,
            "options": {"json": {"infoBufferSize": "0"}, "text": {"infoBufferSize": "0"}},
            "verbosity": 0,
        },
        "metricsBindAddress": "",
        "mode": mode,
        "nftables": {"masqueradeAll": false, "masqueradeBit": null, "minSyncPeriod": "0s", "syncPeriod": "0s"},
        "nodePortAddresses": null,
        "oomScoreAdj": null,
        "portRange": "",
        "showHiddenMetricsForVersion": "",
        "winkernel": {
            "enableDSR": false,
            "forwardHealthCheckVip": false,
            "networkName": "",
            "rootHnsEndpointName": "",
            "sourceVip": "",
        },
    });
    if let Some(settings) = &written.config {
        yaml::merge(&mut configuration, &Value::Object(settings.clone()));
    }
    configuration
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
    // Without either the field is not written, so that it is the user's in the target.
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
