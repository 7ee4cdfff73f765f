//! Flannel, after its documentation (`configuration.md`, `backends.md`, `kubernetes.md` of the version in `Image`).
//! Names and paths are those of its own manifest, so that its documentation applies.

use keyplane_crds::keys;
use serde_json::{Map, Value, json};

use super::{RBAC, cluster_role_binding, labelled, resources, service_account};
use crate::images::Image;
use crate::model::{Cluster, Host, Version};
use crate::target_objects::TargetObject;

const NAMESPACE: &str = "kube-flannel";
const CONFIG_MAP: &str = "kube-flannel-cfg";
/// The directory of flanneld's configuration.
const CONFIGURATION: &str = "/etc/kube-flannel";
/// The health port in Flannel's own manifest. flanneld uses the host network, so the port is occupied on the host.
const HEALTH_PORT: u16 = 8081;
const APP: (&str, &str) = ("app", "flannel");

pub(super) fn objects(cluster: &Cluster, version: Version) -> Vec<TargetObject> {
    let rule = |resource: &str, verbs: &[&str]| json!({"apiGroups": [""], "resources": [resource], "verbs": verbs});
    let rules = [rule("pods", &["get"]), rule("nodes", &["get", "list", "watch"]), rule("nodes/status", &["patch"])];
    // Flannel needs the host network, NET_ADMIN and host directories.
    let privileged = ("pod-security.kubernetes.io/enforce", "privileged");
    let network = network(cluster);
    let data = json!({"data": {"cni-conf.json": cni_configuration(), "net-conf.json": network}});
    vec![
        labelled(TargetObject::new("", "Namespace", None, NAMESPACE, json!({})), &[privileged]),
        service_account(NAMESPACE, "flannel"),
        TargetObject::new(RBAC, "ClusterRole", None, "flannel", json!({"rules": rules})),
        cluster_role_binding("flannel", "flannel", NAMESPACE, "flannel"),
        labelled(TargetObject::new("", "ConfigMap", Some(NAMESPACE), CONFIG_MAP, data), &[APP]),
        labelled(
            TargetObject::new(
                "apps",
                "DaemonSet",
                Some(NAMESPACE),
                "kube-flannel-ds",
                daemon_set(cluster, version, &network),
            ),
            &[APP],
        ),
    ]
}

