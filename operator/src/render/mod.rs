//! `keyplane render`: executes the controller's plan in memory, and writes the result as files.

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
use keyplane_core::blocker::Blocker;
use keyplane_core::certificate_authorities::ClusterCas;
use keyplane_core::join::Pool;
use keyplane_core::join::objects::worker_config;
use keyplane_core::manifests::systemd::pod_ranges;
use keyplane_core::model::{Cluster, FieldError, Policy};
use keyplane_core::observed::Observed;
use keyplane_core::plan::{Kind, PendingCertificate, Step, as_observed, plan};
use keyplane_issuance::{IssuanceError, build_secret};

/// The reason why rendering failed.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A file can't be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// A document is not a supported object.
    #[error("{file}, document {number}: {problem}")]
    Document {
        /// The file.
        file: String,
        /// Index of the document, from 1.
        number: usize,
        /// The problem.
        problem: String,
    },
    /// The files have no ClusterSpec.
    #[error("no ClusterSpec in the files: add one with -f")]
    NoCluster,
    /// A ClusterSpec refers to a policy that is not in the files.
    #[error(
        "ClusterSpec {cluster} refers to the CertificatePolicy {policy}, which is not in the files: add it with -f"
    )]
    NoPolicy {
        /// The ClusterSpec.
        cluster: String,
        /// The policy's name.
        policy: String,
    },
    /// A field is invalid.
    #[error("{kind} {name}: {source}")]
    Field {
        /// The object's kind.
        kind: &'static str,
        /// The object.
        name: String,
        /// The field.
        source: FieldError,
    },
    /// The output directory is not empty.
    #[error("{path} is not empty: choose an empty directory, so that files of an earlier run are not mixed in", path = .0.display())]
    NotEmpty(PathBuf),
    /// Two nodes have the same name, or a node has the name of the directory of the objects.
    #[error(
        "the output directory of node {0} is used twice: render the clusters into separate directories, or rename the node"
    )]
    NodeDirectoryTaken(String),
    /// The plan is blocked.
    #[error("ClusterSpec {cluster}: {}", .blocker.message)]
    Blocked {
        /// The ClusterSpec.
        cluster: String,
        /// The blocker.
        blocker: Blocker,
    },
    /// A key can't be generated, or a certificate can't be issued.
    #[error(transparent)]
    Issuance(#[from] IssuanceError),
}

/// Reads the files, plans, issues and writes; returns one or more lines of text per cluster about the result.
///
/// # Errors
/// The first problem. Nothing is written before every input is valid.
pub fn render(arguments: &RenderArguments, now: Timestamp) -> Result<Vec<String>, RenderError> {
    let inputs = read(&arguments.filenames)?;
    if inputs.clusters.is_empty() {
        return Err(RenderError::NoCluster);
    }
    let mut clusters = vec![];
    // The directory of the objects is a sibling of those of the nodes.
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
                "{}: {} certificates wait for their signer, and nodes that lack one have no secret files yet: add the \
                 signed certificates under tls.crt to the ConfigMaps configmap-*-csr.yaml in \
                 {OBJECTS_DIRECTORY}/management, and render again with these objects (docs/external-ca.md)",
                cluster.name,
                waiting.len()
            ));
        }
        done.extend(waiting.iter().filter_map(|waiting| {
            let refusal = waiting.refusal.as_ref()?;
            Some(format!("{}: the certificate in ConfigMap {} is not used: {refusal}", cluster.name, waiting.request))
        }));
        done.extend(workers.iter().filter(|pool| pool.joins_by_token(cluster)).map(|pool| {
            format!(
                "{}: no join data for NodePool {}: its token is created in the running cluster; `kubeadm join` works, too",
                cluster.name, pool.name
            )
        }));
        if cluster.has_pod_routes() && observed.target.pod_ranges.is_none() {
            done.push(format!(
                "{}: the Pods' bridges and routes are not written, because their ranges are in the Nodes: once the Nodes \
                 exist, add them with `kubectl get nodes -o yaml | keyplane render -f - ...`",
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

/// Returns the worker pools of a cluster.
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

/// Adds the ConfigMaps of the worker nodes that are declared by name.
fn add_workers(cluster: &Cluster, workers: &[Pool], observed: &mut Observed) {
    let Some(cas) = ClusterCas::load(cluster, observed) else { return };
    let trust = &cas.trust();
    for pool in workers {
        for machine in &pool.machines {
            let ranges = observed.target.pod_ranges.as_ref();
            let config_map = worker_config(cluster, pool, machine, trust, ranges, None);
            observed.config_maps.insert(config_map.name_any(), config_map);
        }
    }
}

/// Plans and issues until the plan has no steps.
fn complete(
    cluster: &Cluster,
    inputs: &Inputs,
    now: Timestamp,
) -> Result<(Observed, Vec<PendingCertificate>), RenderError> {
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
    // Only ConfigMaps with certificates of external signers are used. All others are rendered again.
    let answered = inputs.config_maps.iter().filter(|found| found.labels().contains_key(keys::SIGNING_REQUEST_LABEL));
    for config_map in answered.filter(|found| namespace_of(*found) == cluster.namespace) {
        observed.config_maps.insert(config_map.name_any(), config_map.clone());
    }
    loop {
        let cluster = &as_observed(cluster, &observed);
        let plan = plan(cluster, &observed, now);
        if let Some(blocker) = plan.blockers.into_iter().find(|blocker| !blocker.waits_for_external_signer()) {
            return Err(RenderError::Blocked { cluster: cluster.name.clone(), blocker });
        }
        if plan.steps.is_empty() {
            return Ok((observed, plan.waiting));
        }
        for step in plan.steps {
            match step {
                Step::Secret(draft) => {
                    let secret = build_secret(*draft, cluster, &observed)?;
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

/// Reads the clusters of the files, for commands that need no keys.
///
/// # Errors
/// The first problem.
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
