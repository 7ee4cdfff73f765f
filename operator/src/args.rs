//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use k8s_openapi::jiff::Timestamp;

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
}

/// `keyplane run`
#[derive(Debug, Args)]
pub struct RunArguments {
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
    DIR/objects/target/*.yaml.\nDIR must be empty or missing. Private keys have mode 0600.\n\n\
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
