//! Bootstrapping of worker nodes: their files, the join data in three formats, and the state of each node.

// Clippy's exemption for tests does not cover helpers outside of `#[test]` functions.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use common::{SMALL, cluster, noon};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_core::host_files::File;
use keyplane_core::join::state::{self, JoinFacts, NodeState, Request};
use keyplane_core::join::token::Token;
use keyplane_core::join::{
    AgentFiles, Pool, bootstrap_data, objects, target_objects, worker_files, worker_label_patch,
};
use keyplane_core::model::{Cluster, FieldError};
use keyplane_core::yaml;
use keyplane_crds::{MachineState, MachineStatus, NodePoolSpec, condition_of};
use serde_json::{Value, json};

/// A cluster with all settings that matter to worker nodes.
const MIRRORED: &str = "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: {host: api.demo.example}
controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.11]}]}
network: {serviceCIDRs: [10.96.0.0/16, 'fd00:96::/112'], podCIDRs: [10.244.0.0/16, 'fd00:244::/56']}
imageRepository: mirror.corp.example/kubernetes
registryMirrors:
  - {registry: registry.k8s.io, endpoints: ['https://mirror.corp.example'], fallback: false, caBundle: '-----BEGIN CERTIFICATE-----'}
  - {registry: 'docker.io', endpoints: ['http://10.0.0.5:5000', 'https://mirror.corp.example/v2/hub']}
";

/// A spec with every field that changes a file.
const RICH: &str = r"
clusterRef: {name: demo}
machines:
  - {name: worker1, addresses: [10.0.0.21, 'fd00::15'], failureDomain: rack-3, providerID: 'metal:///21'}
  - {name: worker2, addresses: [10.0.0.22]}
selector: {namePattern: 'burst-*.corp.example', addressCIDRs: [10.0.1.0/24, 'fd00:1::/64']}
kubelet: {maxPods: 50, protectKernelDefaults: true}
labels: {example.com/disk: ssd}
taints: [{key: example.com/gpu, value: 'true', effect: NoSchedule}]
sysctls: {net.core.somaxconn: '4096', vm/overcommit_memory: '0'}
bootstrap:
  downloads:
    kubelet: {url: 'https://files.corp.example/{version}/{arch}/kubelet'}
    containerd: {url: 'https://files.corp.example/containerd.tar.gz', sha256: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'}
    cniPlugins: {url: 'https://files.corp.example/cni-{arch}.tgz'}
  hosts: [{address: 10.0.0.5, names: [mirror.corp.example, files.corp.example]}]
";

const PLAIN: &str = "
clusterRef: {name: demo}
machines: [{name: worker1, addresses: [10.0.0.21]}, {name: worker2, addresses: [10.0.0.22]}]
";

const TRUST: &str = "-----BEGIN CERTIFICATE-----\nTRUST\n-----END CERTIFICATE-----\n";

fn parse(cluster: &Cluster, spec: &str) -> Result<Option<Pool>, FieldError> {
    let spec: NodePoolSpec = serde_saphyr::from_str(spec).unwrap();
    Pool::parse("workers", &spec, cluster)
}

fn pool(cluster: &Cluster, spec: &str) -> Pool {
    parse(cluster, spec).unwrap().unwrap()
}

fn join_data(cluster: &Cluster, spec: &str, format: &str) -> String {
    let mut spec: Value = serde_saphyr::from_str(spec).unwrap();
    spec["bootstrap"]["format"] = json!(format);
    let pool = pool(cluster, &yaml::write(&spec));
    bootstrap_data(cluster, &pool, TRUST, &Token::new("abcdef", "0123456789abcdef"), &[])
}

/// Runs a program of the test host, or reports that it is not installed.
fn check(program: &str, arguments: &[&str], file: &str, content: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(file);
    fs::write(&path, content).unwrap();
    let output = match Command::new(program).args(arguments).arg(&path).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("{program} is not installed: not checked");
            return;
        }
        Err(error) => panic!("{program}: {error}"),
    };
    let reported = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program}: {reported}");
}

