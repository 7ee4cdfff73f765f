//! `keyplane render`: the controller's plan, carried out in memory and written as files.

mod inputs;
mod output;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{ClusterSpec, NodePool, keys};
use kube::ResourceExt;

use self::inputs::{Inputs, namespace_of, read};
use self::output::{OBJECTS_DIRECTORY, make_directory, write_nodes, write_objects};
use crate::args::RenderArguments;
use keyplane_core::authorities::Authorities;
use keyplane_core::blocker::Blocker;
use keyplane_core::external_signer::request::SIGNING_REQUEST_LABEL;
use keyplane_core::join::Pool;
use keyplane_core::join::objects::worker_config;
use keyplane_core::manifests::systemd::pod_ranges;
use keyplane_core::model::{Cluster, FieldError, Policy};
use keyplane_core::observed::Observed;
use keyplane_core::plan::{Kind, Step, Waiting, as_observed, plan};
use keyplane_issuance::{IssuanceError, fulfil};

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
    let answered = inputs.config_maps.iter().filter(|found| found.labels().contains_key(keys::SIGNING_REQUEST_LABEL));
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

fn file_error(path: &Path, source: io::Error) -> RenderError {
    RenderError::File { path: path.to_owned(), source }
}
