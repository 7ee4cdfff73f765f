//! `keyplane node`, as a process: after any interruption, each file is the old one or the new one.

// Clippy's exemption for tests does not cover helpers outside of `#[test]` functions.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::{HARD_WAY, SMALL, WORKERS, cluster, cluster_with_pool, noon, settle, text};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use keyplane_agent::index::read;
use keyplane_core::certificate_authorities::CaSet;
use keyplane_core::checksum::checksum;
use keyplane_core::join::Pool;
use keyplane_core::join::objects::worker_config;
use keyplane_core::kubeconfig::embedded_credential;
use keyplane_core::observed::Observed;
use keyplane_core::pki::{CertificateTemplate, ExtendedUsage, Subject, certificates_in};
use keyplane_core::status;
use keyplane_crds::{KeyAlgorithm, keys};
use keyplane_issuance::x509::{generate, issue};
use kube::ResourceExt;
use serde_json::json;

/// The root of a node in a directory, owned by the user who runs the test.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let metadata = fs::metadata(folder.path()).unwrap();
        fs::create_dir_all(folder.path().join("root/etc")).unwrap();
        fs::write(folder.path().join("root/etc/passwd"), format!("root:x:{}:", metadata.uid())).unwrap();
        fs::write(folder.path().join("root/etc/group"), format!("root:x:{}:", metadata.gid())).unwrap();
        Self { folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// The agent with both objects.
    fn agent(&self, objects: &[(&str, String)]) -> Command {
        let mut agent = Command::new(env!("CARGO_BIN_EXE_keyplane"));
        agent.args(["node", "--no-restarts", "--root"]).arg(self.root());
        for (name, text) in objects {
            let path = self.folder.path().join(name);
            fs::write(&path, text).unwrap();
            agent.arg("--from").arg(path);
        }
        agent.stdout(Stdio::null()).stderr(Stdio::piped());
        agent
    }
}

const FILES: usize = 12;

/// The paths of the files in the Secret or in the ConfigMap.
fn paths(kind: &str) -> Vec<String> {
    let directory = if kind == "Secret" { "/etc/kubernetes/pki" } else { "/etc/kubernetes/manifests" };
    (0..FILES).map(|number| format!("{directory}/{number}.yaml")).collect()
}

/// A content that is too long for a single write.
fn content(round: usize, path: &str) -> String {
    format!("{round} {path}\n").repeat(4000)
}

/// The object of that round, as text.
fn object(kind: &str, round: usize) -> String {
    let entry = |path: &String| {
        let key = path.replace('/', "-");
        json!({"key": key, "path": path, "mode": "0600", "owner": "root:root"})
    };
    let index: Vec<_> = paths(kind).iter().map(entry).collect();
    let mut data = BTreeMap::from([("index.json".to_owned(), json!(index).to_string())]);
    data.extend(paths(kind).iter().map(|path| (path.replace('/', "-"), content(round, path))));
    let sum = checksum(data.iter().map(|(key, text)| (key.as_str(), text.as_bytes())));
    let metadata = json!({"name": "x", "annotations": {keys::CONTENT_CHECKSUM_ANNOTATION: sum}});
    let data: BTreeMap<_, _> = data
        .into_iter()
        .map(|(key, text)| {
            let bytes = k8s_openapi::ByteString(text.clone().into_bytes());
            (key, if kind == "Secret" { json!(bytes) } else { json!(text) })
        })
        .collect();
    json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": data}).to_string()
}

/// The round of each file, or none if the file does not exist yet.
fn rounds(root: &Path) -> Vec<Option<usize>> {
    let all = [paths("Secret"), paths("ConfigMap")].concat();
    all.iter()
        .map(|path| {
            let place = root.join(path.trim_start_matches('/'));
            let text = fs::read_to_string(&place).ok()?;
            let round: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert!(text == content(round, path), "{path} is half written: {} bytes", text.len());
            assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o7777, 0o600, "{path}");
            Some(round)
        })
        .collect()
}

