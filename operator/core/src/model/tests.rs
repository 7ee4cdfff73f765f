//! Parsing of a small spec, and the refusal of invalid ones.

use super::*;

fn spec(yaml: &str) -> ClusterSpecSpec {
    serde_saphyr::from_str(yaml).unwrap()
}

fn parse(yaml: &str) -> Result<Cluster, FieldError> {
    Cluster::parse("demo", "default", &spec(yaml), Policy::default())
}

const GOOD: &str = "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: {host: api.demo.example}
controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.11, 10.1.0.11], nodeIP: 10.1.0.11}]}
network: {podCIDRs: [10.244.0.0/16]}
";

#[test]
fn reads_a_small_spec_with_kubeadms_defaults() {
    let cluster = parse(GOOD).unwrap();
    assert_eq!(cluster.endpoint.to_string(), "api.demo.example:6443");
    assert_eq!(cluster.nodes[0].advertise_address.to_string(), "10.1.0.11");
    assert_eq!(cluster.api_server_service_address().unwrap().to_string(), "10.96.0.1");
    assert_eq!(cluster.dns_service_address().unwrap().to_string(), "10.96.0.10");
}

#[test]
fn node_ips_have_both_families_in_dual_stack_clusters() {
    let nodes = "nodes: [{name: cp1, addresses: [10.0.0.11, 10.1.0.11, 'fd00::b', 'fd00::c'], nodeIP: 'fd00::c'}]";
    let both = GOOD
        .replacen("nodes: [{name: cp1, addresses: [10.0.0.11, 10.1.0.11], nodeIP: 10.1.0.11}]", nodes, 1)
        .replacen("[10.244.0.0/16]", "['fd00:244::/56', 10.244.0.0/16]", 1);
    let ips = |cluster: &Cluster| {
        let node = &cluster.nodes[0];
        let ips = cluster.node_ips(node.advertise_address, &node.addresses);
        ips.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(ips(&parse(&both).unwrap()), ["fd00::c", "10.0.0.11"]);
    assert_eq!(ips(&parse(GOOD).unwrap()), ["10.1.0.11"]);
}

#[test]
fn refuses_invalid_spec_with_field() {
    for (from, to, field) in [
        ("v1.37.2", "v1.30.0", "spec.kubernetesVersion"),
        ("api.demo.example", "api demo", "spec.controlPlaneEndpoint.host"),
        ("10.0.0.11,", "10.0.0.300,", "spec.controlPlane.nodes[cp1].addresses"),
        ("nodeIP: 10.1.0.11", "nodeIP: 10.1.0.12", "spec.controlPlane.nodes[cp1]"),
        ("10.244.0.0/16", "10.244.0.1/16", "spec.network.podCIDRs"),
        ("10.244.0.0/16", "10.100.0.0/16", "spec.network"),
        ("10.0.0.11,", "10.96.0.11,", "spec.controlPlane.nodes[].addresses"),
        ("{nodes:", "{kubelet: {rotateCertificates: false}, nodes:", "spec.controlPlane.kubelet"),
        ("network:", "addons: {kubeProxy: {mode: userspace}}\nnetwork:", "spec.addons.kubeProxy.mode"),
        ("network:", "addons: {kubeProxy: {config: {mode: ipvs}}}\nnetwork:", "spec.addons.kubeProxy.config"),
        ("network:", "addons: {kubeProxy: {config: {kind: X}}}\nnetwork:", "spec.addons.kubeProxy.config"),
        ("network:", "addons: {kubeProxy: {config: {hostnameOverride: x}}}\nnetwork:", "spec.addons.kubeProxy.config"),
        ("network:", "addons: {flannel: {backend: ipip}}\nnetwork:", "spec.addons.flannel.backend"),
        ("network:", "addons: {flannel: {backendOptions: {PSK: x}}}\nnetwork:", "spec.addons.flannel.backendOptions"),
        ("network: {podCIDRs: [10.244.0.0/16]}", "addons: {flannel: {enabled: true}}", "spec.addons.flannel"),
        ("network:", "scale: {nodes: 0}\nnetwork:", "spec.scale.nodes"),
        ("{nodes:", "{apiServer: {certSANs: [a b]}, nodes:", "spec.controlPlane.apiServer.certSANs"),
        ("nodeIP: 10.1.0.11", "failureDomain: zone a", "spec.controlPlane.nodes[cp1].failureDomain"),
        (
            "network:",
            "etcd: {external: {endpoints: ['etcd1.example:2379'], secretRef: {name: etcd}}}\nnetwork:",
            "spec.etcd.external.endpoints",
        ),
        (
            "network:",
            "etcd: {stacked: {dataDir: /data}, external: {endpoints: ['https://e:2379'], secretRef: {name: etcd}}}\nnetwork:",
            "spec.etcd",
        ),
        ("network:", "etcd: {events: {endpoints: ['https://e:2379/events']}}\nnetwork:", "spec.etcd.events.endpoints"),
        (
            "network:",
            "nodeAgent: {managementServer: 'http://m.example:6443'}\nnetwork:",
            "spec.nodeAgent.managementServer",
        ),
        (
            "network:",
            "nodeAgent: {managementServer: 'https://m.example:6443', certificateAuthority: CA}\nnetwork:",
            "spec.nodeAgent.certificateAuthority",
        ),
        (
            "network:",
            "certificateAuthorities: {etcd: {secretRef: {name: corp}}}\netcd: {external: {endpoints: ['https://e:2379'], secretRef: {name: etcd}}}\nnetwork:",
            "spec.certificateAuthorities.etcd",
        ),
        (
            "network:",
            "certificateAuthorities: {cluster: {secretRef: {name: corp}}, frontProxy: {secretRef: {name: corp}}}\nnetwork:",
            "spec.certificateAuthorities",
        ),
        (
            "network:",
            "certificateAuthorities: {frontProxy: {secretRef: {name: demo-ca}}}\nnetwork:",
            "spec.certificateAuthorities.frontProxy.secretRef",
        ),
        ("{nodes:", "{registerNodes: false, nodes:", "spec.controlPlane.registerNodes"),
        ("{nodes:", "{layout: Systemd, registerNodes: false, taints: [], nodes:", "spec.controlPlane"),
        ("{nodes:", "{layout: Systemd, scheduler: {resources: {}}, nodes:", "spec.controlPlane"),
        (
            "{nodes:",
            "{scheduler: {extraArgs: [{name: --v, value: '4'}]}, nodes:",
            "spec.controlPlane.scheduler.extraArgs",
        ),
    ] {
        let error = parse(&GOOD.replacen(from, to, 1)).unwrap_err();
        assert_eq!(error.field, field, "{to}: {error}");
    }
}

#[test]
fn refuses_container_settings_with_layout_systemd() {
    for (setting, field) in [
        ("images: {apiServer: registry.example/kube-apiserver:v1}", "spec.images.apiServer"),
        ("images: {controllerManager: registry.example/kcm:v1}", "spec.images.controllerManager"),
        ("images: {scheduler: registry.example/kube-scheduler:v1}", "spec.images.scheduler"),
        ("images: {etcd: registry.example/etcd:v1}", "spec.images.etcd"),
        ("images: {kubeProxy: registry.example/kube-proxy:v1}", "spec.images.kubeProxy"),
        ("addons: {kubeProxy: {resources: {}}}", "spec.addons.kubeProxy.resources"),
    ] {
        let static_pods = format!("{GOOD}{setting}\n");
        assert!(parse(&static_pods).is_ok(), "{setting}");
        let error = parse(&static_pods.replacen("{nodes:", "{layout: Systemd, nodes:", 1)).unwrap_err();
        assert_eq!(error.field, field, "{setting}");
        assert!(error.message.contains("leave it out"), "{error}");
    }
}

#[test]
fn accepts_images_of_pods_with_layout_systemd() {
    let images = "images: {pause: registry.example/pause:1, coreDNS: registry.example/coredns:1}\n";
    let units = GOOD.replacen("{nodes:", "{layout: Systemd, nodes:", 1);
    assert!(parse(&format!("{units}{images}")).is_ok());
}

#[test]
fn formats_ipv6_endpoint_with_brackets() {
    let cluster = parse(&GOOD.replace("api.demo.example", "'fd00::1'")).unwrap();
    assert_eq!(cluster.endpoint.to_string(), "[fd00::1]:6443");
}
