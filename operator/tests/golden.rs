//! Rendered files and objects, byte for byte. `make bless` accepts the current output.

// Clippy's exemption for tests does not cover helpers outside of `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::{HARD_WAY, WORKERS, cluster, cluster_with_pool, noon, pod_ranges};
use keyplane::app;
use keyplane_core::addons::Addon;
use keyplane_core::encryption::{Change, Key, Progress, Stage, State, Writer, configuration};
use keyplane_core::etcd::{InitialCluster, initial_cluster};
use keyplane_core::model::Cluster;
use keyplane_core::{cluster_bootstrap, inventory, manifests, target_objects, yaml};
use keyplane_crds::EncryptionProvider;

/// The flags with which a node's etcd starts while no member answers.
fn joins(cluster: &Cluster, node: usize) -> InitialCluster {
    initial_cluster(cluster, &cluster.nodes[node], None, |_| None).flags
}

/// A spec with every field that changes a file.
const RICH: &str = "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: {host: api.demo.example, port: 8443}
controlPlane:
  nodes:
    - {name: cp1, addresses: [10.0.0.11, 'fd00::b'], nodeIP: 10.0.0.11}
    - {name: cp2, addresses: [10.0.0.12]}
  kubelet: {maxPods: 50, logging: {verbosity: 2}}
  apiServer:
    certSANs: [more.example]
    extraArgs: [{name: v, value: '2'}]
    extraVolumes: [{name: audit, hostPath: /var/log/audit, mountPath: /var/log/audit, pathType: DirectoryOrCreate}]
    resources: {requests: {cpu: '1'}, limits: {memory: 4Gi}}
network: {serviceCIDRs: [10.96.0.0/16, 'fd00:96::/112'], podCIDRs: [10.244.0.0/16, 'fd00:244::/56'], dnsDomain: corp.example}
imageRepository: registry.corp.example/kubernetes
images: {etcd: 'registry.corp.example/etcd@sha256:0000000000000000000000000000000000000000000000000000000000000000'}
";

#[test]
fn files_of_a_node() {
    let cluster = cluster(RICH);
    for file in manifests::files(&cluster, &cluster.nodes[0], &joins(&cluster, 0)) {
        let text = format!("# {} {:04o}\n{}", file.path, file.mode, file.content);
        insta::assert_snapshot!(file.key.into_owned(), text);
    }
}

/// Two address families, servers that are Nodes, and arguments that systemd would interpret.
const UNITS: &str = "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: {host: api.demo.example}
controlPlane:
  layout: Systemd
  nodes:
    - {name: cp1, addresses: [10.0.0.11, 'fd00::b']}
    - {name: cp2, addresses: [10.0.0.12, 'fd00::c']}
  kubelet: {maxPods: 50}
  apiServer: {extraArgs: [{name: service-account-max-token-expiration, value: 24h}, {name: audit-log-path, value: '/var/log/100% $HOME'}]}
network: {serviceCIDRs: [10.96.0.0/16, 'fd00:96::/112'], podCIDRs: [10.244.0.0/16, 'fd00:244::/56']}
";

#[test]
fn files_of_a_server_with_units() {
    let cluster = cluster_with_pool(UNITS, WORKERS);
    let ranges = pod_ranges(&[
        ("cp1", &["10.244.0.0/24", "fd00:244::/64"]),
        ("cp2", &["10.244.1.0/24", "fd00:244:0:1::/64"]),
        ("node-0", &["10.244.2.0/24"]),
    ]);
    let mut files = manifests::files(&cluster, &cluster.nodes[0], &joins(&cluster, 0));
    files.extend(manifests::systemd::pod_network(&cluster, &cluster.nodes[0], Some(&ranges), None));
    for file in files {
        let text = format!("# {} {:04o}\n{}", file.path, file.mode, file.content);
        insta::assert_snapshot!(format!("systemd-{}", file.key), text);
    }
}

/// A rotation in progress, with another provider and an additional resource.
#[test]
fn encryption_configuration_of_a_change_in_progress() {
    let created = noon();
    let key = |name: &str, provider| Key { name: name.to_owned(), provider, created, retired: None };
    let writers = |names: &[(&str, &str)]| {
        let writers = names.iter().map(|(resource, key)| ((*resource).to_owned(), Writer::Key((*key).to_owned())));
        writers.collect::<BTreeMap<_, _>>()
    };
    let mut state = State {
        made: 2,
        keys: vec![key("key-1", EncryptionProvider::Aescbc), key("key-2", EncryptionProvider::Secretbox)],
        resources: writers(&[("secrets", "key-1")]),
        change: Some(Change {
            to: writers(&[("secrets", "key-2"), ("widgets.example.com", "key-2")]),
            stage: Stage::Publish,
            started: created,
            since: created,
            requested: None,
            rolling_back: false,
            progress: Progress::default(),
        }),
        completed: None,
    };
    for stage in [Stage::Publish, Stage::Write, Stage::Drop] {
        state.change.as_mut().unwrap().stage = stage;
        let text = configuration(&state, |name| Some(format!("the base64 of {name}"))).unwrap();
        insta::assert_snapshot!(format!("encryption-{}", stage.name()), text);
    }
    insta::assert_snapshot!("encryption-state.json", serde_json::to_string_pretty(&state).unwrap());
}

