//! The layout `Systemd`: each file has the path of Kubernetes the Hard Way, and systemd accepts the units.

// Clippy's exemption for tests does not cover helpers outside of `#[test]` functions.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{HARD_WAY, WORKERS, cluster, cluster_with_pool, noon, pod_ranges, settle, text};
use keyplane_core::etcd::{Member, initial_cluster};
use keyplane_core::host_files::File;
use keyplane_core::join::Pool;
use keyplane_core::join::objects::worker_config;
use keyplane_core::manifests::{self, systemd};
use keyplane_core::model::Cluster;
use keyplane_core::objects::IndexEntry;
use keyplane_core::observed::{EtcdFacts, Observed, TargetFacts};
use keyplane_core::plan::plan;
use keyplane_core::status;
use keyplane_crds::condition_of;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/systemd.yaml");

/// The output of `kubectl get nodes -o yaml` after both workers have registered.
const NODES: &str = "
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Node, metadata: {name: node-0}, spec: {podCIDRs: [10.200.0.0/24]}}
  - {apiVersion: v1, kind: Node, metadata: {name: node-1}, spec: {podCIDRs: [10.200.1.0/24]}}
";

/// The example, as `keyplane render` writes it.
fn rendered(folder: &Path) -> PathBuf {
    let (nodes, output) = (folder.join("nodes.yaml"), folder.join("out"));
    fs::write(&nodes, NODES).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyplane"));
    command.args(["render", "-f", EXAMPLE, "-f"]).arg(nodes).arg("-o").arg(&output);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    output
}

fn mode(path: &Path) -> u32 {
    let metadata = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    metadata.permissions().mode() & 0o777
}

fn files_below(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(format!("/{}", path.strip_prefix(folder).unwrap().display()));
            }
        }
    }
    found
}

#[test]
fn renders_every_path_of_the_hard_way_with_its_mode() {
    let folder = tempfile::tempdir().unwrap();
    let output = rendered(folder.path());
    let server = [
        ("/etc/etcd/ca.crt", 0o644),
        ("/etc/etcd/peer.crt", 0o644),
        ("/etc/etcd/peer.key", 0o600),
        ("/etc/etcd/server.crt", 0o644),
        ("/etc/etcd/server.key", 0o600),
        ("/etc/kubernetes/config/kube-scheduler.yaml", 0o644),
        ("/etc/systemd/system/etcd.service", 0o644),
        ("/etc/systemd/system/kube-apiserver.service", 0o644),
        ("/etc/systemd/system/kube-controller-manager.service", 0o644),
        ("/etc/systemd/system/kube-scheduler.service", 0o644),
        ("/var/lib/kubernetes/admin.kubeconfig", 0o600),
        ("/var/lib/kubernetes/ca.crt", 0o644),
        ("/var/lib/kubernetes/ca.key", 0o600),
        ("/var/lib/kubernetes/kube-api-server.crt", 0o644),
        ("/var/lib/kubernetes/kube-api-server.key", 0o600),
        ("/var/lib/kubernetes/kube-controller-manager.kubeconfig", 0o600),
        ("/var/lib/kubernetes/kube-scheduler.kubeconfig", 0o600),
        ("/var/lib/kubernetes/service-accounts.crt", 0o644),
        ("/var/lib/kubernetes/service-accounts.key", 0o600),
    ];
    for (path, expected) in server {
        assert_eq!(mode(&output.join("server").join(&path[1..])), expected, "{path}");
    }
    // A server that is no Node has no files of a Node.
    let existing = files_below(&output.join("server"));
    assert!(!existing.iter().any(|path| path.contains("kubelet/") || path.contains("kube-proxy")), "{existing:?}");
    let worker = [
        ("/etc/cni/net.d/10-bridge.conflist", 0o644),
        ("/etc/cni/net.d/99-loopback.conf", 0o644),
        ("/etc/containerd/config.toml", 0o644),
        ("/etc/systemd/system/containerd.service", 0o644),
        ("/etc/systemd/system/kube-proxy.service", 0o644),
        ("/etc/systemd/system/kubelet.service", 0o644),
        ("/etc/systemd/system/pod-routes.service", 0o644),
        ("/var/lib/kube-proxy/kube-proxy-config.yaml", 0o644),
        ("/var/lib/kube-proxy/kubeconfig", 0o600),
        ("/var/lib/kubelet/ca.crt", 0o644),
        ("/var/lib/kubelet/kubeconfig", 0o600),
        ("/var/lib/kubelet/kubelet-config.yaml", 0o644),
    ];
    for node in ["node-0", "node-1"] {
        for (path, expected) in worker {
            assert_eq!(mode(&output.join(node).join(&path[1..])), expected, "{path}");
        }
    }
}

