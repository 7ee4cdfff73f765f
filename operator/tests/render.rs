//! `keyplane render` as a user runs it.

// Clippy's exemption for tests does not cover helpers outside of `#[test]` functions.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CLUSTER: &str = "
apiVersion: keyplane.io/v1alpha1
kind: ClusterSpec
metadata: {name: demo, namespace: prod}
spec:
  kubernetesVersion: v1.37.2
  controlPlaneEndpoint: {host: api.demo.example}
  controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.11]}]}
  certificatePolicyRef: {name: fast}
";

const POLICY: &str = "
apiVersion: keyplane.io/v1alpha1
kind: CertificatePolicy
metadata: {name: fast, namespace: prod}
spec: {authority: {keyAlgorithm: ECDSA-P256}, leaf: {keyAlgorithm: ECDSA-P256}}
";

/// Runs `keyplane render` on these files. The validity of certificates starts on the day of `--now`.
fn render(folder: &Path, inputs: &[&str], output: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyplane"));
    command.args(["render", "--now", "2026-11-23T12:00:00Z", "-o"]).arg(folder.join(output));
    for (number, input) in inputs.iter().enumerate() {
        let file = folder.join(format!("{output}-{number}.yaml"));
        fs::write(&file, input).unwrap();
        command.arg("-f").arg(file);
    }
    command.output().unwrap()
}