#[test]
fn joining_node_gets_the_credential_of_its_agent() {
    let cluster = cluster(SMALL);
    let pool = pool(&cluster, PLAIN);
    let agent = |machine: &str| AgentFiles {
        machine: machine.to_owned(),
        files: vec![File::new("token", "/etc/keyplane/token", 0o600, format!("token of {machine}\n"))],
    };
    let token = Token::new("abcdef", "0123456789abcdef");
    let script = bootstrap_data(&cluster, &pool, TRUST, &token, &[agent("worker1"), agent("worker2")]);
    check("sh", &["-n"], "join.sh", &script);
    // The section about the agent, run on worker2 with stand-ins for the programs that it calls.
    let part = script.split("# The agent:").nth(1).unwrap().split("say \"$name has joined\"").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let stand_ins = format!(
        "name=worker2; log={}; say() {{ echo \"say $*\" >>$log; }}; systemctl() {{ echo \"systemctl $*\" >>$log; }}\n\
         put() {{ echo \"put $1 $2 $(cat)\" >>$log; }}\n#",
        log.display()
    );
    let part =
        part.replace("/etc/keyplane/token ]", "/nowhere/token ]").replace("/usr/local/bin/keyplane ]", "/bin/sh ]");
    assert!(Command::new("sh").args(["-euc", &format!("{stand_ins}{part}")]).status().unwrap().success());
    assert_eq!(
        fs::read_to_string(log).unwrap(),
        "put /etc/keyplane/token 0600 token of worker2\nsystemctl daemon-reload\nsystemctl enable keyplane-node\n\
         systemctl restart keyplane-node\n"
    );
}

#[test]
fn files_of_a_worker() {
    let cluster = cluster(MIRRORED);
    let pool = pool(&cluster, RICH);
    for file in worker_files(&cluster, &pool, &pool.machines[0], TRUST) {
        let text = format!("# {} {:04o}\n{}", file.path, file.mode, file.content);
        insta::assert_snapshot!(format!("worker_{}", file.key), text);
    }
}

#[test]
fn worker_files_contain_no_secret() {
    let cluster = cluster(SMALL);
    let pool = pool(&cluster, PLAIN);
    let config_map = objects::worker_config(&cluster, &pool, &pool.machines[0], TRUST, None, None);
    assert_eq!(config_map.metadata.name.as_deref(), Some("demo-worker1-config"));
    let data = config_map.data.unwrap();
    let index: Value = serde_json::from_str(&data["index.json"]).unwrap();
    let mut paths: Vec<_> = index.as_array().unwrap().iter().map(|entry| entry["path"].as_str().unwrap()).collect();
    paths.sort_unstable();
    let expected = [
        "/etc/containerd/config.toml",
        "/etc/crictl.yaml",
        "/etc/kubernetes/pki/ca.crt",
        "/etc/modules-load.d/k8s.conf",
        "/etc/sysctl.d/k8s.conf",
        "/usr/lib/systemd/system/kubelet.service",
        "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf",
        "/var/lib/kubelet/config.yaml",
        "/var/lib/kubelet/instance-config.yaml",
        "/var/lib/kubelet/kubeadm-flags.env",
    ];
    assert_eq!(paths, expected);
    assert!(!data.values().any(|text| text.contains("PRIVATE KEY") || text.contains("token")));
    assert_eq!(data["kubeadm-flags.env"], "KUBELET_KUBEADM_ARGS=\"--hostname-override=worker1 --node-ip=10.0.0.21\"\n");
}

#[test]
fn join_data_in_three_formats() {
    let cluster = cluster(MIRRORED);
    for (format, name) in [("Script", "join.sh"), ("CloudConfig", "join.yaml"), ("Ignition", "join.ign")] {
        let text = join_data(&cluster, RICH, format);
        // Base64 in one line is not readable in a diff; the other two formats show the same content.
        let shown = if format == "Ignition" { yaml::write(&decoded(&text)) } else { text };
        insta::assert_snapshot!(name, shown);
    }
}

/// An Ignition configuration with its files as text.
fn decoded(text: &str) -> Value {
    let mut value: Value = serde_json::from_str(text).unwrap();
    for file in value["storage"]["files"].as_array_mut().unwrap() {
        let source = file["contents"]["source"].as_str().unwrap().strip_prefix("data:;base64,").unwrap().to_owned();
        let bytes: k8s_openapi::ByteString = serde_json::from_value(json!(source)).unwrap();
        file["contents"]["source"] = json!(String::from_utf8(bytes.0).unwrap());
    }
    value
}

