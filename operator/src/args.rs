//! The command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use k8s_openapi::jiff::Timestamp;

use keyplane_agent::Options;

/// Holds the keys of other clusters' control planes.
///
/// A platform engineer applies a ClusterSpec. Keyplane writes Secrets and ConfigMaps with the files that kubeadm would
/// have put on that cluster's nodes, and keeps them up to date.
#[derive(Debug, Parser)]
#[command(name = "keyplane", version)]
pub struct Arguments {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `keyplane`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the controllers against the cluster of the kubeconfig or of the pod's ServiceAccount.
    Run(RunArguments),
    /// Print Keyplane's CRDs as YAML, for kubectl apply -f -.
    Crds,
    /// Write the files of every node and the objects of both clusters into a directory, without any cluster.
    ///
    /// Reads ClusterSpecs, NodePools, CertificatePolicies and Secrets. Keys and certificates in the Secrets are used.
    /// Missing keys and certificates are generated, so each run creates another cluster unless it reads the Secrets of
    /// an earlier run in DIR/objects/management. The files are those that keyplane run writes for a cluster that has
    /// not started yet.
    Render(RenderArguments),
    /// List every image that a cluster needs, one a line, as kubeadm config images list does.
    ///
    /// Reads ClusterSpecs and needs no cluster. spec.imageRepository and spec.images are honoured. Flannel's two images
    /// come from its own registry unless spec.images names others.
    Images(ImagesArguments),
    /// Sync the files of the node that this command runs on from the management cluster.
    ///
    /// Watches the node's Secret and ConfigMap and nothing else. Changed files are replaced atomically, with their mode
    /// and owner. The kubelet recreates static pods by itself. Components that read a file only at their start are
    /// restarted one after the other, each after the previous one is healthy. The applied files are reported in the
    /// node's Lease. Runs as root.
    Node(Box<NodeArguments>),
    /// Inspect the certificates of the clusters.
    Certs {
        /// The command to run.
        #[command(subcommand)]
        command: CertsCommand,
    },
    /// Inspect kubelets' certificate signing requests.
    Csr {
        /// The command to run.
        #[command(subcommand)]
        command: CsrCommand,
    },
}

/// `keyplane node`
#[derive(Debug, Args)]
#[command(
    after_help = "The settings and the first credential are in the Secret CLUSTER-NODE-agent-bootstrap beside the ClusterSpec,\n\
    with an index.json of their paths, once spec.nodeAgent is set.\n\n\
    Examples:\n  keyplane node\n  keyplane node --once\n  \
    kubectl get secret demo-cp1-pki -o yaml >secret.yaml; kubectl get configmap demo-cp1-config -o yaml >config.yaml\n  \
    keyplane node --from secret.yaml --from config.yaml   # on a node that does not reach the management cluster"
)]
pub struct NodeArguments {
    /// The options of the agent.
    #[command(flatten)]
    pub options: Options,

    /// The format of the log. Its level comes from `RUST_LOG`.
    #[arg(long, env = "KEYPLANE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// `keyplane certs`
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// List when the certificates of all clusters expire, as kubeadm certs check-expiration does on one node.
    ///
    /// The list comes from the statuses of the ClusterSpecs. No Secret is read.
    CheckExpiration(CheckExpirationArguments),
}

/// `keyplane certs check-expiration`
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 no renewal is due, 1 a certificate is past its renewal time, 2 error.\n\n\
    Examples:\n  keyplane certs check-expiration -A\n  keyplane certs check-expiration -n prod demo -o json\n\n\
    As a kubectl plugin: link this binary as kubectl-keyplane, then kubectl keyplane certs check-expiration -A.")]
pub struct CheckExpirationArguments {
    /// The name of one ClusterSpec. Default: all ClusterSpecs of the namespace.
    #[arg(conflicts_with = "all_namespaces")]
    pub cluster: Option<String>,

    /// List the ClusterSpecs of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,

