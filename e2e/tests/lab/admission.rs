//! What the API server refuses, and whether its words name the field and the cure.

use anyhow::{Context, Result, bail, ensure};
use keyplane_e2e::installation::{cluster_spec, install_kinds};
use keyplane_e2e::{Kubectl, Lab, Management};
use serde_json::{Value, json};

/// A change of a good object that admission must refuse, and what the message must name.
struct Rejection {
    what: &'static str,
    pointer: &'static str,
    value: Value,
    words: &'static [&'static str],
}

fn refusal(what: &'static str, pointer: &'static str, value: Value, words: &'static [&'static str]) -> Rejection {
    Rejection { what, pointer, value, words }
}

/// A machine.
fn node(name: &str, address: &str) -> Value {
    json!({"name": name, "addresses": [address]})
}

/// The spec of the good object with an option and a field of the API server besides.
fn with_api_server(option: &str, content: &Value, field: &str, value: &Value) -> Value {
    let mut spec = cluster_spec("demo", "192.0.2.1")["spec"].clone();
    spec[option] = content.clone();
    spec["controlPlane"]["apiServer"][field] = value.clone();
    spec
}

fn jwt(entries: &Value) -> Value {
    json!({"jwt": entries})
}

fn issuer(username: &Value) -> Value {
    json!({"issuer": {"url": "https://id.example", "audiences": ["a"]}, "claimMappings": {"username": username}})
}

/// Every option that the API servers read from a file, users and a proxy.
fn options() -> Value {
    let mut object = cluster_spec("demo", "192.0.2.1");
    object["spec"]["audit"] = json!({
        "policy": {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
            "rules": [{"level": "None", "nonResourceURLs": ["/healthz*", "*"], "fieldOfTheFuture": true}, {"level": "Metadata"}]},
        "webhook": {"secretRef": {"name": "siem"}},
    });
    let several = json!({"issuer": {"url": "https://other.example", "audiences": ["a", "b"], "audienceMatchPolicy": "MatchAny"},
        "claimMappings": {"username": {"claim": "sub", "prefix": ""}}});
    object["spec"]["authentication"] = json!({
        "jwt": [issuer(&json!({"expression": "claims.sub"})), several],
        "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}, {"path": "/readyz"}]},
    });
    object["spec"]["podSecurity"] =
        json!({"enforce": "restricted", "version": "v1.36", "exemptions": {"namespaces": ["a"]}});
    object["spec"]["encryptionAtRest"] = json!({"provider": "aesgcm", "resources": ["secrets", "events", "widgets.stable.example.com"],
        "rotationPeriod": "168h", "keepRetiredKeys": "0s"});
    object["spec"]["users"] = json!([{"name": "jane", "groups": ["ops", "kubeadm:cluster-admins"], "validity": "24h"}]);
    let given = |name: &str| json!({"secretRef": {"name": name}});
    object["spec"]["certificateAuthorities"] =
        json!({"cluster": given("corp-ca"), "etcd": given("corp-etcd-ca"), "frontProxy": given("corp-front-proxy-ca")});
    object["spec"]["access"] = json!({"proxyURL": "socks5://[fd00::1]:1080"});
    object
}