#[test]
fn worker_secrets_are_only_its_two_kubeconfigs() {
    let folder = tempfile::tempdir().unwrap();
    let output = rendered(folder.path());
    let node = output.join("node-0");
    let secret: Vec<_> = files_below(&node).into_iter().filter(|path| mode(&node.join(&path[1..])) != 0o644).collect();
    assert_eq!(secret, ["/var/lib/kube-proxy/kubeconfig", "/var/lib/kubelet/kubeconfig"]);
    for path in files_below(&node) {
        assert!(!fs::read_to_string(node.join(&path[1..])).unwrap().contains("PRIVATE KEY"), "{path}");
    }
    let kubelet = fs::read_to_string(node.join("var/lib/kubelet/kubeconfig")).unwrap();
    assert!(kubelet.contains("name: system:node:node-0\n"), "the kubelet has another identity");
    assert!(kubelet.contains("server: https://server.kubernetes.local:6443\n"));
    assert!(kubelet.contains("client-key-data"));
    let proxy = fs::read_to_string(node.join("var/lib/kube-proxy/kubeconfig")).unwrap();
    assert!(proxy.contains("name: system:kube-proxy\n"));
}

/// Each path in a unit or a configuration, except those that a program creates itself.
fn named_paths(content: &str) -> BTreeSet<String> {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '=' | ':' | ']');
    content
        .split(ends)
        .filter(|word| ["/var/lib/kube", "/etc/etcd/", "/etc/kubernetes/"].iter().any(|start| word.starts_with(start)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_file_in_a_unit_is_on_its_node() {
    let folder = tempfile::tempdir().unwrap();
    let output = rendered(folder.path());
    let mut looked_at = 0;
    for machine in ["server", "node-0"] {
        let root = output.join(machine);
        let existing = files_below(&root);
        for path in &existing {
            for named in named_paths(&fs::read_to_string(root.join(&path[1..])).unwrap()) {
                looked_at += 1;
                assert!(existing.contains(&named), "{path} of {machine} names {named}, which does not exist");
            }
        }
    }
    assert!(looked_at > 25, "only {looked_at} paths");
}

/// Prepares a node's root with its files, stand-ins for the programs, and systemd's own targets.
fn stage(root: &Path, machine: &Path) {
    for path in files_below(machine) {
        let place = root.join(&path[1..]);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(machine.join(&path[1..]), place).unwrap();
    }
    let programs = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"]
        .map(|name| format!("usr/local/bin/{name}"));
    let system = ["usr/bin/containerd", "usr/sbin/ip", "usr/sbin/iptables", "usr/sbin/modprobe"].map(str::to_owned);
    for program in programs.into_iter().chain(system) {
        let place = root.join(program);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for folder in ["bin", "sbin", "lib"] {
        fs::create_dir_all(root.join("usr").join(folder)).unwrap();
        symlink(format!("usr/{folder}"), root.join(folder)).unwrap();
    }
    let units = root.join("usr/lib/systemd/system");
    fs::create_dir_all(&units).unwrap();
    for target in ["sysinit", "basic", "shutdown", "local-fs", "network", "network-online", "multi-user"] {
        let name = format!("{target}.target");
        fs::copy(Path::new("/usr/lib/systemd/system").join(&name), units.join(&name))
            .unwrap_or_else(|error| panic!("{name} of Debian's package systemd: {error}"));
    }
}

/// The complaints of systemd about the units below a root.
fn complaints(root: &Path) -> String {
    let folder = root.join("etc/systemd/system");
    let units = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut command = Command::new("systemd-analyze");
    command.arg("--root").arg(root).args(["verify", "--man=no"]).args(units);
    let done = command.output().unwrap_or_else(|error| {
        panic!("systemd-analyze can't be run ({error}): this test needs Debian's package systemd")
    });
    let message = String::from_utf8_lossy(&done.stderr).into_owned();
    if done.status.success() { message } else { format!("{message}\n{}", done.status) }
}

#[test]
fn systemd_accepts_every_unit() {
    let folder = tempfile::tempdir().unwrap();
    let output = rendered(folder.path());
    for machine in ["server", "node-0"] {
        let root = folder.path().join(format!("root-{machine}"));
        stage(&root, &output.join(machine));
        assert_eq!(complaints(&root), "", "{machine}");
    }
    // systemd does check: it reports an unknown setting and a missing program.
    let root = folder.path().join("root-server");
    let unit = root.join("etc/systemd/system/etcd.service");
    let text = fs::read_to_string(&unit).unwrap();
    fs::write(&unit, text.replace("RestartSec=5", "RestartSec=soon")).unwrap();
    assert!(complaints(&root).contains("soon"));
    fs::write(&unit, text).unwrap();
    fs::remove_file(root.join("usr/local/bin/etcd")).unwrap();
    assert!(complaints(&root).contains("/usr/local/bin/etcd"));
}

/// The names of the flags in a manifest or a unit.
fn flags(content: &str) -> BTreeSet<String> {
    let lines = content.lines().filter_map(|line| line.trim_start_matches([' ', '-', '"']).split_once('='));
    let flags = lines.map(|(name, _)| name.to_owned());
    flags.filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.contains([':', ' '])).collect()
}

#[test]
fn both_layouts_use_the_same_component_flags() {
    let units = cluster(&HARD_WAY.replace("registerNodes: false", "registerNodes: true"));
    let pods = cluster(&HARD_WAY.replace("layout: Systemd", "").replace("registerNodes: false", ""));
    let file = |cluster: &Cluster, key: String| {
        let files = manifests::files(
            cluster,
            &cluster.nodes[0],
            &initial_cluster(cluster, &cluster.nodes[0], None, |_| None).flags,
        );
        flags(&files.into_iter().find(|file| file.key == key).unwrap().content)
    };
    for component in ["etcd", "kube-apiserver", "kube-controller-manager"] {
        let flags = file(&pods, format!("{component}.yaml"));
        assert!(flags.len() > 10, "{flags:?}");
        assert_eq!(file(&units, format!("{component}.service")), flags, "{component}");
    }
    // The scheduler of the Hard Way has its kubeconfig and its leader election in a file.
    let of_pod = file(&pods, "kube-scheduler.yaml".to_owned());
    let of_unit = file(&units, "kube-scheduler.service".to_owned());
    let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>();
    assert_eq!(only(&of_unit, &of_pod), ["config"]);
    assert_eq!(only(&of_pod, &of_unit), ["kubeconfig", "leader-elect"]);
}

#[test]
fn kube_proxy_unit_has_its_settings_and_disabling_removes_it() {
    let files = |addon: &str| {
        let cluster = cluster_with_pool(&format!("{HARD_WAY}addons: {{kubeProxy: {addon}}}\n"), WORKERS);
        let pool = Pool::parse("workers", &serde_saphyr::from_str(WORKERS).unwrap(), &cluster).unwrap().unwrap();
        let mut observed = Observed::default();
        assert!(settle(&cluster, &mut observed).blockers.is_empty());
        let keys = observed.secrets["demo-node-0-pki"].data.clone().unwrap();
        let config = worker_config(&cluster, &pool, &pool.machines[0], "TRUST\n", None, None).data.unwrap();
        (config, keys.into_keys().collect::<BTreeSet<_>>())
    };
    let (config, keys) = files("{mode: nftables, config: {conntrack: {maxPerCore: 0}}}");
    let written = &config["kube-proxy-config.yaml"];
    for line in [
        "mode: nftables",
        "  maxPerCore: 0",
        "hostnameOverride: node-0",
        "  kubeconfig: /var/lib/kube-proxy/kubeconfig",
    ] {
        assert!(written.contains(&format!("\n{line}\n")), "{line} is not in {written}");
    }
    assert!(keys.contains("kube-proxy.conf"));
    let (config, keys) = files("{enabled: false}");
    assert!(!config.keys().any(|key| key.contains("kube-proxy")), "{:?}", config.keys());
    assert!(!keys.contains("kube-proxy.conf"));
}

#[test]
fn server_without_kube_proxy_connects_to_webhooks_directly() {
    let flags = |spec: &str| {
        let cluster = cluster(spec);
        let files = manifests::files(
            &cluster,
            &cluster.nodes[0],
            &initial_cluster(&cluster, &cluster.nodes[0], None, |_| None).flags,
        );
        flags(&files.into_iter().find(|file| file.key == "kube-apiserver.service").unwrap().content)
    };
    assert!(flags(HARD_WAY).contains("enable-aggregator-routing"));
    assert!(!flags(&HARD_WAY.replace("registerNodes: false", "")).contains("enable-aggregator-routing"));
}

fn network(cluster: &Cluster, machine: &str, ranges: &[(&str, &[&str])]) -> BTreeMap<String, String> {
    let machine = cluster.all_nodes().find(|other| other.name == machine).unwrap();
    let files = systemd::pod_network(cluster, machine, Some(&pod_ranges(ranges)), None);
    files.into_iter().map(|File { key, content, .. }| (key.into_owned(), content)).collect()
}

#[test]
fn each_node_has_a_bridge_for_its_range_and_routes_to_others() {
    let cluster = cluster_with_pool(HARD_WAY, WORKERS);
    let ranges: &[(&str, &[&str])] = &[("node-0", &["10.200.0.0/24"]), ("node-1", &["10.200.1.0/24"])];
    let node = network(&cluster, "node-0", ranges);
    assert!(node["10-bridge.conflist"].contains(r#""subnet": "10.200.0.0/24""#));
    let routes = &node["pod-routes.service"];
    assert!(routes.contains("\nExecStart=ip -4 route replace 10.200.1.0/24 via 10.0.0.21 proto 75\n"), "{routes}");
    assert!(!routes.contains("replace 10.200.0.0/24"), "{routes}");
    // A server without Pods needs routes, too, because it proxies requests to aggregated API servers and webhooks.
    let server = network(&cluster, "server", ranges);
    assert_eq!(server.keys().collect::<Vec<_>>(), ["pod-routes.service"]);
    let routes = &server["pod-routes.service"];
    assert!(routes.contains("10.200.0.0/24 via 10.0.0.20 ") && routes.contains("10.200.1.0/24 via 10.0.0.21 "));
    assert!(!routes.contains("iptables"), "{routes}");
}

#[test]
fn ignores_pod_ranges_outside_the_cluster_or_claimed_twice() {
    let cluster = cluster_with_pool(HARD_WAY, WORKERS);
    let routes = |ranges: &[(&str, &[&str])]| network(&cluster, "server", ranges).remove("pod-routes.service");
    assert!(routes(&[("node-0", &["10.200.0.0/24"])]).is_some());
    // The server's own network, which a kubelet may claim when it registers its Node.
    assert_eq!(routes(&[("node-0", &["10.0.0.0/24"])]), None);
    assert_eq!(routes(&[("node-0", &["10.200.0.0/24"]), ("node-1", &["10.200.0.128/25"])]), None);
    // A Node that is not declared has no address to trust.
    assert_eq!(routes(&[("stranger", &["10.200.7.0/24"])]), None);
}

#[test]
fn renders_no_network_without_pod_ranges() {
    let spec = HARD_WAY.replace("podCIDRs: [10.200.0.0/16], ", "");
    let cluster = cluster_with_pool(&spec, WORKERS);
    assert!(network(&cluster, "node-0", &[("node-0", &["10.200.0.0/24"])]).is_empty());
}

fn settled() -> (Cluster, Observed) {
    let cluster = cluster_with_pool(HARD_WAY, WORKERS);
    let mut observed = Observed::default();
    assert!(settle(&cluster, &mut observed).blockers.is_empty());
    (cluster, observed)
}

#[test]
fn worker_keys_are_stable_and_deleted_only_with_their_pool() {
    let (cluster, mut observed) = settled();
    observed.status = status::report(&cluster, &observed, &[], Some(1), noon());
    assert!(observed.status.certificates.iter().any(|row| row.node.as_deref() == Some("node-0")));
    observed.target = answer(&[]);
    let member = Member {
        id: 1,
        name: "server".to_owned(),
        peer_urls: vec!["https://10.0.0.11:2380".to_owned()],
        learner: false,
        up: true,
        trouble: None,
    };
    observed.target.etcd = Some(Ok(EtcdFacts { members: vec![member], confirmed: true, waits: None }));
    let before = observed.secrets.clone();
    settle(&cluster, &mut observed);
    assert!(observed.secrets == before, "a key was regenerated");
    // The ClusterSpec's own plan removes nothing while a pool can't be read.
    settle(&common::cluster(HARD_WAY), &mut observed);
    assert!(observed.secrets == before, "a key is gone");
}

fn answer(ranges: &[(&str, &[&str])]) -> TargetFacts {
    TargetFacts {
        available: Some(Ok(())),
        nodes: Some(ranges.iter().map(|(name, _)| ((*name).to_owned(), true)).collect()),
        pod_ranges: Some(pod_ranges(ranges)),
        ..TargetFacts::default()
    }
}

fn config(observed: &Observed, name: &str) -> BTreeMap<String, String> {
    observed.config_maps[name].data.clone().unwrap()
}

#[test]
fn routes_follow_the_nodes_and_stay_while_the_target_is_silent() {
    let (cluster, mut observed) = settled();
    assert!(!config(&observed, "demo-server-config").contains_key("pod-routes.service"));
    observed.target = answer(&[("node-0", &["10.200.0.0/24"]), ("node-1", &["10.200.1.0/24"])]);
    settle(&cluster, &mut observed);
    let written = config(&observed, "demo-server-config");
    let index: Vec<IndexEntry> = serde_json::from_str(&written["index.json"]).unwrap();
    assert!(index.iter().any(|entry| entry.path == "/etc/systemd/system/pod-routes.service"));
    assert!(written["pod-routes.service"].contains("10.200.1.0/24"));
    observed.target = TargetFacts { available: Some(Err((String::new(), String::new()))), ..TargetFacts::default() };
    assert!(plan(&cluster, &observed, noon()).steps.is_empty());
    // A Node was deleted: its route is removed.
    observed.target = answer(&[("node-0", &["10.200.0.0/24"])]);
    settle(&cluster, &mut observed);
    let routes = &config(&observed, "demo-server-config")["pod-routes.service"];
    assert!(routes.contains("10.200.0.0/24") && !routes.contains("10.200.1.0/24"), "{routes}");
}

#[test]
fn worker_network_stays_while_the_target_is_silent() {
    let cluster = cluster_with_pool(HARD_WAY, WORKERS);
    let pool = Pool::parse("workers", &serde_saphyr::from_str(WORKERS).unwrap(), &cluster).unwrap().unwrap();
    let ranges = pod_ranges(&[("node-0", &["10.200.0.0/24"])]);
    let config = |ranges, before: Option<&BTreeMap<String, String>>| {
        worker_config(&cluster, &pool, &pool.machines[0], "TRUST\n", ranges, before).data.unwrap()
    };
    assert!(!config(None, None).contains_key("10-bridge.conflist"));
    let written = config(Some(&ranges), None);
    let index: Vec<IndexEntry> = serde_json::from_str(&written["index.json"]).unwrap();
    for (key, path) in systemd::POD_NETWORK_FILES {
        assert!(written.contains_key(key) && index.iter().any(|entry| entry.path == path), "{path}");
    }
    assert_eq!(config(None, Some(&written)), written);
    // The Node was recreated, and has no range yet.
    assert!(!config(Some(&pod_ranges(&[])), Some(&written)).contains_key("10-bridge.conflist"));
}

#[test]
fn node_with_a_bootstrap_certificate_needs_no_token() {
    let cluster = cluster_with_pool(HARD_WAY, WORKERS);
    let parse = |yaml: &str| Pool::parse("workers", &serde_saphyr::from_str(yaml).unwrap(), &cluster).unwrap().unwrap();
    assert!(!parse(WORKERS).joins_by_token(&cluster));
    let selector = "{clusterRef: {name: demo}, selector: {namePattern: w-*, addressCIDRs: [10.0.0.0/24]}}";
    assert!(parse(selector).joins_by_token(&cluster));
}

#[test]
fn worker_kubelet_keeps_its_certificate_once_its_node_exists() {
    let (cluster, mut observed) = settled();
    let data = observed.secrets["demo-node-0-pki"].data.clone().unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["ca.crt", "index.json", "kube-proxy.conf", "kubelet.conf"]);
    assert!(text(&observed, "demo-node-0-pki", "kubelet.conf").contains("client-key-data"));
    observed.target = answer(&[("node-0", &["10.200.0.0/24"])]);
    settle(&cluster, &mut observed);
    let kubeconfig = text(&observed, "demo-node-0-pki", "kubelet.conf");
    assert!(kubeconfig.contains("/var/lib/kubelet/pki/kubelet-client-current.pem"), "the kubelet would not renew it");
    assert!(text(&observed, "demo-node-1-pki", "kubelet.conf").contains("client-key-data"));
}

#[test]
fn servers_without_nodes_are_ready_by_api_server_probes() {
    let (cluster, mut observed) = settled();
    let counted = |observed: &Observed| {
        let status = status::report(&cluster, observed, &[], Some(1), noon());
        let valid = condition_of(&status.conditions, "CertificatesValid").unwrap().status.clone();
        assert_eq!(valid, "True");
        let ready = condition_of(&status.conditions, "ControlPlaneNodesReady").unwrap();
        format!("{}/{} {}", status.ready_nodes.unwrap(), status.desired_nodes.unwrap(), ready.reason)
    };
    assert_eq!(counted(&observed), "0/1 NotContacted");
    // A Node with the server's name is not the server.
    observed.target = answer(&[("server", &[])]);
    assert_eq!(counted(&observed), "0/1 NotContacted");
    observed.target.api_servers = Some([("server".to_owned(), true)].into());
    assert_eq!(counted(&observed), "1/1 NodesReady");
    observed.target.api_servers = Some([("server".to_owned(), false)].into());
    assert_eq!(counted(&observed), "0/1 NodeNotReady");
}

#[test]
fn workers_of_static_pod_clusters_have_no_secrets() {
    let spec = HARD_WAY.replace("layout: Systemd", "").replace("registerNodes: false", "");
    assert!(cluster_with_pool(&spec, WORKERS).workers.is_empty());
}