fn error(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn files(root: &Path) -> BTreeMap<PathBuf, (u32, String)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700, "{}", folder.display());
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                found.insert(path.strip_prefix(root).unwrap().to_owned(), (mode, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

#[test]
fn only_root_can_read_files_with_private_keys() {
    let folder = tempfile::tempdir().unwrap();
    let output = render(folder.path(), &[CLUSTER, POLICY], "out");
    assert!(output.status.success(), "{}", error(&output));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("KEY"));
    let files = files(&folder.path().join("out"));
    assert!(files.contains_key(Path::new("cp1/etc/kubernetes/manifests/etcd.yaml")));
    let secret =
        |text: &str| text.contains("PRIVATE KEY") || text.contains("client-key-data") || text.contains("kind: Secret");
    let with_keys: Vec<_> = files.iter().filter(|(_, (_, text))| secret(text)).collect();
    assert!(with_keys.len() > 20, "{}", with_keys.len());
    for (path, (mode, _)) in with_keys {
        assert_eq!(*mode, 0o600, "{}", path.display());
    }
    assert_eq!(files[Path::new("cp1/etc/kubernetes/pki/ca.crt")].0, 0o644);
}

#[test]
fn add_on_objects_are_in_kubectl_apply_order() {
    let folder = tempfile::tempdir().unwrap();
    let flannel =
        "  network: {podCIDRs: [10.244.0.0/16]}\n  addons: {coreDNS: {enabled: false}, flannel: {enabled: true}}\n";
    let output = render(folder.path(), &[&format!("{CLUSTER}{flannel}"), POLICY], "out");
    assert!(output.status.success(), "{}", error(&output));
    let target = folder.path().join("out/objects/target/demo");
    let text = fs::read_to_string(target.join("addon-flannel.yaml")).unwrap();
    let kinds: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("kind: ")).collect();
    assert_eq!(kinds, ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet"]);
    assert!(target.join("addon-kube-proxy.yaml").exists() && !target.join("addon-coredns.yaml").exists());
}

#[test]
fn rendering_with_earlier_secrets_is_reproducible() {
    let folder = tempfile::tempdir().unwrap();
    assert!(render(folder.path(), &[CLUSTER, POLICY], "first").status.success());
    let first = files(&folder.path().join("first"));
    let secrets: Vec<_> = first
        .iter()
        .filter(|(path, _)| path.starts_with("objects/management") && path.to_string_lossy().contains("secret-"))
        .map(|(_, (_, text))| text.as_str())
        .collect();
    assert_eq!(secrets.len(), 6);
    let inputs: Vec<_> = [CLUSTER, POLICY].into_iter().chain(secrets).collect();
    let again = render(folder.path(), &inputs, "again");
    assert!(again.status.success(), "{}", error(&again));
    assert!(files(&folder.path().join("again")) == first, "a key or certificate was generated again");
    // Without the Secrets, it is another cluster.
    assert!(render(folder.path(), &[CLUSTER, POLICY], "other").status.success());
    assert!(files(&folder.path().join("other")) != first);
}

#[test]
fn reports_errors_and_writes_nothing() {
    for (inputs, words) in [
        (vec![CLUSTER.to_owned()], vec!["CertificatePolicy fast", "add it with -f"]),
        (vec![POLICY.to_owned()], vec!["no ClusterSpec"]),
        (vec![CLUSTER.replace("v1.37.2", "v1.20.0"), POLICY.to_owned()], vec!["spec.kubernetesVersion", "v1.37.2"]),
        (vec![CLUSTER.replace("10.0.0.11", "10.0.0.256"), POLICY.to_owned()], vec!["addresses", "10.0.0.256"]),
        (vec![CLUSTER.replace("name: demo", "name: Demo"), POLICY.to_owned()], vec!["metadata.name", "DNS label"]),
        (vec![CLUSTER.replace("name: cp1", "name: objects"), POLICY.to_owned()], vec!["objects", "used twice"]),
        (vec![CLUSTER.replace("kind: ClusterSpec", "kind: Cluster"), POLICY.to_owned()], vec!["document 1", "Cluster"]),
        (vec!["{".to_owned()], vec!["document 1"]),
        (vec![CLUSTER.to_owned(), POLICY.replace("fast", "other")], vec!["CertificatePolicy fast"]),
        (
            vec![
                CLUSTER.to_owned(),
                POLICY.to_owned(),
                "{apiVersion: v1, kind: Secret, metadata: {name: demo-ca, namespace: prod}}".to_owned(),
            ],
            vec!["demo-ca", "does not belong to Keyplane"],
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let inputs: Vec<_> = inputs.iter().map(String::as_str).collect();
        let reported = error(&render(folder.path(), &inputs, "out"));
        for word in words {
            assert!(reported.contains(word), "{word:?} not in {reported}");
        }
        assert!(!folder.path().join("out").exists(), "{reported}");
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(render(folder.path(), &[CLUSTER, POLICY], "out").status.success());
    assert!(error(&render(folder.path(), &[CLUSTER, POLICY], "out")).contains("not empty"));
}

#[test]
fn renders_the_worker_example_without_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let example = include_str!("../../examples/worker-pool.yaml");
    let output = render(folder.path(), &[example], "out");
    assert!(output.status.success(), "{}", error(&output));
    let reported = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        reported.contains("no join data for NodePool racks") && reported.contains("no join data for NodePool burst"),
        "{reported}"
    );
    let files = files(&folder.path().join("out"));
    let flags = &files[Path::new("worker2/var/lib/kubelet/kubeadm-flags.env")].1;
    assert!(flags.contains("--hostname-override=worker2 --node-ip=10.90.0.22"), "{flags}");
    assert!(flags.contains("topology.kubernetes.io/zone=rack-2") && !flags.contains("node-role"), "{flags}");
    let of_worker: Vec<_> = files.iter().filter(|(path, _)| path.starts_with("worker1")).collect();
    assert!(of_worker.len() > 10 && !of_worker.iter().any(|(_, (_, text))| text.contains("PRIVATE KEY")));
    assert_eq!(
        files[Path::new("worker1/etc/kubernetes/pki/ca.crt")],
        files[Path::new("cp1/etc/kubernetes/pki/ca.crt")]
    );
    // Control-plane nodes pull their images from the same mirrors.
    for node in ["cp1", "worker1"] {
        let hosts = &files[&Path::new(node).join("etc/containerd/certs.d/registry.k8s.io/hosts.toml")].1;
        assert!(hosts.starts_with("server = \"https://mirror.site.example\""), "{hosts}");
    }
    let rights = &files[Path::new("objects/target/site/role-kube-system-keyplane-join.yaml")].1;
    assert_eq!(rights.matches("- bootstrap-token-").count(), 4, "{rights}");
    let taken = example.replace("name: worker2", "name: objects");
    assert!(error(&render(folder.path(), &[&taken], "taken")).contains("objects"));
    let wrong = example.replace("[10.90.0.22]", "[10.90.0.11]");
    let reported = error(&render(folder.path(), &[&wrong], "wrong"));
    assert!(reported.contains("NodePool racks") && reported.contains("control-plane node cp1"), "{reported}");
}
