//! The command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use k8s_openapi::jiff::Timestamp;

use keyplane_agent::Options;

/// Holds the keys of other clusters' control planes.
///
/// A platform engineer applies a ClusterSpec; Keyplane writes, as Secrets and ConfigMaps, what kubeadm would have put
/// on that cluster's machines, and keeps it true.
#[derive(Debug, Parser)]
#[command(name = "keyplane", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the controllers against the cluster of the kubeconfig or of the pod's ServiceAccount.
    Run(RunArguments),
    /// Print the definitions of the three kinds as YAML, for kubectl apply -f -.
    Crds,
    /// Write the files of every machine and the objects of both clusters into a directory, without any cluster.
    ///
    /// Reads ClusterSpecs, NodePools, CertificatePolicies and Secrets. What a Secret holds is used; what is missing is
    /// made anew, so that without the Secrets of an earlier run (they are in DIR/objects/management) every run makes
    /// another cluster. The files are those that keyplane run writes for a cluster that has not started yet.
    Render(RenderArguments),
    /// List every image that a cluster needs, one a line, as kubeadm config images list does.
    ///
    /// Reads ClusterSpecs, and needs no cluster. spec.imageRepository and spec.images are honoured; Flannel's two images come
    /// from its own registry unless spec.images names others.
    Images(ImagesArguments),
    /// Carry a machine's files from the management cluster to the machine, on which this runs.
    ///
    /// Watches the machine's Secret and ConfigMap and nothing else. Changed files are written in one step each, with their
    /// mode and owner; static pods follow by themselves, and what reads its files only at its start is restarted, one after
    /// the other, waiting until it is well. What the machine holds is reported in the machine's Lease. Runs as root.
    Node(Box<NodeArguments>),
    /// Look at the certificates of the clusters.
    Certs {
        /// What to do.
        #[command(subcommand)]
        command: CertsCommand,
    },
    /// Look at kubelets' certificate signing requests.
    Csr {
        /// What to do.
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
    keyplane node --from secret.yaml --from config.yaml   # on a machine that does not reach the management cluster"
)]
pub struct NodeArguments {
    /// The agent's own.
    #[command(flatten)]
    pub options: Options,

    /// How the log is written. Its level comes from `RUST_LOG`.
    #[arg(long, env = "KEYPLANE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// `keyplane certs`
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Say when the certificates of all clusters end, as kubeadm certs check-expiration does on one machine.
    ///
    /// The list comes from the statuses of the ClusterSpecs; no Secret is read.
    CheckExpiration(CheckExpirationArguments),
}

/// `keyplane certs check-expiration`
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 nothing is due, 1 a certificate is past its renewal time, 2 error.\n\n\
    Examples:\n  keyplane certs check-expiration -A\n  keyplane certs check-expiration -n prod demo -o json\n\n\
    As a kubectl plugin: link this binary as kubectl-keyplane, then kubectl keyplane certs check-expiration -A.")]
pub struct CheckExpirationArguments {
    /// The name of one ClusterSpec. Not set means all of the namespace.
    #[arg(conflicts_with = "all_namespaces")]
    pub cluster: Option<String>,

    /// The ClusterSpecs of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,

    /// The namespace. Not set means the kubeconfig's.
    #[arg(short, long)]
    pub namespace: Option<String>,

    /// How the list is written.
    #[arg(short, long, value_enum, default_value_t = ExpirationFormat::Table)]
    pub output: ExpirationFormat,

    /// The context of the kubeconfig. Not set means the current one.
    #[arg(long)]
    pub context: Option<String>,
}

/// How the certificates are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExpirationFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For programs.
    Yaml,
}

/// `keyplane csr`
#[derive(Debug, Subcommand)]
pub enum CsrCommand {
    /// Say what becomes of a request, and what each rule says of it.
    ///
    /// With -f no cluster is needed: the documents are the request and what is known of its cluster. Without a
    /// CertificatePolicy the defaults hold. A ClusterSpec is judged by the policy it refers to, and, where it refers to
    /// none, by the one policy in the file. Of several clusters it is the one that declares the node. A request is judged
    /// at the time of its creation, or now if it says none.
    ///
    /// With a NAME the request, the Nodes and the rest are read from the cluster of the kubeconfig: the management
    /// cluster's own request, judged by the policy with spec.approver in --policy-namespace; or, with --cluster, that of a
    /// target, read with the admin kubeconfig in the Secret NAME-kubeconfig beside its ClusterSpec. A request that has its
    /// verdict already is judged once more, by what is there now. Nothing is written.
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
    /// CertificatePolicies; `-` is standard input. May be given several times.
    #[arg(short, long = "filename", value_name = "FILE", group = "source")]
    pub filenames: Vec<PathBuf>,

    /// How the answer is written.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,

