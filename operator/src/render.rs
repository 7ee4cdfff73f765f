//! `keyplane render`: the controller's plan, carried out in memory and written as files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{CertificatePolicy, ClusterSpec, NodePool};
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::addons::Addon;
use crate::args::RenderArguments;
use crate::cluster::{Cluster, FieldError, Policy};
use crate::join::Pool;
use crate::join::objects::worker_config;
use crate::manifests::systemd::pod_ranges;
use crate::plan::issuance::{IssuanceError, fulfil};
use crate::plan::objects::{INDEX_KEY, IndexEntry};
use crate::plan::{Authorities, Blocker, Kind, Observed, Step, Waiting, as_observed, plan};
use crate::signing::request::SIGNING_REQUEST_LABEL;
use crate::{join, target, yaml};

/// Where kubectl puts an object whose YAML has no namespace.
const DEFAULT_NAMESPACE: &str = "default";

/// Where the objects of both clusters' APIs are written, below the output directory.
const OBJECTS_DIRECTORY: &str = "objects";

/// Why nothing, or not everything, was rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A document is no object that is known here.
    #[error("{file}, document {number}: {problem}")]
    Document {
        /// The file.
        file: String,
        /// Which document, from 1.
        number: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no ClusterSpec.
    #[error("no ClusterSpec in the files: give one with -f")]
    NoCluster,
    /// A ClusterSpec refers to a policy that is not in the files.
    #[error(
        "ClusterSpec {cluster} refers to the CertificatePolicy {policy}, which is not in the files: give it with -f"
    )]
    NoPolicy {
        /// The ClusterSpec.
        cluster: String,
        /// The policy's name.
        policy: String,
    },
    /// A field makes no sense.
    #[error("{kind} {name}: {source}")]
    Field {
        /// The object's kind.
        kind: &'static str,
        /// The object.
        name: String,
        /// The field.
        source: FieldError,
    },
    /// The directory has something in it.
    #[error("{path} is not empty: give an empty directory, so that no file of another rendering is taken for this one's", path = .0.display())]
    NotEmpty(PathBuf),
    /// Two ClusterSpecs have a node of that name, or it is called like the directory of the objects.
    #[error(
        "a node named {0} would be written into a directory that is taken: render it into another one, or rename it"
    )]
    NodeDirectoryTaken(String),
    /// Something is in the way.
    #[error("ClusterSpec {cluster}: {}", .blocker.message)]
    Blocked {
        /// The ClusterSpec.
        cluster: String,
        /// What.
        blocker: Blocker,
    },
    /// A key or certificate could not be made.
    #[error(transparent)]
    Issuance(#[from] IssuanceError),
}

/// What was read.
#[derive(Default)]
struct Inputs {
    clusters: Vec<ClusterSpec>,
    policies: Vec<CertificatePolicy>,
    pools: Vec<NodePool>,
    secrets: Vec<Secret>,
    config_maps: Vec<ConfigMap>,
    nodes: Vec<Node>,
}