#[test]
fn join_script_runs_in_a_posix_shell() {
    for (cluster, spec) in [(cluster(MIRRORED), RICH), (cluster(SMALL), PLAIN)] {
        let script = join_data(&cluster, spec, "Script");
        check("sh", &["-n"], "join.sh", &script);
        check("shellcheck", &["--shell=sh"], "join.sh", &script);
        let steps = decoded(&join_data(&cluster, spec, "Ignition"));
        let steps =
            steps["storage"]["files"].as_array().unwrap().iter().find(|file| file["path"] == "/etc/keyplane/join.sh");
        check("sh", &["-n"], "steps.sh", steps.unwrap()["contents"]["source"].as_str().unwrap());
    }
}

#[test]
fn cloud_init_schema_accepts_the_cloud_config() {
    for (cluster, spec) in [(cluster(MIRRORED), RICH), (cluster(SMALL), PLAIN)] {
        let text = join_data(&cluster, spec, "CloudConfig");
        check("cloud-init", &["schema", "--config-file"], "user-data.yaml", &text);
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        for file in read["write_files"].as_array().unwrap() {
            // A number would be read as decimal.
            assert!(file["permissions"].as_str().is_some_and(|mode| mode.starts_with('0')), "{}", file["path"]);
        }
        // Some clouds accept at most 16 KiB.
        assert!(text.len() < 16 * 1024, "{} bytes", text.len());
    }
}

#[test]
fn ignition_validator_accepts_the_configuration() {
    // The lab builds it into its cache.
    let cache = std::env::var("KEYPLANE_CACHE")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cache/keyplane")));
    let built = fs::read_dir(format!("{}/ignition", cache.unwrap_or_default())).into_iter().flatten();
    let built = built.map(|folder| folder.unwrap().path().join("ignition-validate")).find(|path| path.is_file());
    let validator = built.map_or("ignition-validate".to_owned(), |path| path.display().to_string());
    for (cluster, spec) in [(cluster(MIRRORED), RICH), (cluster(SMALL), PLAIN)] {
        check(&validator, &[], "join.ign", &join_data(&cluster, spec, "Ignition"));
    }
}

#[test]
fn every_format_has_the_same_files() {
    let cluster = cluster(SMALL);
    let script = join_data(&cluster, PLAIN, "Script");
    let cloud: Value = serde_saphyr::from_str(&join_data(&cluster, PLAIN, "CloudConfig")).unwrap();
    let ignition = decoded(&join_data(&cluster, PLAIN, "Ignition"));
    let ignition: BTreeMap<_, _> = ignition["storage"]["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| {
            let path = file["path"].as_str().unwrap().replace("/etc/systemd/", "/usr/lib/systemd/");
            (path, file["contents"]["source"].clone())
        })
        .collect();
    let mut files = 0;
    for file in cloud["write_files"].as_array().unwrap() {
        let (path, content) = (file["path"].as_str().unwrap(), file["content"].as_str().unwrap());
        if path.ends_with("join.sh") {
            continue;
        }
        files += 1;
        assert_eq!(ignition[path], content, "{path}");
        let expected =
            format!("put '{path}' {} <<'KEYPLANE'\n{content}KEYPLANE\n", file["permissions"].as_str().unwrap());
        assert!(script.contains(&expected), "{expected}");
    }
    assert_eq!(files, 9);
}

#[test]
fn swap_stays_enabled_if_the_kubelet_allows_it() {
    let cluster = cluster(SMALL);
    assert!(join_data(&cluster, PLAIN, "Script").contains("swapoff -a"));
    let with_swap = format!("{PLAIN}kubelet: {{failSwapOn: false}}\n");
    assert!(!join_data(&cluster, &with_swap, "Script").contains("swapoff"));
}