#[test]
fn killed_agent_leaves_each_file_old_or_new() {
    const ROUNDS: usize = 24;
    let site = Site::new();
    let (mut mixed, mut killed) = (0, 0);
    for round in 1..=ROUNDS {
        let objects = [("secret.json", object("Secret", round)), ("config.json", object("ConfigMap", round))];
        let before = rounds(&site.root());
        let mut agent = site.agent(&objects).spawn().unwrap();
        // From before the start until after the end, in small steps.
        sleep(Duration::from_millis(u64::try_from(round).unwrap() * 6));
        agent.kill().unwrap();
        killed += usize::from(!agent.wait().unwrap().success());
        let after = rounds(&site.root());
        for (before, after) in before.iter().zip(&after) {
            assert!(after == before || *after == Some(round), "{before:?} became {after:?} in round {round}");
        }
        mixed += usize::from(after.contains(&Some(round)) && after.iter().any(|found| *found != Some(round)));
        // Files are written in the order in which they are needed: static pods come last.
        let new = |found: &Option<usize>| *found == Some(round);
        let (keys, manifests) = after.split_at(FILES);
        assert!(!manifests.iter().any(new) || keys.iter().all(new), "a static pod came before its keys: {after:?}");
        if round % 4 == 0 {
            let done = site.agent(&objects).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            assert!(rounds(&site.root()).iter().all(new));
            for directory in ["pki", "manifests"] {
                let left = fs::read_dir(site.root().join("etc/kubernetes").join(directory)).unwrap().count();
                assert_eq!(left, FILES, "something was left in {directory}");
            }
        }
    }
    assert!(killed > 5, "only {killed} agents were killed before their end, {mixed} of them between two files");
}

#[test]
fn refused_objects_change_nothing_and_correct_files_stay() {
    let site = Site::new();
    let objects = [("secret.json", object("Secret", 1)), ("config.json", object("ConfigMap", 1))];
    assert!(site.agent(&objects).status().unwrap().success());
    let place = site.root().join("etc/kubernetes/pki/0.yaml");
    let inode = fs::metadata(&place).unwrap().ino();
    assert!(site.agent(&objects).status().unwrap().success());
    assert_eq!(fs::metadata(&place).unwrap().ino(), inode, "it was written again");
    // The agent restores a mode that somebody has changed.
    fs::set_permissions(&place, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(site.agent(&objects).status().unwrap().success());
    assert_eq!(fs::metadata(&place).unwrap().mode() & 0o7777, 0o600);

    let forged = object("ConfigMap", 2).replace("/etc/kubernetes/manifests", "/etc/kubernetes/../x");
    let done = site.agent(&[("config.json", forged)]).output().unwrap();
    let reported = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success() && reported.contains("by hand"), "{reported}");
    assert!(rounds(&site.root()).iter().all(|round| *round == Some(1)));
    // A missing object removes no file.
    assert!(site.agent(&[("config.json", object("ConfigMap", 2))]).status().unwrap().success());
    let after = rounds(&site.root());
    assert!(
        after[..FILES].iter().all(|round| *round == Some(1)) && after[FILES..].iter().all(|round| *round == Some(2))
    );
}

/// Whether an agent accepts a Secret and a ConfigMap of Keyplane.
fn is_taken(name: &str, secret: Option<&Secret>, config_map: Option<&ConfigMap>) -> usize {
    let mut files = 0;
    if let Some(secret) = secret {
        let data = secret.data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone())).collect();
        files += read(name, secret.annotations(), &data).unwrap_or_else(|error| panic!("{error}")).files.len();
    }
    if let Some(config_map) = config_map {
        let data =
            config_map.data.iter().flatten().map(|(key, text)| (key.clone(), text.clone().into_bytes())).collect();
        files += read(name, config_map.annotations(), &data).unwrap_or_else(|error| panic!("{error}")).files.len();
    }
    files
}

/// A server with files for the options of the API server, and a mirror.
const OPTIONS: &str = "
kubernetesVersion: v1.37.2
controlPlaneEndpoint: {host: api.demo.example}
controlPlane: {nodes: [{name: cp1, addresses: [10.0.0.11]}]}
audit: {policy: {apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}}
podSecurity: {enforce: baseline}
registryMirrors: [{registry: 'registry.example:5000', endpoints: ['https://mirror.example']}]
";

#[test]
fn agent_accepts_all_objects_of_keyplane() {
    for cluster in [cluster(OPTIONS), cluster_with_pool(HARD_WAY, WORKERS)] {
        let mut observed = Observed::default();
        assert!(settle(&cluster, &mut observed).blockers.is_empty());
        for node in cluster.all_nodes() {
            let secret = observed.secrets.get(&format!("demo-{}-pki", node.name));
            let config_map = observed.config_maps.get(&format!("demo-{}-config", node.name));
            assert!(is_taken(&node.name, secret, config_map) >= 3, "{}", node.name);
        }
        let pool = serde_saphyr::from_str(WORKERS).unwrap();
        let pool = Pool::parse("workers", &pool, &cluster).unwrap().unwrap();
        let worker = worker_config(&cluster, &pool, &pool.machines[0], "CA", None, None);
        assert!(is_taken("worker", None, Some(&worker)) > 5);
    }
}