#[test]
fn permissions_of_servers_without_nodes() {
    let cluster = cluster(HARD_WAY);
    let objects = cluster_bootstrap::objects(&cluster, "TRUST\n", cluster.version, false);
    // The layout changes no other object.
    let changed = ["system:kube-apiserver-to-kubelet", "system:kube-apiserver", target_objects::USER];
    let rights = objects.iter().filter(|wanted| {
        wanted.resource.group == "rbac.authorization.k8s.io"
            && wanted.object.metadata.namespace.is_none()
            && changed.iter().any(|name| wanted.object.metadata.name.as_deref() == Some(name))
    });
    let rights: Vec<_> = rights.map(|wanted| yaml::write_object(&wanted.object)).collect();
    insta::assert_snapshot!("systemd-rbac", rights.join("---\n"));
}

/// A spec with every option that has a separate file.
const OPTIONS: &str = "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: {host: api.demo.example}
controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.11]}]}
audit: {log: {path: /data/audit/log.json, maxAge: 7}, webhook: {secretRef: {name: siem}}}
authentication:
  jwt:
    - issuer: {url: 'https://id.example', audiences: [kubernetes]}
      claimMappings: {username: {claim: email, prefix: 'id:'}, groups: {claim: groups, prefix: 'id:'}}
  anonymous: {enabled: true, conditions: [{path: /livez}, {path: /readyz}]}
podSecurity: {enforce: baseline, version: v1.37, warn: restricted, exemptions: {namespaces: [monitoring], usernames: [root]}}
";

#[test]
fn files_of_the_options() {
    let cluster = cluster(OPTIONS);
    let files = manifests::files(&cluster, &cluster.nodes[0], &joins(&cluster, 0));
    let known = ["kube-apiserver.yaml", "audit-policy.yaml", "authentication-config.yaml", "admission-config.yaml"];
    for file in files.iter().filter(|file| known.contains(&file.key.as_ref())) {
        let text = format!("# {} {:04o}\n{}", file.path, file.mode, file.content);
        insta::assert_snapshot!(format!("options-{}", file.key), text);
    }
    assert_eq!(files.iter().filter(|file| known.contains(&file.key.as_ref())).count(), known.len());
}

#[test]
fn files_of_a_joining_node_and_with_external_etcd() {
    let cluster = cluster(RICH);
    let etcd = |node: usize| manifests::files(&cluster, &cluster.nodes[node], &joins(&cluster, node)).remove(0).content;
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let different: Vec<_> = lines(&etcd(1)).difference(&lines(&etcd(0))).cloned().collect();
    insta::assert_snapshot!("etcd.yaml-of-the-second-node", different.join("\n"));

    let external = common::cluster(&format!(
        "{RICH}etcd:\n  external: {{endpoints: ['https://etcd1.example:2379', 'https://[fd00::e2]:2379'], secretRef: {{name: corp-etcd}}}}\n  \
         events: {{endpoints: ['https://events1.example:2379', 'https://events2.example:2379']}}\n"
    ));
    let files = manifests::files(&external, &external.nodes[0], &joins(&external, 0));
    assert!(files.iter().all(|file| file.key != "etcd.yaml"));
    let api_server = files.iter().find(|file| file.key == "kube-apiserver.yaml").unwrap();
    let flags: Vec<_> = api_server.content.lines().filter(|line| line.contains("--etcd-")).collect();
    let kubeadm = manifests::cluster_configuration(&external, external.version);
    insta::assert_snapshot!("external-etcd", format!("{}\n{kubeadm}", flags.join("\n")));
}

#[test]
fn objects_in_the_target_cluster() {
    let cluster = cluster(RICH);
    let objects: Vec<_> = cluster_bootstrap::objects(&cluster, "TRUST\n", cluster.version, false)
        .iter()
        .map(|wanted| yaml::write_object(&wanted.object))
        .collect();
    insta::assert_snapshot!("target", objects.join("---\n"));
}

#[test]
fn objects_of_the_add_ons() {
    let cluster = cluster(RICH);
    for addon in Addon::ALL {
        let objects = addon.objects(&cluster, cluster.version);
        let documents: Vec<_> = objects.iter().map(|wanted| yaml::write_object(&wanted.object)).collect();
        insta::assert_snapshot!(format!("addon-{}", addon.name().to_lowercase()), documents.join("---\n"));
    }
}

#[test]
fn table_of_certificates() {
    let cluster = cluster(RICH);
    let mut lines = vec![];
    for node in &cluster.nodes {
        for leaf in inventory::leaves_of(&cluster, node).chain(inventory::cluster_leaves()) {
            let subject = leaf.subject(node);
            let server = leaf.server(&cluster, node).map(|server| server.to_string());
            lines.push(format!(
                "{} {} issuer={} CN={} O={:?} usages={:?} names={:?} form={:?} server={server:?}",
                node.name,
                leaf.name,
                leaf.issuer.name(),
                subject.common_name,
                subject.organizations.first(),
                leaf.usages,
                leaf.alternative_names(&cluster, node),
                leaf.form,
            ));
        }
    }
    insta::assert_snapshot!("inventory", lines.join("\n"));
}

#[test]
fn chart_matches_the_output_of_keyplane_crds() {
    let chart = include_str!("../../charts/keyplane-crds/templates/crds.yaml");
    assert!(chart == app::crds(), "charts/keyplane-crds differs from the output of `keyplane crds`: run `make bless`");
    assert!(!chart.contains("{{"), "Helm would take this for a template");
    // The API server warns about unknown formats.
    assert!(!chart.contains("format: uint"), "an unsigned integer in the schema");
}