    /// The time at which the request is judged, RFC 3339.
    #[arg(long, value_name = "RFC3339")]
    pub now: Option<Timestamp>,

    /// The ClusterSpec of the target in which the request is.
    #[arg(long, value_name = "NAMESPACE/NAME", requires = "name")]
    pub cluster: Option<String>,

    /// The context of the kubeconfig. Not set means the current one.
    #[arg(long, requires = "name")]
    pub context: Option<String>,

    /// Keyplane's own namespace, where the policy of the management cluster itself is.
    #[arg(long, value_name = "NAMESPACE", env = "KEYPLANE_POLICY_NAMESPACE", default_value = "keyplane-system")]
    pub policy_namespace: String,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `keyplane run`
#[derive(Debug, Args)]
pub struct RunArguments {
    /// What to run.
    #[arg(long, env = "KEYPLANE_MODE", value_enum, default_value_t = Mode::Operator)]
    pub mode: Mode,

    /// The namespace whose CertificatePolicy with spec.approver holds for the requests of the cluster that Keyplane runs
    /// in. Not set means the namespace of the Lease.
    #[arg(long, value_name = "NAMESPACE", env = "KEYPLANE_POLICY_NAMESPACE")]
    pub policy_namespace: Option<String>,

    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "KEYPLANE_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// The namespace of the Lease by which one of several replicas is elected.
    #[arg(long, env = "POD_NAMESPACE", default_value = "keyplane-system")]
    pub lease_namespace: String,

    /// The name of the Lease.
    #[arg(long, env = "KEYPLANE_LEASE_NAME", default_value = "keyplane")]
    pub lease_name: String,

    /// This replica's name in the Lease; it must differ from every other replica's. Not set means the host's name and a
    /// random number.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,

    /// How many objects of a kind are worked on at once.
    #[arg(long, env = "KEYPLANE_CONCURRENCY", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,

    /// How the log is written. Its level comes from `RUST_LOG`, for example `RUST_LOG=keyplane=debug`.
    #[arg(long, env = "KEYPLANE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// What `keyplane run` runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Everything: the controllers of ClusterSpecs and NodePools, the approvers of their targets, and that of the cluster
    /// itself where a policy asks for it.
    Operator,
    /// The approver of the cluster itself and nothing else: no ClusterSpec, no NodePool, no Secret is read.
    Approver,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// `keyplane render`
#[derive(Debug, Args)]
#[command(after_help = "Written are DIR/<node>/<path on the machine>, DIR/objects/management/*.yaml and \
    DIR/objects/target/*.yaml, with one file\nfor each add-on (kubectl apply --server-side -f).\nDIR must be empty or missing. Private keys have mode 0600.\n\n\
    Example:\n  keyplane render -f cluster.yaml -o out\n  (cd out/cp1 && find etc usr var -type f | tar -cT -) | ssh root@cp1 tar -C / -xp")]
pub struct RenderArguments {
    /// A file with one or more YAML documents; `-` is standard input. May be given several times.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub filenames: Vec<PathBuf>,

    /// The directory to write to.
    #[arg(short, long = "output", value_name = "DIR")]
    pub output: PathBuf,

    /// The time from which certificates are valid, RFC 3339. Not set means now.
    #[arg(long, value_name = "RFC3339")]
    pub now: Option<Timestamp>,
}

/// `keyplane images`
#[derive(Debug, Args)]
#[command(
    after_help = "To fill the registry of a site without the internet, list the images of a ClusterSpec without \
    imageRepository\nand copy each one; then write imageRepository (and images, for Flannel) into the ClusterSpec:\n\n\
    Examples:\n  keyplane images -f cluster.yaml | while read -r image; do\n    \
    skopeo copy --all \"docker://$image\" \"docker://registry.corp.example/kubernetes/${image##*/}\"\n  done\n  \
    keyplane images -f cluster.yaml | xargs -I{} crane copy {} registry.corp.example/mirror/{}\n  \
    keyplane images -f cluster.yaml -o json | jq -r '.images[]'"
)]
pub struct ImagesArguments {
    /// A file with one or more YAML documents; `-` is standard input. May be given several times.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub filenames: Vec<PathBuf>,

    /// How the list is written.
    #[arg(short, long, value_enum, default_value_t = ImagesFormat::Text)]
    pub output: ImagesFormat,
}

/// How the list of images is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImagesFormat {
    /// One a line.
    Text,
    /// An object with the list `images`.
    Json,
}

/// What a `--filename` names: a file, or the standard input where it is `-`.
///
/// # Errors
/// What came of reading it.
pub(crate) fn read_text(filename: &Path) -> io::Result<String> {
    if filename.as_os_str() == "-" { io::read_to_string(io::stdin()) } else { fs::read_to_string(filename) }
}