    /// The namespace of the ClusterSpecs. Default: the namespace of the kubeconfig's context.
    #[arg(short, long)]
    pub namespace: Option<String>,

    /// The format of the list.
    #[arg(short, long, value_enum, default_value_t = ExpirationFormat::Table)]
    pub output: ExpirationFormat,

    /// The context of the kubeconfig. Default: the current context.
    #[arg(long)]
    pub context: Option<String>,
}

/// The format of the list of certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExpirationFormat {
    /// Two tables for people, like those of kubeadm.
    Table,
    /// JSON, for programs.
    Json,
    /// YAML, for programs.
    Yaml,
}

/// `keyplane csr`
#[derive(Debug, Subcommand)]
pub enum CsrCommand {
    /// Print the verdict on a request, with the result of each rule.
    ///
    /// With -f no cluster is needed. The documents are the request and the objects of its cluster. Without a
    /// CertificatePolicy the defaults apply. The policy is the one that the ClusterSpec refers to. A ClusterSpec
    /// without a reference uses the only policy in the files. Of several ClusterSpecs, the one that declares the node
    /// is used. A request is evaluated at its creation time, or now if it has none.
    ///
    /// With a NAME, the request is read from the management cluster, which is the cluster of the kubeconfig. The policy
    /// is the one with spec.approver in --policy-namespace. With --cluster, the request is read from that target
    /// cluster, with the admin kubeconfig in the Secret NAME-kubeconfig beside the ClusterSpec. A request that already
    /// has a verdict is evaluated again, with the current objects. Nothing is written.
    Explain(ExplainArguments),
}

/// `keyplane csr explain`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").required(true), after_help = "Exit status: 0 Approve, 2 Deny, 3 Wait, 4 Ignore, 1 error.\n\n\
    Examples:\n  keyplane csr explain csr-x7k2p\n  keyplane csr explain --cluster prod/demo csr-x7k2p\n  \
    kubectl get csr/csr-x7k2p nodes -o yaml | keyplane csr explain -f - -f policy.yaml -o json\n\n\
    As a kubectl plugin: link this binary as kubectl-keyplane, then kubectl keyplane csr explain NAME.")]
pub struct ExplainArguments {
    /// The name of the CertificateSigningRequest.
    #[arg(group = "source")]
    pub name: Option<String>,

    /// A file with YAML documents: one CertificateSigningRequest, and any number of Nodes, NodePools, ClusterSpecs and
    /// CertificatePolicies. `-` is standard input. Can be repeated.
    #[arg(short, long = "filename", value_name = "FILE", group = "source")]
    pub filenames: Vec<PathBuf>,

    /// The format of the output.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,

    /// The time at which the request is evaluated, RFC 3339.
    #[arg(long, value_name = "RFC3339")]
    pub now: Option<Timestamp>,

    /// The ClusterSpec of the target cluster that has the request.
    #[arg(long, value_name = "NAMESPACE/NAME", requires = "name")]
    pub cluster: Option<String>,

    /// The context of the kubeconfig. Default: the current context.
    #[arg(long, requires = "name")]
    pub context: Option<String>,

    /// Keyplane's own namespace, which has the policy of the management cluster itself.
    #[arg(long, value_name = "NAMESPACE", env = "KEYPLANE_POLICY_NAMESPACE", default_value = "keyplane-system")]
    pub policy_namespace: String,
}

/// The format of an explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Text for people.
    Text,
    /// JSON, for programs.
    Json,
}

/// `keyplane run`
#[derive(Debug, Args)]
pub struct RunArguments {
    /// The controllers to run.
    #[arg(long, env = "KEYPLANE_MODE", value_enum, default_value_t = Mode::Operator)]
    pub mode: Mode,