#[test]
fn containerd_uses_the_cgroup_driver_of_the_kubelet() {
    let cluster = cluster(SMALL);
    for (settings, systemd) in [("{}", "true"), ("{cgroupDriver: cgroupfs}", "false")] {
        let pool = pool(&cluster, &format!("{PLAIN}kubelet: {settings}\n"));
        let files = worker_files(&cluster, &pool, &pool.machines[0], TRUST);
        let config = files.iter().find(|file| file.path == "/etc/containerd/config.toml").unwrap();
        assert!(config.content.contains(&format!("SystemdCgroup = {systemd}\n")), "{}", config.content);
    }
}

/// Runs the section of the script that identifies the node, with these addresses and this host name.
fn identify(spec: &str, host: &str, addresses: &[&str]) -> (bool, String) {
    let cluster = cluster(SMALL);
    let script = join_data(&cluster, spec, "Script");
    let (beginning, _) = script.split_once("# The machine's files.").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    // `ip -o addr show to RANGE`: an address is in a range if it has the same prefix.
    let lines: Vec<_> = addresses
        .iter()
        .map(|address| {
            let family = if address.contains(':') { "inet6" } else { "inet" };
            format!("case \"{address}\" in \"$r\"*) echo '2: eth0    {family} {address}/24 scope global eth0' ;; esac")
        })
        .collect();
    let lines = lines.join("\n");
    program("ip", &format!("r=${{5%/*}}; r=${{r%0}}; [ \"$4\" = to ] || r=\n{lines}"));
    program("uname", &format!("echo {host}"));
    program("id", "echo 0");
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("{beginning}\necho \"$name|$node_ip|$provider_id|$labels\""))
        .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
        .output()
        .unwrap();
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(text).unwrap().trim().to_owned())
}

#[test]
fn script_identifies_nodes_by_address_and_stops_if_undeclared() {
    let named = "
clusterRef: {name: demo}
machines:
  - {name: worker1, addresses: [10.0.0.21], failureDomain: rack-3, providerID: 'metal:///21'}
  - {name: worker2, addresses: [10.0.0.22, 10.0.0.99]}
";
    assert_eq!(
        identify(named, "whatever", &["10.0.0.21"]),
        (true, "worker1|10.0.0.21|metal:///21|topology.kubernetes.io/zone=rack-3".to_owned())
    );
    // The address identifies the other node, whatever the host name is.
    assert_eq!(identify(named, "worker1", &["10.0.0.22"]), (true, "worker2|10.0.0.22||".to_owned()));
    // With the addresses of both nodes, the host name decides.
    assert_eq!(identify(named, "worker2", &["10.0.0.21", "10.0.0.22"]).1, "worker2|10.0.0.22||");
    let (joined, reported) = identify(named, "worker1", &["10.0.0.77"]);
    assert!(
        !joined
            && reported.contains("worker1")
            && reported.contains("10.0.0.77")
            && reported.contains("NodePool workers"),
        "{reported}"
    );
}

#[test]
fn selector_requires_a_matching_name_and_address() {
    let by_selector = "
clusterRef: {name: demo}
selector: {namePattern: 'burst-*', addressCIDRs: [10.0.1.0/24, 'fd00:1::0/64']}
labels: {example.com/disk: ssd}
";
    assert_eq!(
        identify(by_selector, "burst-7", &["10.0.1.7"]),
        (true, "burst-7|10.0.1.7||example.com/disk=ssd".to_owned())
    );
    assert_eq!(identify(by_selector, "burst-7", &["fd00:1::7"]).1, "burst-7|fd00:1::7||example.com/disk=ssd");
    for (host, address) in [("worker7", "10.0.1.7"), ("burst-7", "10.0.2.7"), ("burst-7.corp", "10.0.1.7")] {
        assert!(!identify(by_selector, host, &[address]).0, "{host} {address}");
    }
}