/// ClusterSpecs that must not be let in.
#[allow(clippy::too_many_lines)]
#[rustfmt::skip]
fn clusters() -> Vec<Rejection> {
    vec![
        refusal("an unknown version", "/spec/kubernetesVersion", json!("v1.30.1"), &["kubernetesVersion", "v1.37.2"]),
        refusal("a version without v", "/spec/kubernetesVersion", json!("1.37.2"), &["kubernetesVersion", "v1.37.2"]),
        refusal(
            "overlapping ranges",
            "/spec/network/podCIDRs",
            json!(["10.96.4.0/24"]),
            &["serviceCIDRs and podCIDRs must not overlap", "10.244.0.0/16"],
        ),
        refusal(
            "a range that is none",
            "/spec/network/podCIDRs",
            json!(["10.244.0.0"]),
            &["spec.network.podCIDRs", "10.244.0.0/16"],
        ),
        refusal(
            "host bits",
            "/spec/network/serviceCIDRs",
            json!(["10.96.0.1/12"]),
            &["spec.network.serviceCIDRs", "host bits"],
        ),
        refusal(
            "two ranges of one family",
            "/spec/network/serviceCIDRs",
            json!(["10.96.0.0/16", "10.98.0.0/16"]),
            &["dual stack"],
        ),
        refusal(
            "a tiny service range",
            "/spec/network/serviceCIDRs",
            json!(["10.96.0.0/30"]),
            &["serviceCIDRs", "/28"],
        ),
        refusal("a bad DNS domain", "/spec/network/dnsDomain", json!("Cluster_Local"), &["dnsDomain", "cluster.local"]),
        refusal(
            "two nodes of one name",
            "/spec/controlPlane/nodes",
            json!([node("cp1", "192.0.2.1"), node("cp1", "192.0.2.2")]),
            &["spec.controlPlane.nodes", "Duplicate", "cp1"],
        ),
        refusal(
            "two nodes of one address",
            "/spec/controlPlane/nodes",
            json!([node("cp1", "192.0.2.1"), node("cp2", "192.0.2.1")]),
            &["spec.controlPlane.nodes", "each address belongs to one node"],
        ),
        refusal(
            "an address twice",
            "/spec/controlPlane/nodes/0/addresses",
            json!(["192.0.2.1", "192.0.2.1"]),
            &["addresses", "Duplicate"],
        ),
        refusal(
            "an address that is none",
            "/spec/controlPlane/nodes/0/addresses",
            json!(["192.0.2.300"]),
            &["addresses", "must be an IP address"],
        ),
        refusal(
            "a padded address",
            "/spec/controlPlane/nodes/0/addresses",
            json!(["192.000.2.1"]),
            &["addresses", "must be an IP address"],
        ),
        refusal(
            "an IPv6 address in another form",
            "/spec/controlPlane/nodes/0/addresses",
            json!(["FD00::0:1"]),
            &["addresses", "canonical"],
        ),
        refusal("loopback", "/spec/controlPlane/nodes/0/addresses", json!(["127.0.0.1"]), &["addresses", "loopback"]),
        refusal(
            "link-local",
            "/spec/controlPlane/nodes/0/addresses",
            json!(["169.254.169.254"]),
            &["addresses", "link-local"],
        ),
        refusal(
            "a nodeIP of another machine",
            "/spec/controlPlane/nodes/0/nodeIP",
            json!("192.0.2.9"),
            &["nodeIP", "one of the node's addresses"],
        ),
        refusal(
            "an address of the Services",
            "/spec/controlPlane/nodes/0/addresses",
            json!(["10.96.0.5"]),
            &["addresses", "choose others"],
        ),
        refusal("no node", "/spec/controlPlane/nodes", json!([]), &["spec.controlPlane.nodes"]),
        refusal(
            "a registry with a scheme",
            "/spec/registryMirrors",
            json!([{"registry": "https://registry.k8s.io", "endpoints": ["https://mirror.example"]}]),
            &["registryMirrors[].registry", "registry.k8s.io"],
        ),
        refusal(
            "a mirror that is no URL",
            "/spec/registryMirrors",
            json!([{"registry": "registry.k8s.io", "endpoints": ["mirror.example"]}]),
            &["registryMirrors[].endpoints", "https://mirror.corp.example"],
        ),
        refusal(
            "a key among a mirror's certificates",
            "/spec/registryMirrors",
            json!([{"registry": "registry.k8s.io", "endpoints": ["https://mirror.example"], "caBundle": "-----BEGIN PRIVATE KEY-----"}]),
            &["caBundle", "no key"],
        ),
        refusal(
            "a node name with capitals",
            "/spec/controlPlane/nodes/0/name",
            json!("CP1"),
            &["nodes[].name", "for example cp1"],
        ),
        refusal(
            "an endpoint with a scheme",
            "/spec/controlPlaneEndpoint/host",
            json!("https://api.example"),
            &["controlPlaneEndpoint.host", "api.demo.example"],
        ),
        refusal(
            "an endpoint among the Pods",
            "/spec/controlPlaneEndpoint/host",
            json!("10.244.0.9"),
            &["controlPlaneEndpoint.host", "choose an address outside"],
        ),
        refusal(
            "a port that is none",
            "/spec/controlPlaneEndpoint/port",
            json!(70000),
            &["controlPlaneEndpoint.port", "65535"],
        ),
        refusal(
            "a flag with dashes",
            "/spec/controlPlane/apiServer/extraArgs",
            json!([{"name": "--v", "value": "4"}]),
            &["extraArgs", "without leading dashes"],
        ),
        refusal(
            "a name that no certificate can have",
            "/spec/controlPlane/apiServer/certSANs",
            json!(["api example"]),
            &["certSANs"],
        ),
        refusal(
            "a kubelet setting of Keyplane's",
            "/spec/controlPlane/kubelet",
            json!({"rotateCertificates": false}),
            &["spec.controlPlane.kubelet", "leave them out"],
        ),
        refusal("an unknown layout", "/spec/controlPlane/layout", json!("Docker"), &["layout", "StaticPod"]),
        refusal(
            "static pods without a kubelet",
            "/spec/controlPlane/registerNodes",
            json!(false),
            &["registerNodes", "layout Systemd"],
        ),
        refusal(
            "taints of what is no Node",
            "/spec/controlPlane",
            json!({"nodes": [node("cp1", "192.0.2.1")], "layout": "Systemd", "registerNodes": false, "taints": []}),
            &["kubelet and taints are for Nodes", "leave them out"],
        ),
        refusal(
            "a container's resources for a unit",
            "/spec/controlPlane",
            json!({"nodes": [node("cp1", "192.0.2.1")], "layout": "Systemd", "scheduler": {"resources": {}}}),
            &["extraVolumes and resources are for containers", "drop-in"],
        ),
        refusal(
            "an unknown taint effect",
            "/spec/controlPlane/taints",
            json!([{"key": "a", "effect": "Never"}]),
            &["taints[].effect", "NoSchedule"],
        ),
        refusal(
            "a registry with a scheme",
            "/spec/imageRepository",
            json!("https://registry.example"),
            &["imageRepository", "without https://"],
        ),
        refusal("a relative data directory", "/spec/etcd/stacked/dataDir", json!("data"), &["dataDir", "absolute"]),
        refusal(
            "both kinds of etcd",
            "/spec/etcd",
            json!({"stacked": {"dataDir": "/data"},
                "external": {"endpoints": ["https://etcd1.example:2379"], "secretRef": {"name": "corp-etcd"}}}),
            &["stacked and external exclude each other"],
        ),
        refusal(
            "an etcd without TLS",
            "/spec/etcd/external",
            json!({"endpoints": ["http://etcd1.example:2379"], "secretRef": {"name": "corp-etcd"}}),
            &["spec.etcd.external.endpoints", "https://etcd1.example:2379"],
        ),
        refusal(
            "an etcd of Events with a path",
            "/spec/etcd/events",
            json!({"endpoints": ["https://events1.example:2379/events"]}),
            &["spec.etcd.events.endpoints", "https://events1.example:2379"],
        ),
        refusal(
            "one authority for two",
            "/spec/certificateAuthorities",
            json!({"cluster": {"secretRef": {"name": "corp"}}, "frontProxy": {"secretRef": {"name": "corp"}}}),
            &["spec.certificateAuthorities", "name three Secrets"],
        ),
        refusal(
            "an authority without a Secret",
            "/spec/certificateAuthorities",
            json!({"cluster": {"secretRef": {"name": ""}}}),
            &["certificateAuthorities.cluster.secretRef.name"],
        ),
        refusal(
            "an authority for an external etcd",
            "/spec",
            json!({
                "kubernetesVersion": "v1.37.2",
                "controlPlaneEndpoint": {"host": "api.demo.example"},
                "controlPlane": {"nodes": [node("cp1", "192.0.2.1")]},
                "etcd": {"external": {"endpoints": ["https://etcd1.example:2379"], "secretRef": {"name": "corp-etcd"}}},
                "certificateAuthorities": {"etcd": {"secretRef": {"name": "corp"}}},
            }),
            &["spec.certificateAuthorities.etcd", "spec.etcd.external.secretRef"],
        ),
        refusal(
            "a failure domain that is no label's value",
            "/spec/controlPlane/nodes/0/failureDomain",
            json!("zone a"),
            &["failureDomain", "zone-a"],
        ),
        refusal("an unknown field", "/spec/rotation", json!({"certificates": "1"}), &["rotation"]),
        refusal("an empty request", "/spec/rotate", json!({"certificates": ""}), &["rotate.certificates"]),
        refusal("an unknown deletion policy", "/spec/deletionPolicy", json!("Orphan"), &["deletionPolicy", "Retain"]),
        refusal(
            "an audit policy of a beta version",
            "/spec/audit",
            json!({"policy": {"apiVersion": "audit.k8s.io/v1beta1", "kind": "Policy", "rules": [{"level": "None"}]}}),
            &["spec.audit.policy.apiVersion", "audit.k8s.io/v1"],
        ),
        refusal(
            "an audit level that is none",
            "/spec/audit",
            json!({"policy": {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "All"}]}}),
            &["spec.audit.policy.rules[0].level", "RequestResponse"],
        ),
        refusal(
            "an audit policy without rules",
            "/spec/audit",
            json!({"policy": {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": []}}),
            &["spec.audit.policy.rules"],
        ),
        refusal("an audit log among the keys", "/spec/audit", json!({"log": {"path": "/etc/kubernetes/pki/a.log"}}), &["spec.audit.log.path", "/var/log"]),
        refusal("an audit log that climbs", "/spec/audit", json!({"log": {"path": "/var/log/../../etc/x"}}), &["spec.audit.log.path"]),
        refusal(
            "the audit log told twice",
            "/spec",
            with_api_server("audit", &json!({}), "extraArgs", &json!([{"name": "audit-log-path", "value": "-"}])),
            &["extraArgs", "spec.audit"],
        ),
        refusal(
            "issuers told twice",
            "/spec",
            with_api_server("authentication", &json!({}), "extraArgs", &json!([{"name": "oidc-client-id", "value": "a"}])),
            &["extraArgs", "spec.authentication.jwt"],
        ),
        refusal(
            "an admission configuration told twice",
            "/spec",
            with_api_server("podSecurity", &json!({}), "extraArgs", &json!([{"name": "admission-control-config-file", "value": "/a"}])),
            &["extraArgs", "spec.podSecurity"],
        ),
        refusal(
            "an encryption configuration told twice",
            "/spec",
            with_api_server("encryptionAtRest", &json!({}), "extraArgs", &json!([{"name": "encryption-provider-config", "value": "/a"}])),
            &["extraArgs", "spec.encryptionAtRest"],
        ),
        refusal(
            "a volume of encryption's name",
            "/spec",
            with_api_server("encryptionAtRest", &json!({}), "extraVolumes", &json!([{"name": "encryption-config", "hostPath": "/a", "mountPath": "/a"}])),
            &["extraVolumes", "choose another name"],
        ),
        refusal("a KMS plugin", "/spec/encryptionAtRest", json!({"provider": "kms"}), &["spec.encryptionAtRest.provider", "secretbox"]),
        refusal("aesgcm without end", "/spec/encryptionAtRest", json!({"provider": "aesgcm"}), &["spec.encryptionAtRest.provider", "rotationPeriod"]),
        refusal("nothing to encrypt", "/spec/encryptionAtRest", json!({"resources": []}), &["spec.encryptionAtRest.resources"]),
        refusal("a wildcard", "/spec/encryptionAtRest", json!({"resources": ["*.apps"]}), &["spec.encryptionAtRest.resources", "wildcards"]),
        refusal("a kind for a resource", "/spec/encryptionAtRest", json!({"resources": ["Secret"]}), &["spec.encryptionAtRest.resources", "lower case"]),
        refusal("a resource twice", "/spec/encryptionAtRest", json!({"resources": ["secrets", "secrets"]}), &["spec.encryptionAtRest.resources"]),
        refusal("what is stored as events", "/spec/encryptionAtRest", json!({"resources": ["events.events.k8s.io"]}), &["stored as events"]),
        refusal("a key for an hour", "/spec/encryptionAtRest", json!({"rotationPeriod": "1h"}), &["spec.encryptionAtRest.rotationPeriod", "24h"]),
        refusal("retired keys for some days", "/spec/encryptionAtRest", json!({"keepRetiredKeys": "7d"}), &["spec.encryptionAtRest.keepRetiredKeys", "8760h"]),
        refusal(
            "a volume of an option's name",
            "/spec",
            with_api_server("audit", &json!({}), "extraVolumes", &json!([{"name": "audit-log", "hostPath": "/a", "mountPath": "/a"}])),
            &["extraVolumes", "choose another name"],
        ),
        refusal(
            "an issuer without TLS",
            "/spec/authentication",
            jwt(&json!([{"issuer": {"url": "http://id.example", "audiences": ["a"]}, "claimMappings": {"username": {"expression": "claims.sub"}}}])),
            &["spec.authentication.jwt[0].issuer.url", "https://"],
        ),
        refusal(
            "an issuer twice",
            "/spec/authentication",
            jwt(&json!([issuer(&json!({"expression": "claims.sub"})), issuer(&json!({"expression": "claims.email"}))])),
            &["spec.authentication.jwt", "same issuer.url"],
        ),
        refusal(
            "a claim without a prefix",
            "/spec/authentication",
            jwt(&json!([issuer(&json!({"claim": "sub"}))])),
            &["claimMappings.username", "prefix"],
        ),
        refusal(
            "a claim and an expression",
            "/spec/authentication",
            jwt(&json!([issuer(&json!({"claim": "sub", "prefix": "", "expression": "claims.sub"}))])),
            &["claimMappings.username", "either"],
        ),
        refusal(
            "several audiences without a policy",
            "/spec/authentication",
            jwt(&json!([{"issuer": {"url": "https://id.example", "audiences": ["a", "b"]}, "claimMappings": {"username": {"expression": "claims.sub"}}}])),
            &["spec.authentication.jwt[].issuer", "MatchAny"],
        ),
        refusal(
            "probes that are kept out",
            "/spec/authentication",
            json!({"anonymous": {"enabled": false}}),
            &["spec.authentication.anonymous.enabled", "/readyz"],
        ),
        refusal(
            "a probe that is kept out",
            "/spec/authentication",
            json!({"anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]}}),
            &["spec.authentication.anonymous.conditions", "/readyz"],
        ),
        refusal("an unknown level", "/spec/podSecurity", json!({"enforce": "strict"}), &["spec.podSecurity.enforce", "restricted"]),
        refusal("a version that is none", "/spec/podSecurity", json!({"version": "1.37"}), &["spec.podSecurity.version", "v1.37"]),
        refusal(
            "a namespace that is none",
            "/spec/podSecurity",
            json!({"exemptions": {"namespaces": ["a.b"]}}),
            &["spec.podSecurity.exemptions.namespaces"],
        ),
        refusal("a user with capitals", "/spec/users", json!([{"name": "Jane"}]), &["spec.users[].name", "jane-doe"]),
        refusal("a user twice", "/spec/users", json!([{"name": "jane"}, {"name": "jane"}]), &["spec.users", "Duplicate"]),
        refusal(
            "a group of Kubernetes' own",
            "/spec/users",
            json!([{"name": "jane", "groups": ["system:masters"]}]),
            &["spec.users[].groups", "ClusterRoleBinding"],
        ),
        refusal("a group of two lines", "/spec/users", json!([{"name": "jane", "groups": ["a\nb"]}]), &["spec.users[].groups", "one line"]),
        refusal("a user for ten years", "/spec/users", json!([{"name": "jane", "validity": "87600h"}]), &["spec.users[].validity", "8760h"]),
        refusal(
            "a password for the proxy",
            "/spec/access",
            json!({"proxyURL": "http://me:secret@bastion.example:3128"}),
            &["spec.access.proxyURL", "http://bastion.example:3128"],
        ),
        refusal(
            "an agent without TLS",
            "/spec/nodeAgent",
            json!({"managementServer": "http://management.example:6443"}),
            &["spec.nodeAgent.managementServer", "https://management.example:6443"],
        ),
        refusal(
            "a key for every machine",
            "/spec/nodeAgent",
            json!({"managementServer": "https://m.example", "certificateAuthority": "-----BEGIN EC PRIVATE KEY-----"}),
            &["spec.nodeAgent.certificateAuthority", "every node gets it"],
        ),
        refusal("a proxy without a port", "/spec/access", json!({"proxyURL": "http://bastion.example"}), &["spec.access.proxyURL"]),
        refusal("a mode of long ago", "/spec/addons/kubeProxy/mode", json!("userspace"), &["kubeProxy.mode", "nftables"]),
        refusal(
            "kube-proxy's kubeconfig",
            "/spec/addons/kubeProxy/config",
            json!({"clientConnection": {"qps": 50}}),
            &["clientConnection", "leave it out"],
        ),
        refusal(
            "kube-proxy's mode in two places",
            "/spec/addons/kubeProxy/config",
            json!({"mode": "nftables"}),
            &["spec.addons.kubeProxy.mode"],
        ),
        refusal("no Pod of DNS", "/spec/addons/coreDNS/replicas", json!(0), &["replicas", "1"]),
        refusal("an experimental backend", "/spec/addons/flannel/backend", json!("ipip"), &["flannel.backend", "vxlan"]),
        refusal(
            "a secret in a ConfigMap",
            "/spec/addons/flannel/backendOptions",
            json!({"PSK": "x"}),
            &["backendOptions", "leave it out"],
        ),
        refusal(
            "a network without addresses",
            "/spec",
            json!({
                "kubernetesVersion": "v1.37.2",
                "controlPlaneEndpoint": {"host": "192.0.2.1"},
                "controlPlane": {"nodes": [node("cp1", "192.0.2.1")]},
                "addons": {"flannel": {"enabled": true}},
            }),
            &["spec.addons.flannel", "spec.network.podCIDRs"],
        ),
        refusal("more Nodes than Kubernetes is made for", "/spec/scale", json!({"nodes": 5001}), &["scale.nodes", "5000"]),
        refusal("a long name", "/metadata/name", json!("a".repeat(51)), &["metadata.name", "50 characters"]),
    ]
}

/// CertificatePolicies that must not be let in.
#[rustfmt::skip]
fn policies() -> Vec<Rejection> {
    vec![
        refusal(
            "a leaf that outlives its authority",
            "/spec",
            json!({"authority": {"validity": "100h"}, "leaf": {"validity": "200h", "renewBefore": "30%"}}),
            &["spec.leaf.validity", "shorter"],
        ),
        refusal(
            "an override that outlives the authority",
            "/spec",
            json!({"overrides": [{"certificate": "apiserver", "validity": "99999h"}]}),
            &["overrides[].validity", "shorter"],
        ),
        refusal("days", "/spec/leaf/validity", json!("365d"), &["spec.leaf.validity", "8760h"]),
        refusal(
            "a renewal before the beginning",
            "/spec",
            json!({"leaf": {"validity": "24h", "renewBefore": "48h"}}),
            &["renewBefore", "shorter"],
        ),
        refusal(
            "a window at no time",
            "/spec/maintenanceWindow",
            json!({"start": "2am", "duration": "4h"}),
            &["spec.maintenanceWindow.start", "02:30"],
        ),
        refusal(
            "a window of days",
            "/spec/maintenanceWindow",
            json!({"start": "02:00", "duration": "48h"}),
            &["spec.maintenanceWindow.duration", "24h"],
        ),
        refusal("all of the life", "/spec/leaf/renewBefore", json!("100%"), &["renewBefore", "99%"]),
        refusal("an unknown key", "/spec/leaf/keyAlgorithm", json!("Ed25519"), &["keyAlgorithm", "ECDSA-P256"]),
        refusal(
            "an unknown certificate",
            "/spec/overrides",
            json!([{"certificate": "webhook"}]),
            &["overrides[].certificate", "apiserver"],
        ),
        refusal(
            "a long request",
            "/spec/kubeletServing/maxExpirationSeconds",
            json!(99_999_999),
            &["maxExpirationSeconds", "31708800"],
        ),
        refusal(
            "a regular expression that is none",
            "/spec/kubeletServing/dnsNameRegex",
            json!("worker-["),
            &["spec.kubeletServing.dnsNameRegex"],
        ),
        refusal(
            "a domain that is none",
            "/spec/kubeletServing/dnsDomains",
            json!(["*.example.com"]),
            &["spec.kubeletServing.dnsDomains", "example.com"],
        ),
        refusal(
            "a range with host bits",
            "/spec/kubeletServing/addressCIDRs",
            json!(["10.0.0.1/24"]),
            &["spec.kubeletServing.addressCIDRs", "host bits"],
        ),
        refusal(
            "a wait without end",
            "/spec/signingRequests/waitLimit",
            json!("1000h"),
            &["spec.signingRequests.waitLimit", "24h"],
        ),
        refusal("short RSA keys", "/spec/signingRequests/minRSABits", json!(1024), &["minRSABits", "2048"]),
        refusal("a key of another kind", "/spec/signingRequests/keyAlgorithms", json!(["Ed25519"]), &["keyAlgorithms"]),
        refusal("no key at all", "/spec/signingRequests/keyAlgorithms", json!([]), &["keyAlgorithms"]),
        refusal(
            "an approver that declares nothing",
            "/spec/approver",
            json!({"reserved": {"serviceCIDRs": ["10.96.0.0/12"], "endpoints": ["api.example.com"]}}),
            &["spec.approver", "machines"],
        ),
        refusal(
            "an approver that does not know the Services",
            "/spec/approver",
            json!({"nodes": [{"namePattern": "*", "addressCIDRs": ["10.0.0.0/16"]}], "reserved": {"endpoints": ["api.example.com"]}}),
            &["serviceCIDRs"],
        ),
        refusal(
            "an endpoint with a port",
            "/spec/approver",
            json!({"nodes": [{"namePattern": "*", "addressCIDRs": ["10.0.0.0/16"]}],
                "reserved": {"serviceCIDRs": ["10.96.0.0/12"], "endpoints": ["api.example.com:6443"]}}),
            &["endpoints", "without a port"],
        ),
        refusal(
            "two machines of one address",
            "/spec/approver",
            json!({"machines": [node("a", "10.0.0.1"), node("b", "10.0.0.1")],
                "reserved": {"serviceCIDRs": ["10.96.0.0/12"], "endpoints": ["api.example.com"]}}),
            &["spec.approver.machines", "each address belongs to one node"],
        ),
    ]
}

/// NodePools that must not be let in.
#[rustfmt::skip]
fn pools() -> Vec<Rejection> {
    vec![
        refusal(
            "neither machines nor a selector",
            "/spec",
            json!({"clusterRef": {"name": "demo"}}),
            &["machines", "selector"],
        ),
        refusal(
            "two machines of one name",
            "/spec/machines",
            json!([node("w1", "192.0.2.1"), node("w1", "192.0.2.2")]),
            &["machines", "Duplicate"],
        ),
        refusal(
            "two machines of one address",
            "/spec/machines",
            json!([node("w1", "192.0.2.1"), node("w2", "192.0.2.1")]),
            &["spec.machines", "each address belongs to one node"],
        ),
        refusal("an address that is none", "/spec/machines", json!([node("w1", "here")]), &["machines[].addresses"]),
        refusal(
            "a bad pattern",
            "/spec/selector",
            json!({"namePattern": "Worker?", "addressCIDRs": ["192.0.2.0/24"]}),
            &["namePattern", "worker-*"],
        ),
        refusal("a limit of nothing", "/spec/maxNodes", json!(5), &["spec.maxNodes", "spec.selector"]),
        refusal(
            "a selector without ranges",
            "/spec/selector",
            json!({"namePattern": "worker-*", "addressCIDRs": []}),
            &["addressCIDRs"],
        ),
        refusal("a name with a dot", "/metadata/name", json!("a.b"), &["metadata.name", "DNS label"]),
        refusal("a failure domain that is no label's value", "/spec/machines/0/failureDomain", json!("rack 3"), &["failureDomain", "rack-3"]),
        refusal("a provider's id that is none", "/spec/machines/0/providerID", json!("i-012"), &["providerID", "aws:///"]),
        refusal("a label that is none", "/spec/labels", json!({"a b": "c"}), &["spec.labels", "example.com/disk"]),
        refusal("a label of Kubernetes' own", "/spec/labels", json!({"kubernetes.io/hostname": "c"}), &["spec.labels", "a prefix of your own"]),
        refusal("the control plane's role", "/spec/labels", json!({"node-role.kubernetes.io/control-plane": ""}), &["spec.labels"]),
        refusal(
            "a role that a kubelet may not give itself",
            "/spec",
            json!({"clusterRef": {"name": "demo"}, "labels": {"node-role.kubernetes.io/worker": ""},
                "selector": {"namePattern": "w*", "addressCIDRs": ["192.0.2.0/24"]}}),
            &["node-role.kubernetes.io", "list the nodes in spec.machines"],
        ),
        refusal("a taint that is none", "/spec/taints", json!([{"key": "a b", "effect": "NoSchedule"}]), &["spec.taints", "example.com/gpu"]),
        refusal("a taint without a known effect", "/spec/taints", json!([{"key": "a", "effect": "Never"}]), &["NoExecute"]),
        refusal("a sysctl that is none", "/spec/sysctls", json!({"ip_forward": "1"}), &["spec.sysctls", "net.core.somaxconn"]),
        refusal("a sysctl of two lines", "/spec/sysctls", json!({"net.ipv4.ip_forward": "1\nkernel.panic = 0"}), &["spec.sysctls"]),
        refusal("Keyplane's kubelet settings", "/spec/kubelet", json!({"serverTLSBootstrap": false}), &["spec.kubelet", "leave them out"]),
        refusal("taints among the kubelet's settings", "/spec/kubelet", json!({"registerWithTaints": []}), &["spec.taints"]),
        refusal("a token for ever", "/spec/bootstrap", json!({"tokenTTL": "87600h"}), &["tokenTTL", "24h"]),
        refusal("a token for a moment", "/spec/bootstrap", json!({"tokenTTL": "1m"}), &["tokenTTL", "10m"]),
        refusal("a format that is none", "/spec/bootstrap", json!({"format": "Kickstart"}), &["format", "Ignition"]),
        refusal(
            "a download with a command in it",
            "/spec/bootstrap",
            json!({"downloads": {"kubelet": {"url": "https://a.example/$(reboot)"}}}),
            &["downloads", "must be a URL"],
        ),
        refusal(
            "one checksum for many files",
            "/spec/bootstrap",
            json!({"downloads": {"kubelet": {"url": "https://a.example/{arch}/kubelet", "sha256": "0".repeat(64)}}}),
            &["{arch}", "sha256"],
        ),
        refusal("a host without an address", "/spec/bootstrap", json!({"hosts": [{"address": "mirror", "names": ["a"]}]}), &["hosts[].address"]),
        refusal(
            "a token for machines of the control plane",
            "/spec",
            json!({"clusterRef": {"name": "demo"}, "role": "ControlPlane", "machines": [node("cp1", "192.0.2.1")], "bootstrap": {}}),
            &["role Worker", "leave them out"],
        ),
    ]
}

/// Changes of a ClusterSpec that must not be let in.
#[rustfmt::skip]
fn changes() -> Vec<Rejection> {
    vec![
        refusal("a downgrade", "/spec/kubernetesVersion", json!("v1.36.1"), &["no downgrade"]),
        refusal("an older patch", "/spec/kubernetesVersion", json!("v1.37.1"), &["no downgrade"]),
        refusal(
            "other Service addresses",
            "/spec/network/serviceCIDRs",
            json!(["10.128.0.0/12"]),
            &["spec.network can't be changed"],
        ),
        refusal("another layout", "/spec/controlPlane/layout", json!("Systemd"), &["layout can't be changed"]),
        refusal("another data directory", "/spec/etcd/stacked/dataDir", json!("/data"), &["etcd would start empty"]),
        refusal(
            "an etcd that is somebody else's all at once",
            "/spec/etcd/external",
            json!({"endpoints": ["https://etcd1.example:2379"], "secretRef": {"name": "corp-etcd"}}),
            &["can't be switched", "create a new ClusterSpec"],
        ),
        refusal(
            "all nodes at once",
            "/spec/controlPlane/nodes",
            json!([node("cp2", "192.0.2.2"), node("cp3", "192.0.2.3")]),
            &["at least one of the former nodes must stay"],
        ),
        refusal(
            "another address",
            "/spec/controlPlane/nodes/0/addresses",
            json!(["192.0.2.9", "192.0.2.1"]),
            &["can't be changed", "set nodeIP to the old address"],
        ),
    ]
}

/// Puts a value where the pointer says, making the objects on the way.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut place = object;
    for key in pointer.trim_start_matches('/').split('/') {
        place = match key.parse::<usize>() {
            Ok(index) if place.is_array() => &mut place[index],
            _ => &mut place[key],
        };
    }
    *place = value;
}

pub(crate) fn bad_input_is_refused_at_admission_with_the_field_and_the_cure() -> Result<()> {
    let lab = Lab::start()?;
    let management = Management::start(&lab)?;
    install_kinds(&management)?;
    let admin = management.admin();
    let policy = json!({"apiVersion": "keyplane.io/v1alpha1", "kind": "CertificatePolicy",
        "metadata": {"name": "demo", "namespace": "default"}, "spec": {"leaf": {}}});
    let pool = json!({"apiVersion": "keyplane.io/v1alpha1", "kind": "NodePool",
        "metadata": {"name": "demo", "namespace": "default"},
        "spec": {"clusterRef": {"name": "demo"}, "machines": [node("w1", "192.0.2.21")]}});
    let rich = json!({"apiVersion": "keyplane.io/v1alpha1", "kind": "NodePool",
    "metadata": {"name": "rich", "namespace": "default"},
    "spec": {
        "clusterRef": {"name": "demo"},
        "machines": [{"name": "w1", "addresses": ["192.0.2.21", "fd00::15"], "failureDomain": "rack-3",
            "providerID": "aws:///eu-central-1a/i-0123456789abcdef0"}],
        "kubelet": {"maxPods": 50},
        "labels": {"example.com/disk": "ssd", "node-role.kubernetes.io/worker": "", "topology.kubernetes.io/region": "eu"},
        "taints": [{"key": "example.com/gpu", "value": "true", "effect": "NoSchedule"}],
        "sysctls": {"net.core.somaxconn": "4096", "net/ipv4/conf/eth0.1/forwarding": "1"},
        "bootstrap": {
            "format": "Ignition", "tokenTTL": "12h",
            "downloads": {"kubelet": {"url": "https://files.example/{version}/{arch}/kubelet"}},
            "hosts": [{"address": "192.0.2.5", "names": ["files.example"]}],
        },
    }});
    admin.apply(&rich.to_string()).context("a pool with everything was refused")?;
    admin.apply(include_str!("../../../examples/worker-pool.yaml")).context("the example with workers was refused")?;
    let mut mirrored = cluster_spec("mirrored", "192.0.2.1");
    set(
        &mut mirrored,
        "/spec/registryMirrors",
        json!([
            {"registry": "_default", "endpoints": ["https://mirror.example/v2/proxy"], "fallback": false},
            {"registry": "docker.io", "endpoints": ["http://192.0.2.5:5000", "https://[fd00::5]:5000/"]},
        ]),
    );
    admin.apply(&mirrored.to_string()).context("mirrors were refused")?;
    let mut problems = vec![];
    for (good, table) in [(cluster_spec("demo", "192.0.2.1"), clusters()), (policy, policies()), (pool, pools())] {
        admin.apply(&good.to_string()).context("the good object was refused")?;
        admin.run(&["delete", good["kind"].as_str().unwrap_or_default(), "demo"])?;
        for case in table {
            let mut bad = good.clone();
            set(&mut bad, case.pointer, case.value.clone());
            match admin.apply(&bad.to_string()) {
                Ok(_) => {
                    problems.push(format!("{} was let in", case.what));
                    admin.run(&["delete", bad["kind"].as_str().unwrap_or_default(), "--all"])?;
                }
                Err(error) => {
                    let told = format!("{error:#}");
                    let missing: Vec<_> = case.words.iter().filter(|word| !told.contains(*word)).collect();
                    if !missing.is_empty() {
                        problems.push(format!("{}: {missing:?} not in: {told}", case.what));
                    }
                }
            }
        }
    }
    admin.apply(&options().to_string()).context("the options were refused")?;
    let stored = admin.json(&["get", "clusterspec", "demo"])?;
    ensure!(stored["spec"]["audit"]["policy"]["rules"][0]["fieldOfTheFuture"] == true, "{stored}");
    admin.run(&["delete", "clusterspec", "demo"])?;
    let good = cluster_spec("demo", "192.0.2.1");
    admin.apply(&good.to_string())?;
    for case in changes() {
        let mut changed = good.clone();
        set(&mut changed, case.pointer, case.value.clone());
        match admin.apply(&changed.to_string()) {
            Ok(_) => bail!("{} was let in", case.what),
            Err(error) => {
                let told = format!("{error:#}");
                if !case.words.iter().all(|word| told.contains(word)) {
                    problems.push(format!("{}: {:?} not in: {told}", case.what, case.words));
                }
            }
        }
    }
    check_add_ons_and_nodes(admin, &good)?;
    let mut newer = good;
    set(&mut newer, "/spec/kubernetesVersion", json!("v1.37.3"));
    admin.apply(&newer.to_string()).context("a newer patch was refused")?;
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

/// What may follow what: an add-on while it runs, and nodes that come and go.
fn check_add_ons_and_nodes(admin: &Kubectl, good: &Value) -> Result<()> {
    let mut flannel = good.clone();
    set(&mut flannel, "/spec/addons/flannel", json!({"enabled": true, "backend": "vxlan"}));
    admin.apply(&flannel.to_string()).context("Flannel was refused")?;
    set(&mut flannel, "/spec/addons/flannel/backend", json!("host-gw"));
    let told = admin.apply(&flannel.to_string()).err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(told.contains("write the old value back"), "another backend while Flannel runs: {told}");
    // Nodes come and go, as long as one of before stays; a renamed one would be two changes in one.
    let mut nodes = good.clone();
    set(&mut nodes, "/spec/controlPlane/nodes", json!([node("cp1", "192.0.2.1"), node("cp2", "192.0.2.2")]));
    admin.apply(&nodes.to_string()).context("one node more was refused")?;
    let mut renamed = good.clone();
    set(&mut renamed, "/spec/controlPlane/nodes", json!([node("cp1", "192.0.2.1"), node("cp9", "192.0.2.2")]));
    match admin.apply(&renamed.to_string()) {
        Ok(_) => bail!("a renamed node was let in"),
        Err(error) => ensure!(format!("{error:#}").contains("can't be renamed"), "{error:#}"),
    }
    let mut first_goes = good.clone();
    set(&mut first_goes, "/spec/controlPlane/nodes", json!([node("cp2", "192.0.2.2")]));
    admin.apply(&first_goes.to_string()).context("the first node must be able to go")?;
    admin.run(&["delete", "clusterspec", "demo"])?;
    admin.apply(&good.to_string())?;
    Ok(())
}