/// Renders the CNI configuration: Flannel's plugin, which delegates to `bridge`, and `portmap` for host ports.
fn cni_configuration() -> String {
    pretty(&json!({
        "name": "cbr0",
        "cniVersion": "1.0.0",
        "plugins": [
            {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    }))
}

/// Renders the configuration of flanneld.
fn network(cluster: &Cluster) -> String {
    let written = &cluster.spec.addons.flannel;
    let mut backend = Map::from_iter([("Type".to_owned(), written.backend.clone().into())]);
    backend.extend(written.backend_options.clone().unwrap_or_default());
    let mut network = Map::new();
    // Without this setting Flannel assumes IPv4.
    network.insert("EnableIPv4".to_owned(), cluster.pod_cidrs.iter().any(|range| range.addr().is_ipv4()).into());
    for range in &cluster.pod_cidrs {
        if range.addr().is_ipv4() {
            network.insert("Network".to_owned(), range.to_string().into());
        } else {
            network.insert("EnableIPv6".to_owned(), true.into());
            network.insert("IPv6Network".to_owned(), range.to_string().into());
        }
    }
    // Flannel and kube-proxy both add masquerade rules: with one in iptables and the other in nftables, the order of
    // the rules would be undefined.
    let nftables = cluster.spec.addons.kube_proxy.enabled && cluster.spec.addons.kube_proxy.mode == "nftables";
    network.insert("EnableNFTables".to_owned(), nftables.into());
    network.insert("Backend".to_owned(), Value::Object(backend));
    pretty(&Value::Object(network))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn arguments(cluster: &Cluster) -> Vec<String> {
    let mut arguments =
        vec!["--ip-masq".to_owned(), "--kube-subnet-mgr".to_owned(), format!("--healthz-port={HEALTH_PORT}")];
    if cluster.pod_cidrs.iter().any(|range| range.addr().is_ipv6()) {
        // The kubelet may probe an IPv6 address, and flanneld listens only on IPv4 by default.
        arguments.push("--healthz-ip=::".to_owned());
    }
    let extra = &cluster.spec.addons.flannel.extra_args;
    arguments.retain(|argument| {
        let name = argument.trim_start_matches('-').split('=').next();
        extra.iter().all(|extra| Some(extra.name.as_str()) != name)
    });
    arguments.extend(extra.iter().map(|extra| format!("--{}={}", extra.name, extra.value)));
    arguments
}

fn environment(cluster: &Cluster) -> Vec<Value> {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let value = |name: &str, value: &str| json!({"name": name, "value": value});
    let mut environment = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        // The number of Nodes in the largest cluster that Kubernetes supports.
        value("EVENT_QUEUE_DEPTH", "5000"),
    ];
    if !cluster.spec.addons.kube_proxy.enabled {
        // The replacement of kube-proxy may need a Pod network first, so flanneld uses the endpoint of the API servers
        // and not their Service.
        let host = match &cluster.endpoint.host {
            Host::Address(address) => address.to_string(),
            Host::Name(name) => name.clone(),
        };
        environment.push(value("KUBERNETES_SERVICE_HOST", &host));
        environment.push(value("KUBERNETES_SERVICE_PORT", &cluster.endpoint.port.to_string()));
    }
    environment
}

fn daemon_set(cluster: &Cluster, version: Version, network: &str) -> Value {
    let image = Image::Flannel.reference_for(cluster, version);
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let directory = |name: &str, path: &str| json!({"name": name, "hostPath": {"path": path}});
    let probe = |path: &str, delay: u8, period: u8| json!({"httpGet": {"path": path, "port": "healthz"}, "initialDelaySeconds": delay, "periodSeconds": period});
    let written = cluster.spec.addons.flannel.resources.as_ref();
    json!({"spec": {
        "selector": {"matchLabels": {APP.0: APP.1}},
        "template": {
            // flanneld reads its configuration only at startup: the annotation recreates the Pods after a change.
            "metadata": {"labels": {APP.0: APP.1}, "annotations": {keys::NETWORK_CHECKSUM_ANNOTATION: network}},
            "spec": {
                "hostNetwork": true,
                "priorityClassName": "system-node-critical",
                "serviceAccountName": "flannel",
                "nodeSelector": {"kubernetes.io/os": "linux"},
                // Without a Pod network a Node never becomes Ready, so Flannel runs on every Node, like kube-proxy.
                "tolerations": [{"operator": "Exists"}],
                "initContainers": [
                    {
                        "name": "install-cni-plugin",
                        "image": Image::FlannelCniPlugin.reference_for(cluster, version),
                        "command": ["cp"],
                        "args": ["-f", "/flannel", "/opt/cni/bin/flannel"],
                        "volumeMounts": [mount("cni-plugin", "/opt/cni/bin")],
                    },
                    {
                        "name": "install-cni",
                        "image": image,
                        "command": ["/opt/bin/install-conf"],
                        "args": [format!("{CONFIGURATION}/cni-conf.json"), "/etc/cni/net.d/10-flannel.conflist"],
                        "volumeMounts": [mount("cni", "/etc/cni/net.d"), mount("flannel-cfg", CONFIGURATION)],
                    },
                ],
                "containers": [{
                    "name": "kube-flannel",
                    "image": image,
                    "command": ["/opt/bin/flanneld"],
                    "args": arguments(cluster),
                    "env": environment(cluster),
                    "ports": [{"name": "healthz", "containerPort": HEALTH_PORT, "protocol": "TCP"}],
                    "livenessProbe": probe("/healthz", 10, 30),
                    "readinessProbe": probe("/readyz", 5, 10),
                    "resources": resources(written, json!({"requests": {"cpu": "100m", "memory": "50Mi"}})),
                    "securityContext": {"privileged": false, "capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}},
                    "volumeMounts": [
                        mount("run", "/run/flannel"),
                        mount("flannel-cfg", CONFIGURATION),
                        mount("xtables-lock", "/run/xtables.lock"),
                    ],
                }],
                "volumes": [
                    directory("run", "/run/flannel"),
                    directory("cni-plugin", "/opt/cni/bin"),
                    directory("cni", "/etc/cni/net.d"),
                    {"name": "flannel-cfg", "configMap": {"name": CONFIG_MAP}},
                    {"name": "xtables-lock", "hostPath": {"path": "/run/xtables.lock", "type": "FileOrCreate"}},
                ],
            },
        },
    }})
}