#[test]
fn rejects_invalid_pools_and_names_the_field() {
    let cluster = cluster(SMALL);
    for (from, to, field) in [
        ("worker1", "Worker1", "spec.machines"),
        ("worker2", "worker1", "spec.machines"),
        ("worker1", "cp1", "spec.machines"),
        ("10.0.0.22", "10.0.0.21", "spec.machines"),
        ("10.0.0.21", "10.0.0.11", "spec.machines[worker1].addresses"),
        ("10.0.0.21", "10.244.0.21", "spec.machines[worker1].addresses"),
        ("10.0.0.21", "10.0.0.300", "spec.machines[worker1].addresses"),
        ("[10.0.0.21]", "[]", "spec.machines[worker1].addresses"),
        ("[10.0.0.21]", "[10.0.0.21], failureDomain: 'a b'", "spec.machines[worker1].failureDomain"),
        ("[10.0.0.21]", "[10.0.0.21], providerID: 'i 0'", "spec.machines[worker1].providerID"),
        (
            "clusterRef",
            "selector: {namePattern: 'W*', addressCIDRs: [10.0.1.0/24]}\nclusterRef",
            "spec.selector.namePattern",
        ),
        (
            "clusterRef",
            "selector: {namePattern: 'w*', addressCIDRs: [10.0.1.1/24]}\nclusterRef",
            "spec.selector.addressCIDRs",
        ),
        ("clusterRef", "labels: {kubernetes.io/os: linux}\nclusterRef", "spec.labels"),
        ("clusterRef", "labels: {a: 'b,c=d'}\nclusterRef", "spec.labels"),
        (
            "clusterRef",
            "selector: {namePattern: 'w*', addressCIDRs: [10.0.1.0/24]}\nlabels: {node-role.kubernetes.io/worker: ''}\nclusterRef",
            "spec.labels",
        ),
        ("clusterRef", "taints: [{key: 'a b', effect: NoSchedule}]\nclusterRef", "spec.taints"),
        ("clusterRef", "taints: [{key: a, effect: Never}]\nclusterRef", "spec.taints"),
        ("clusterRef", "sysctls: {ip_forward: '1'}\nclusterRef", "spec.sysctls"),
        ("clusterRef", "sysctls: {net.a: \"1\\n2\"}\nclusterRef", "spec.sysctls"),
        ("clusterRef", "kubelet: {staticPodPath: /x}\nclusterRef", "spec.kubelet"),
        ("clusterRef", "kubelet: {providerID: x}\nclusterRef", "spec.kubelet"),
        ("clusterRef", "bootstrap: {tokenTTL: 5m}\nclusterRef", "spec.bootstrap.tokenTTL"),
        (
            "clusterRef",
            "bootstrap: {downloads: {runc: {url: \"https://a'; reboot\"}}}\nclusterRef",
            "spec.bootstrap.downloads",
        ),
        ("clusterRef", "bootstrap: {hosts: [{address: x, names: [a]}]}\nclusterRef", "spec.bootstrap.hosts"),
    ] {
        let error = parse(&cluster, &PLAIN.replacen(from, to, 1)).unwrap_err();
        assert_eq!(error.field, field, "{to}: {error}");
    }
    // A ControlPlane pool is not a pool of workers.
    let control_plane =
        "{clusterRef: {name: demo}, role: ControlPlane, machines: [{name: cp1, addresses: [10.0.0.12]}]}";
    assert_eq!(parse(&cluster, control_plane), Ok(None));
}

#[test]
fn permissions_are_limited_to_these_tokens_and_nodes() {
    let cluster = cluster(MIRRORED);
    let pool = pool(&cluster, RICH);
    let text = |pools: &[Pool], leaving: &[String]| {
        let objects: Vec<_> =
            target_objects("default", pools, leaving).iter().map(|wanted| yaml::write_object(&wanted.object)).collect();
        objects.join("---\n")
    };
    insta::assert_snapshot!("rights", text(std::slice::from_ref(&pool), &["old".to_owned()]));
    let none = text(&[], &[]);
    assert!(!none.contains("- create") && !none.contains("- patch"), "{none}");
}