/// Reads, plans, issues and writes; gives back a line per cluster that says what was done.
///
/// # Errors
/// The first thing that is wrong. Nothing is written before every input makes sense.
pub fn render(arguments: &RenderArguments, now: Timestamp) -> Result<Vec<String>, RenderError> {
    let inputs = read(&arguments.filenames)?;
    if inputs.clusters.is_empty() {
        return Err(RenderError::NoCluster);
    }
    let mut clusters = vec![];
    // The directory of the objects stands beside those of the nodes.
    let mut nodes = BTreeSet::from([OBJECTS_DIRECTORY.to_owned()]);
    for spec in &inputs.clusters {
        let cluster = parse(spec, &inputs)?;
        if let Some(twice) = cluster.nodes.iter().find(|node| !nodes.insert(node.name.clone())) {
            return Err(RenderError::NodeDirectoryTaken(twice.name.clone()));
        }
        let workers = workers(&cluster, &inputs.pools)?;
        let mut machines = workers.iter().flat_map(|pool| &pool.machines);
        if let Some(twice) = machines.find(|machine| !nodes.insert(machine.name.clone())) {
            return Err(RenderError::NodeDirectoryTaken(twice.name.clone()));
        }
        let (mut observed, waiting) = complete(&cluster, &inputs, now)?;
        add_workers(&cluster, &workers, &mut observed);
        clusters.push((as_observed(&cluster, &observed), workers, observed, waiting));
    }
    let output = &arguments.output;
    make_directory(output)?;
    if fs::read_dir(output).map_err(|source| file_error(output, source))?.next().is_some() {
        return Err(RenderError::NotEmpty(output.clone()));
    }
    let mut done = vec![];
    for (cluster, workers, observed, waiting) in &clusters {
        let files = write_nodes(output, observed)?;
        write_objects(output, cluster, workers, observed)?;
        let machines = cluster.nodes.len() + workers.iter().map(|pool| pool.machines.len()).sum::<usize>();
        done.push(format!("{}: {files} files for {machines} nodes in {}", cluster.name, output.display()));
        if !waiting.is_empty() {
            done.push(format!(
                "{}: {} certificates wait for their signer, and machines that lack one have no secret files yet: put what \
                 is signed under tls.crt into the ConfigMaps configmap-*-csr.yaml in {OBJECTS_DIRECTORY}/management, and \
                 render again with these objects (docs/external-signing.md)",
                cluster.name,
                waiting.len()
            ));
        }
        done.extend(waiting.iter().filter_map(|waiting| {
            let refusal = waiting.refusal.as_ref()?;
            Some(format!("{}: the answer in ConfigMap {} is not used: {refusal}", cluster.name, waiting.request))
        }));
        done.extend(workers.iter().filter(|pool| pool.joins_by_token(cluster)).map(|pool| {
            format!(
                "{}: no join data for NodePool {}: its token is made in the running cluster; `kubeadm join` works, too",
                cluster.name, pool.name
            )
        }));
        if cluster.has_pod_routes() && observed.target.pod_ranges.is_none() {
            done.push(format!(
                "{}: the Pods' bridges and routes are left out, since only the Nodes have their ranges: when they are \
                 there, give them with `kubectl get nodes -o yaml | keyplane render -f - ...`",
                cluster.name
            ));
        }
    }
    Ok(done)
}

fn parse(spec: &ClusterSpec, inputs: &Inputs) -> Result<Cluster, RenderError> {
    let name = spec.name_any();
    let namespace = namespace_of(spec);
    let policy = match &spec.spec.certificate_policy_ref {
        None => Policy::default(),
        Some(reference) => {
            let written = inputs
                .policies
                .iter()
                .find(|policy| policy.name_any() == reference.name && namespace_of(*policy) == namespace)
                .ok_or_else(|| RenderError::NoPolicy { cluster: name.clone(), policy: reference.name.clone() })?;
            Policy::parse(&written.spec).map_err(|source| RenderError::Field {
                kind: "CertificatePolicy",
                name: reference.name.clone(),
                source,
            })?
        }
    };
    let cluster = Cluster::parse(&name, &namespace, &spec.spec, policy).map_err(|source| RenderError::Field {
        kind: "ClusterSpec",
        name,
        source,
    })?;
    let ours = |pool: &&NodePool| namespace_of(*pool) == namespace && pool.spec.cluster_ref.name == cluster.name;
    let pools: BTreeMap<_, _> = inputs.pools.iter().filter(ours).map(|pool| (pool.name_any(), &pool.spec)).collect();
    Ok(cluster.with_annotations(spec.annotations()).with_pools(pools))
}

/// The pools of workers of a cluster.
fn workers(cluster: &Cluster, pools: &[NodePool]) -> Result<Vec<Pool>, RenderError> {
    let theirs = pools
        .iter()
        .filter(|pool| namespace_of(*pool) == cluster.namespace && pool.spec.cluster_ref.name == cluster.name);
    let parsed = theirs.map(|pool| {
        let name = pool.name_any();
        Pool::parse(&name, &pool.spec, cluster).map_err(|source| RenderError::Field { kind: "NodePool", name, source })
    });
    parsed.filter_map(Result::transpose).collect()
}

/// Adds the ConfigMaps of the machines that are declared by name.
fn add_workers(cluster: &Cluster, workers: &[Pool], observed: &mut Observed) {
    let Some(authorities) = Authorities::load(cluster, observed) else { return };
    let trust = &authorities.trust();
    for pool in workers {
        for machine in &pool.machines {
            let ranges = observed.target.pod_ranges.as_ref();
            let config_map = worker_config(cluster, pool, machine, trust, ranges, None);
            observed.config_maps.insert(config_map.name_any(), config_map);
        }
    }
}

