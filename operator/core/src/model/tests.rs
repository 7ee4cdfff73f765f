//! What a small spec is read as, and what is refused.

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
fn a_kubelet_reports_both_families_where_the_cluster_has_both() {
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
fn names_the_field_that_is_wrong() {
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
fn an_ipv6_endpoint_has_brackets() {
    let cluster = parse(&GOOD.replace("api.demo.example", "'fd00::1'")).unwrap();
    assert_eq!(cluster.endpoint.to_string(), "[fd00::1]:6443");
}