#[test]
fn labels_only_the_declared_nodes() {
    let cluster = cluster(SMALL);
    let labelled = format!("{PLAIN}labels: {{node-role.kubernetes.io/worker: '', example.com/disk: ssd}}\n");
    let labelled = labelled.replacen("[10.0.0.21]", "[10.0.0.21], failureDomain: rack-3", 1);
    let pools = [pool(&cluster, &labelled)];
    let node = |name: &str, labels: Value| {
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap()
    };
    let all = json!({
        "node-role.kubernetes.io/worker": "", "example.com/disk": "ssd", "topology.kubernetes.io/zone": "rack-3",
    });
    let patch =
        worker_label_patch(&node("worker1", json!({"example.com/disk": "ssd", "others": "x"})), &pools).unwrap().0;
    let lacking = json!({"node-role.kubernetes.io/worker": "", "topology.kubernetes.io/zone": "rack-3"});
    assert_eq!(patch, json!({"metadata": {"labels": lacking}}));
    assert_eq!(worker_label_patch(&node("worker1", all), &pools), None);
    assert_eq!(worker_label_patch(&node("stranger", json!({})), &pools), None);
    // Labels that a kubelet must not set are not in its flags.
    assert_eq!(pools[0].kubelet_labels(pools[0].machine("worker2")), "example.com/disk=ssd");
}

fn at(minutes: i64) -> Timestamp {
    noon() + SignedDuration::from_mins(minutes)
}

fn node(ready: Option<bool>, since: i64) -> NodeState {
    NodeState { ready, since: Some(at(since)), reason: "Because".to_owned(), message: "of that".to_owned() }
}

fn facts(nodes: &[(&str, NodeState)]) -> JoinFacts {
    let nodes = nodes.iter().map(|(name, node)| ((*name).to_owned(), node.clone())).collect();
    JoinFacts { nodes: Some(nodes), ..JoinFacts::default() }
}

fn request(node: &str, minutes: i64) -> Request {
    Request { node: node.to_owned(), created: at(minutes), reason: "NotApproved", message: "not yet".to_owned() }
}

fn shown(machines: &[MachineStatus]) -> Vec<(MachineState, &str, i64)> {
    let minutes = |machine: &MachineStatus| machine.last_transition_time.0.duration_since(noon()).as_mins();
    machines.iter().map(|machine| (machine.state, machine.reason.as_str(), minutes(machine))).collect()
}

#[test]
fn node_state_goes_from_declared_to_ready_and_to_missing() {
    use MachineState::{Bootstrapping, Declared, Joined, Missing, Ready};
    let cluster = cluster(SMALL);
    let pool = pool(&cluster, "{clusterRef: {name: demo}, machines: [{name: worker1, addresses: [10.0.0.21]}]}");
    let mut machines = vec![];
    let mut step = |facts: &JoinFacts, minute: i64| {
        machines = state::machines(&pool, facts, &machines, at(minute));
        (machines[0].state, machines[0].reason.clone(), shown(&machines)[0].2)
    };
    let is = |state, reason: &str, since| (state, reason.to_owned(), since);
    assert_eq!(step(&JoinFacts::default(), 0), is(Declared, "NotSeen", 0));
    assert_eq!(step(&facts(&[]), 1), is(Declared, "NotSeen", 0));
    let requested = JoinFacts { requests: [("worker1".to_owned(), request("worker1", 2))].into(), ..facts(&[]) };
    assert_eq!(step(&requested, 2), is(Bootstrapping, "NotApproved", 2));
    assert_eq!(step(&facts(&[("worker1", node(Some(false), 3))]), 3), is(Joined, "Because", 3));
    assert_eq!(step(&facts(&[("worker1", node(Some(true), 4))]), 4), is(Ready, "", 4));
    // Time alone changes no state.
    assert_eq!(step(&facts(&[("worker1", node(Some(true), 4))]), 40), is(Ready, "", 4));
    // A target cluster that does not answer proves nothing.
    assert_eq!(step(&JoinFacts::default(), 41), is(Ready, "", 4));
    let silent = facts(&[("worker1", node(None, 42))]);
    assert_eq!(step(&silent, 43), is(Joined, "Because", 43));
    assert_eq!(state::next_check(&pool, &silent, at(43)), Some(at(47)));
    assert!(!state::is_any_missing(&pool, silent.nodes.as_ref().unwrap(), at(43)));
    assert_eq!(step(&silent, 47), is(Missing, "Because", 47));
    assert!(state::is_any_missing(&pool, silent.nodes.as_ref().unwrap(), at(47)));
    assert_eq!(step(&facts(&[]), 50), is(Missing, "NodeGone", 47));
    // The CSR with which the node joined is old; only a new one counts.
    assert_eq!(step(&requested, 51), is(Missing, "NodeGone", 47));
    let again = JoinFacts { requests: [("worker1".to_owned(), request("worker1", 52))].into(), ..facts(&[]) };
    assert_eq!(step(&again, 52), is(Bootstrapping, "NotApproved", 52));
    assert_eq!(step(&facts(&[("worker1", node(Some(true), 53))]), 53), is(Ready, "", 53));
}