/// Both objects of cp1, as in `kubectl get -o yaml`.
fn of_cp1(observed: &Observed) -> [(&'static str, String); 2] {
    let with_kind = |kind: &str, object: serde_json::Value| {
        let mut object = object;
        object["kind"] = json!(kind);
        object["apiVersion"] = json!("v1");
        object.to_string()
    };
    let secret = serde_json::to_value(&observed.secrets["demo-cp1-pki"]).unwrap();
    let config_map = serde_json::to_value(&observed.config_maps["demo-cp1-config"]).unwrap();
    [("secret", with_kind("Secret", secret)), ("config", with_kind("ConfigMap", config_map))]
}

#[test]
fn agent_applies_a_revocation_and_rejects_an_old_backup() {
    let cluster = cluster(SMALL);
    let mut observed = Observed::default();
    observed.target.nodes = Some([("cp1".to_owned(), true)].into());
    settle(&cluster, &mut observed);
    let before = of_cp1(&observed);
    let site = Site::new();
    assert!(site.agent(&before).status().unwrap().success());
    // The kubelet has a certificate from the cluster.
    let set = CaSet::from_secret("demo-ca", &observed.secrets["demo-ca"]).unwrap();
    let key = generate(KeyAlgorithm::EcdsaP256).unwrap();
    let order = CertificateTemplate {
        subject: Subject { common_name: "system:node:cp1".to_owned(), organizations: vec!["system:nodes".to_owned()] },
        alternative_names: vec![],
        extended_usages: vec![ExtendedUsage::ClientAuth],
        not_before: set.signing().facts().not_before,
        not_after: set.signing().facts().not_after,
    };
    let own = format!("{}{}", issue(&order, &key, set.signing()).unwrap(), key.pem());
    let pki = site.root().join("var/lib/kubelet/pki");
    let link = pki.join("kubelet-client-current.pem");
    fs::create_dir_all(&pki).unwrap();
    fs::write(pki.join("kubelet-client-2026-11-23-12-00-00.pem"), &own).unwrap();
    std::os::unix::fs::symlink("kubelet-client-2026-11-23-12-00-00.pem", &link).unwrap();
    assert!(site.agent(&before).status().unwrap().success());
    assert_eq!(fs::read_to_string(&link).unwrap(), own, "it is good, and stays");

    let requested = [("keyplane.io/revoke-certificate-authorities".to_owned(), "leak".to_owned())];
    let mut annotations = BTreeMap::from(requested);
    let requesting = cluster.clone().with_annotations(&annotations);
    let reported = status::report(&requesting, &observed, &[], None, noon()).revocation.unwrap();
    annotations.insert("keyplane.io/confirm-revocation".to_owned(), reported.confirm);
    settle(&cluster.with_annotations(&annotations), &mut observed);
    let wanted = of_cp1(&observed);
    let (embedded, embedded_key) = embedded_credential(&text(&observed, "demo-cp1-pki", "kubelet.conf")).unwrap();
    for _ in 0..2 {
        assert!(site.agent(&wanted).status().unwrap().success());
        // The link is valid on the node, whose root is elsewhere.
        let target = fs::read_link(&link).unwrap();
        let pair = fs::read_to_string(pki.join(target.file_name().unwrap())).unwrap();
        assert_eq!(pair, format!("{}\n{embedded_key}", embedded.trim_end()));
    }
    let ca = fs::read_to_string(site.root().join("etc/kubernetes/pki/ca.crt")).unwrap();
    let (ca, embedded) = (certificates_in("", &ca).unwrap(), certificates_in("", &embedded).unwrap());
    assert!(ca.len() == 1 && embedded[0].is_signed_by(&ca[0]));
    let kubeconfig = fs::read_to_string(site.root().join("etc/kubernetes/kubelet.conf")).unwrap();
    assert!(kubeconfig.contains("kubelet-client-current.pem"), "{kubeconfig}");

    // Somebody restores the former files.
    let output = site.agent(&before).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && words.contains("has another CA"), "{words}");
    let held = fs::read_to_string(site.root().join("etc/kubernetes/pki/ca.crt")).unwrap();
    assert_eq!(certificates_in("", &held).unwrap(), ca);
}