/// The namespace into which kubectl would apply the object.
fn namespace_of(object: &impl ResourceExt) -> String {
    object.namespace().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())
}

/// Plans and issues until nothing is left to do.
fn complete(cluster: &Cluster, inputs: &Inputs, now: Timestamp) -> Result<(Observed, Vec<Waiting>), RenderError> {
    let mut observed = Observed::default();
    if !inputs.nodes.is_empty() {
        observed.target.pod_ranges =
            Some(inputs.nodes.iter().map(|node| (node.name_any(), pod_ranges(node))).collect());
    }
    for secret in &inputs.secrets {
        if namespace_of(secret) == cluster.namespace {
            observed.secrets.insert(secret.name_any(), secret.clone());
        }
    }
    // Of ConfigMaps only what signers have answered: all others are made anew.
    let answered = inputs.config_maps.iter().filter(|found| found.labels().contains_key(SIGNING_REQUEST_LABEL));
    for config_map in answered.filter(|found| namespace_of(*found) == cluster.namespace) {
        observed.config_maps.insert(config_map.name_any(), config_map.clone());
    }
    loop {
        let cluster = &as_observed(cluster, &observed);
        let plan = plan(cluster, &observed, now);
        if let Some(blocker) = plan.blockers.into_iter().find(|blocker| !blocker.waits_for_a_signer()) {
            return Err(RenderError::Blocked { cluster: cluster.name.clone(), blocker });
        }
        if plan.steps.is_empty() {
            return Ok((observed, plan.waiting));
        }
        for step in plan.steps {
            match step {
                Step::Secret(draft) => {
                    let secret = fulfil(*draft, cluster, &observed)?;
                    observed.secrets.insert(secret.name_any(), secret);
                }
                Step::ConfigMap(config_map) => {
                    observed.config_maps.insert(config_map.name_any(), *config_map);
                }
                Step::Removal(removal) => match removal.kind {
                    Kind::Secret => _ = observed.secrets.remove(&removal.name),
                    Kind::ConfigMap => _ = observed.config_maps.remove(&removal.name),
                },
            }
        }
    }
}

fn write_nodes(output: &Path, observed: &Observed) -> Result<usize, RenderError> {
    let node_of = |labels: &BTreeMap<String, String>| labels.get(keyplane_crds::NODE_LABEL).cloned();
    let secrets = observed.secrets.values().map(|secret| {
        let data = secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect();
        (node_of(secret.labels()), data)
    });
    let config_maps = observed.config_maps.values().map(|config_map| {
        let data = config_map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
        (node_of(config_map.labels()), data.collect::<BTreeMap<_, _>>())
    });
    let mut written = 0;
    for (node, data) in secrets.chain(config_maps) {
        let (Some(node), Some(index)) = (node, data.get(INDEX_KEY)) else { continue };
        let files: Vec<IndexEntry> = serde_json::from_slice(index).unwrap_or_default();
        for file in files {
            let relative = file.path.trim_start_matches('/');
            let mode = u32::from_str_radix(&file.mode, 8).unwrap_or(0o600);
            write_file(&output.join(&node).join(relative), data.get(&file.key).map_or(&[][..], Vec::as_slice), mode)?;
            written += 1;
        }
    }
    Ok(written)
}