#[test]
fn nodes_of_a_selector_are_listed_once_joined() {
    let cluster = cluster(SMALL);
    let pool = pool(&cluster, "{clusterRef: {name: demo}, selector: {namePattern: 'w*', addressCIDRs: [10.0.1.0/24]}}");
    let joined = facts(&[("w1", node(Some(true), 0)), ("other", node(Some(true), 0))]);
    let machines = state::machines(&pool, &joined, &[], at(0));
    assert_eq!((machines.len(), machines[0].name.as_str()), (1, "w1"));
    assert_eq!(state::machines(&pool, &JoinFacts::default(), &machines, at(1)), machines, "the target is silent");
    assert!(state::machines(&pool, &facts(&[]), &machines, at(2)).is_empty(), "it may go");
    let many: Vec<_> = (0..300).map(|number| format!("w{number}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), node(Some(true), 0))).collect();
    assert_eq!(state::machines(&pool, &facts(&many), &[], at(0)).len(), 200);
    // Another node may join at any time.
    assert!(state::is_any_missing(&pool, joined.nodes.as_ref().unwrap(), at(0)));
}

#[test]
fn condition_names_a_stuck_node_and_the_reason() {
    let cluster = cluster(SMALL);
    let pool = pool(&cluster, PLAIN);
    let mut conditions = vec![];
    let mut condition = |facts: &JoinFacts| {
        let machines = state::machines(&pool, facts, &[], at(0));
        state::report(&mut conditions, &machines, facts, Some(1), at(0));
        let condition = condition_of(&conditions, "NodesReady").unwrap();
        let ready = format!("{}/{}", state::ready(&machines), machines.len());
        (condition.status.clone(), condition.reason.clone(), condition.message.clone(), ready)
    };
    let (status, reason, message, ready) = condition(&facts(&[("worker1", node(Some(false), 0))]));
    assert_eq!((status.as_str(), reason.as_str(), ready.as_str()), ("False", "NodesNotReady", "0/2"));
    assert_eq!(message, "worker1 is Joined: of that; and 1 more");
    assert_eq!(condition(&JoinFacts::default()).1, "TargetUnreachable");
    let all = facts(&[("worker1", node(Some(true), 0)), ("worker2", node(Some(true), 0))]);
    let (status, reason, _, ready) = condition(&all);
    assert_eq!((status.as_str(), reason.as_str(), ready.as_str()), ("True", "AllReady", "2/2"));
}

#[test]
fn message_of_a_csr_says_what_it_waits_for() {
    let csr = |username: &str, status: Value| {
        let request = include_str!("common/kubelet.csr");
        let object = json!({
            "metadata": {"name": "csr-x", "creationTimestamp": "2026-11-23T12:00:00Z"},
            "spec": {"signerName": "kubernetes.io/kube-apiserver-client-kubelet", "username": username,
                "request": k8s_openapi::ByteString(request.as_bytes().to_vec()), "usages": []},
            "status": status,
        });
        Request::of(&serde_json::from_value(object).unwrap())
    };
    let token = "system:bootstrap:abcdef";
    let condition = |type_: &str| json!({"conditions": [{"type": type_, "status": "True", "message": "no"}]});
    for (status, reason) in [
        (json!({}), "NotApproved"),
        (condition("Approved"), "NotSigned"),
        (condition("Denied"), "RequestDenied"),
        (condition("Failed"), "RequestFailed"),
        (json!({"certificate": "YQ=="}), "CertificateIssued"),
    ] {
        let request = csr(token, status).unwrap();
        assert_eq!((request.node.as_str(), request.reason), ("worker1", reason));
    }
    assert_eq!(csr("system:node:worker1", json!({})), None, "a rotation is not a first request");
}