    /// The namespace of the CertificatePolicy with spec.approver, which applies to the requests of the cluster that
    /// Keyplane runs in. Default: the namespace of the Lease.
    #[arg(long, value_name = "NAMESPACE", env = "KEYPLANE_POLICY_NAMESPACE")]
    pub policy_namespace: Option<String>,

    /// The address that serves /livez, /readyz and /metrics.
    #[arg(long, env = "KEYPLANE_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// The namespace of the Lease for the leader election among replicas.
    #[arg(long, env = "POD_NAMESPACE", default_value = "keyplane-system")]
    pub lease_namespace: String,

    /// The name of the Lease.
    #[arg(long, env = "KEYPLANE_LEASE_NAME", default_value = "keyplane")]
    pub lease_name: String,

    /// This replica's name in the Lease, which must be unique among the replicas. Default: the host name and a random
    /// number.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,

    /// The number of objects of each kind that are reconciled at the same time.
    #[arg(long, env = "KEYPLANE_CONCURRENCY", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,

    /// The format of the log. Its level comes from `RUST_LOG`, for example `RUST_LOG=keyplane=debug`.
    #[arg(long, env = "KEYPLANE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// The controllers that `keyplane run` runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// All controllers: those of ClusterSpecs and NodePools, and the CSR approvers of their target clusters. The CSR
    /// approver of the management cluster also runs if a policy has spec.approver.
    Operator,
    /// Only the CSR approver of the cluster that Keyplane runs in. No ClusterSpec, no NodePool and no Secret is read.
    Approver,
}

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people.
    Text,
}

/// `keyplane render`
#[derive(Debug, Args)]
#[command(after_help = "The output is DIR/<node>/<path on the node>, DIR/objects/management/*.yaml and \
    DIR/objects/target/*.yaml, with one file\nfor each add-on (kubectl apply --server-side -f).\nDIR must be empty or missing. Private keys have mode 0600.\n\n\
    Example:\n  keyplane render -f cluster.yaml -o out\n  (cd out/cp1 && find etc usr var -type f | tar -cT -) | ssh root@cp1 tar -C / -xp")]
pub struct RenderArguments {
    /// A file with one or more YAML documents. `-` is standard input. Can be repeated.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub filenames: Vec<PathBuf>,

    /// The directory to write to.
    #[arg(short, long = "output", value_name = "DIR")]
    pub output: PathBuf,

    /// The time from which certificates are valid, RFC 3339. Default: now.
    #[arg(long, value_name = "RFC3339")]
    pub now: Option<Timestamp>,
}

/// `keyplane images`
#[derive(Debug, Args)]
#[command(
    after_help = "To fill the registry of an air-gapped site, list the images of a ClusterSpec without imageRepository\n\
    and copy each one. Then set imageRepository (and images, for Flannel) in the ClusterSpec.\n\n\
    Examples:\n  keyplane images -f cluster.yaml | while read -r image; do\n    \
    skopeo copy --all \"docker://$image\" \"docker://registry.corp.example/kubernetes/${image##*/}\"\n  done\n  \
    keyplane images -f cluster.yaml | xargs -I{} crane copy {} registry.corp.example/mirror/{}\n  \
    keyplane images -f cluster.yaml -o json | jq -r '.images[]'"
)]
pub struct ImagesArguments {
    /// A file with one or more YAML documents. `-` is standard input. Can be repeated.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub filenames: Vec<PathBuf>,

    /// The format of the list.
    #[arg(short, long, value_enum, default_value_t = ImagesFormat::Text)]
    pub output: ImagesFormat,
}

/// The format of the list of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImagesFormat {
    /// One image per line.
    Text,
    /// A JSON object with the list `images`.
    Json,
}

/// Reads the file of a `--filename`, or standard input if the name is `-`.
///
/// # Errors
/// The file can't be read.
pub(crate) fn read_text(filename: &Path) -> io::Result<String> {
    if filename.as_os_str() == "-" { io::read_to_string(io::stdin()) } else { fs::read_to_string(filename) }
}