fn write_objects(output: &Path, cluster: &Cluster, workers: &[Pool], observed: &Observed) -> Result<(), RenderError> {
    let management = output.join(OBJECTS_DIRECTORY).join("management");
    for (name, secret) in &observed.secrets {
        write_file(&management.join(format!("secret-{name}.yaml")), yaml::write_object(secret).as_bytes(), 0o600)?;
    }
    for (name, config_map) in &observed.config_maps {
        let path = management.join(format!("configmap-{name}.yaml"));
        write_file(&path, yaml::write_object(config_map).as_bytes(), 0o644)?;
    }
    let Some(authorities) = Authorities::load(cluster, observed) else { return Ok(()) };
    let trust = &authorities.trust();
    let target = output.join(OBJECTS_DIRECTORY).join("target").join(&cluster.name);
    let of_pools = join::target_objects(&cluster.namespace, workers, &[]);
    for wanted in target::objects(cluster, trust, cluster.version, false).into_iter().chain(of_pools) {
        let metadata = &wanted.object.metadata;
        let parts = [Some(wanted.resource.kind.to_lowercase()), metadata.namespace.clone(), metadata.name.clone()];
        let name = parts.into_iter().flatten().collect::<Vec<_>>().join("-").replace(':', "-");
        let path = target.join(format!("{name}.yaml"));
        write_file(&path, yaml::write_object(&wanted.object).as_bytes(), 0o644)?;
    }
    for addon in Addon::ALL.into_iter().filter(|addon| addon.is_enabled(cluster)) {
        // One file, as kubectl applies files by name and the objects of one in their order.
        let objects = addon.objects(cluster, cluster.version);
        let documents: Vec<_> = objects.iter().map(|wanted| yaml::write_object(&wanted.object)).collect();
        let path = target.join(format!("addon-{}.yaml", addon.name().to_lowercase()));
        write_file(&path, documents.join("---\n").as_bytes(), 0o644)?;
    }
    Ok(())
}

/// The clusters in these files, for commands that need no keys.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn read_clusters(filenames: &[PathBuf]) -> Result<Vec<Cluster>, RenderError> {
    let inputs = read(filenames)?;
    if inputs.clusters.is_empty() {
        return Err(RenderError::NoCluster);
    }
    let parse =
        |spec: &ClusterSpec| {
            let name = spec.name_any();
            Cluster::parse(&name, &namespace_of(spec), &spec.spec, Policy::default())
                .map_err(|source| RenderError::Field { kind: "ClusterSpec", name, source })
        };
    inputs.clusters.iter().map(parse).collect()
}

/// Directories are for root alone: there are keys in them.
fn make_directory(path: &Path) -> Result<(), RenderError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| file_error(path, source))
}

/// Writes a file that must not exist, with its mode from the first byte on.
fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<(), RenderError> {
    if let Some(directory) = path.parent() {
        make_directory(directory)?;
    }
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        // The process' umask took bits away that the machine's file must have.
        file.set_permissions(fs::Permissions::from_mode(mode))
    };
    write().map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: io::Error) -> RenderError {
    RenderError::File { path: path.to_owned(), source }
}

fn read(filenames: &[PathBuf]) -> Result<Inputs, RenderError> {
    let mut inputs = Inputs::default();
    for filename in filenames {
        let file = filename.display().to_string();
        let mut text = String::new();
        if filename.as_os_str() == "-" {
            io::stdin().read_to_string(&mut text).map_err(|source| file_error(filename, source))?;
        } else {
            text = fs::read_to_string(filename).map_err(|source| file_error(filename, source))?;
        }
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|error| RenderError::Document {
            file: file.clone(),
            number: 1,
            problem: error.to_string(),
        })?;
        for (number, document) in documents.into_iter().enumerate() {
            inputs.take(document).map_err(|problem| RenderError::Document {
                file: file.clone(),
                number: number + 1,
                problem,
            })?;
        }
    }
    Ok(inputs)
}

impl Inputs {
    /// Takes a document, or the documents of a `List`, as `kubectl get -o yaml` prints it.
    fn take(&mut self, document: Value) -> Result<(), String> {
        let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        match kind.as_str() {
            _ if document.is_null() => {}
            "List" | "SecretList" | "NodeList" | "ConfigMapList" => {
                for item in document.get("items").and_then(Value::as_array).into_iter().flatten() {
                    self.take(item.clone())?;
                }
            }
            "ClusterSpec" => self.clusters.push(read_as(document)?),
            "CertificatePolicy" => self.policies.push(read_as(document)?),
            "NodePool" => self.pools.push(read_as(document)?),
            "Node" => self.nodes.push(read_as(document)?),
            "Secret" => self.secrets.push(read_as(document)?),
            "ConfigMap" => self.config_maps.push(read_as(document)?),
            other => {
                return Err(format!(
                    "kind {other:?} is not known here: give ClusterSpec, NodePool, CertificatePolicy, Secret, \
                     ConfigMap and Node"
                ));
            }
        }
        Ok(())
    }
}

fn read_as<T: DeserializeOwned>(document: Value) -> Result<T, String> {
    serde_json::from_value(document).map_err(|error| error.to_string())
}
