//! CoreDNS (kubeadm's `phases/addons/dns`).

use serde_json::{Value, json};

use super::{KUBE_SYSTEM, RBAC, cluster_role_binding, labelled, resources, service_account};
use crate::images::Image;
use crate::model::{Cluster, Sizing, Version};
use crate::target_objects::TargetObject;

/// The number of Pods in kubeadm.
const REPLICAS: u32 = 2;
/// The label of the Pods. The name is that of CoreDNS's predecessor, kube-dns.
const LABEL: (&str, &str) = ("k8s-app", "kube-dns");

pub(super) fn objects(cluster: &Cluster, version: Version) -> Vec<TargetObject> {
    let rule = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]});
    let rules =
        [rule("", &["endpoints", "services", "pods", "namespaces"]), rule("discovery.k8s.io", &["endpointslices"])];
    let corefile = cluster.spec.addons.core_dns.corefile.clone().unwrap_or_else(|| corefile(cluster));
    let in_kube_system = |group, kind, name, content| TargetObject::new(group, kind, Some(KUBE_SYSTEM), name, content);
    let service = in_kube_system("", "Service", "kube-dns", service(cluster));
    let mut service =
        labelled(service, &[LABEL, ("kubernetes.io/cluster-service", "true"), ("kubernetes.io/name", "CoreDNS")]);
    let scraped = [("prometheus.io/port", "9153"), ("prometheus.io/scrape", "true")];
    service.object.metadata.annotations = Some(scraped.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    let deployment = in_kube_system("apps", "Deployment", "coredns", deployment(cluster, version));
    let mut deployment = labelled(deployment, &[LABEL]);
    if cluster.spec.addons.core_dns.replicas.is_none() && cluster.sizing().is_none() {
        // kubeadm too keeps the current number, which a person or an autoscaler may have set.
        deployment.initial_only = &["/spec/replicas"];
    }
    vec![
        service_account(KUBE_SYSTEM, "coredns"),
        TargetObject::new(RBAC, "ClusterRole", None, "system:coredns", json!({"rules": rules})),
        cluster_role_binding("system:coredns", "system:coredns", KUBE_SYSTEM, "coredns"),
        in_kube_system("", "ConfigMap", "coredns", json!({"data": {"Corefile": corefile}})),
        service,
        deployment,
    ]
}

/// Renders kubeadm's Corefile.
fn corefile(cluster: &Cluster) -> String {
    let domain = &cluster.spec.network.dns_domain;
    format!(
        ".:53 {{
    errors
    health {{
       lameduck 5s
    }}
    ready
    kubernetes {domain} in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    prometheus :9153
    forward . /etc/resolv.conf {{
       max_concurrent 1000
    }}
    cache 30 {{
       disable success {domain}
       disable denial {domain}
    }}
    loop
    reload
    loadbalance
}}
"
    )
}

/// Returns the Service for the `clusterDNS` of kubelets. In a dual-stack cluster the Service has one address too, as
/// with kubeadm.
fn service(cluster: &Cluster) -> Value {
    let port = |name: &str, port: u16, protocol: &str| json!({"name": name, "port": port, "protocol": protocol, "targetPort": port});
    json!({"spec": {
        "clusterIP": cluster.dns_service_address().map(|address| address.to_string()),
        "ports": [port("dns", 53, "UDP"), port("dns-tcp", 53, "TCP"), port("metrics", 9153, "TCP")],
        "selector": {LABEL.0: LABEL.1},
    }})
}

fn deployment(cluster: &Cluster, version: Version) -> Value {
    let written = &cluster.spec.addons.core_dns;
    let sizing = cluster.sizing();
    let replicas = written.replicas.map_or_else(
        || sizing.map_or(REPLICAS, Sizing::dns_replicas),
        |replicas| u32::try_from(replicas).unwrap_or(REPLICAS),
    );
    let (request, limit) = sizing.map_or((70, 170), Sizing::dns_memory);
    let sized = json!({
        "limits": {"memory": format!("{limit}Mi")},
        "requests": {"cpu": "100m", "memory": format!("{request}Mi")},
    });
    let port =
        |name: &str, port: u16, protocol: &str| json!({"containerPort": port, "name": name, "protocol": protocol});
    json!({"spec": {
        "replicas": replicas,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
        "selector": {"matchLabels": {LABEL.0: LABEL.1}},
        "template": {
            "metadata": {"labels": {LABEL.0: LABEL.1}},
            "spec": {
                "priorityClassName": "system-cluster-critical",
                "serviceAccountName": "coredns",
                "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
                    "weight": 100,
                    "podAffinityTerm": {
                        "labelSelector": {"matchExpressions": [{"key": LABEL.0, "operator": "In", "values": [LABEL.1]}]},
                        "topologyKey": "kubernetes.io/hostname",
                    },
                }]}},
                "tolerations": [
                    {"key": "CriticalAddonsOnly", "operator": "Exists"},
                    {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
                ],
                "nodeSelector": {"kubernetes.io/os": "linux"},
                "containers": [{
                    "name": "coredns",
                    "image": Image::CoreDns.reference_for(cluster, version),
                    "imagePullPolicy": "IfNotPresent",
                    "resources": resources(written.resources.as_ref(), sized),
                    "args": ["-conf", "/etc/coredns/Corefile"],
                    "volumeMounts": [{"name": "config-volume", "mountPath": "/etc/coredns", "readOnly": true}],
                    "ports": [
                        port("dns", 53, "UDP"),
                        port("dns-tcp", 53, "TCP"),
                        port("metrics", 9153, "TCP"),
                        port("liveness-probe", 8080, "TCP"),
                        port("readiness-probe", 8181, "TCP"),
                    ],
                    "livenessProbe": {
                        "httpGet": {"path": "/health", "port": "liveness-probe", "scheme": "HTTP"},
                        "initialDelaySeconds": 60,
                        "timeoutSeconds": 5,
                        "successThreshold": 1,
                        "failureThreshold": 5,
                    },
                    "readinessProbe": {"httpGet": {"path": "/ready", "port": "readiness-probe", "scheme": "HTTP"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
                        "readOnlyRootFilesystem": true,
                    },
                }],
                "dnsPolicy": "Default",
                "volumes": [{
                    "name": "config-volume",
                    "configMap": {"name": "coredns", "items": [{"key": "Corefile", "path": "Corefile"}]},
                }],
            },
        },
    }})
}
