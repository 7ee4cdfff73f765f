//! The agent's command-line options.

use std::path::PathBuf;

use clap::Args;
use keyplane_core::agent_access::settings::FileSettings;

/// The options of `keyplane node`.
#[derive(Debug, Args)]
pub struct Options {
    /// The file with the settings `managementServer`, `certificateAuthority` (a path), `token` (a path), `namespace`,
    /// `cluster` and `node`. Flags override the file. Default: /etc/keyplane/node.yaml, if that file exists.
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,

    /// The URL of the management cluster's API server, for example `https://management.example:6443`.
    #[arg(long, value_name = "URL")]
    pub management_server: Option<String>,

    /// The file with the CA certificates that verify the API server. Default: /etc/keyplane/ca.crt.
    #[arg(long, value_name = "FILE")]
    pub certificate_authority: Option<String>,

    /// The file with the token, which the agent renews. Default: /etc/keyplane/token.
    #[arg(long, value_name = "FILE")]
    pub token: Option<String>,

    /// The ClusterSpec's namespace.
    #[arg(long)]
    pub namespace: Option<String>,

    /// The ClusterSpec's name.
    #[arg(long)]
    pub cluster: Option<String>,

    /// The name of this node in the ClusterSpec or NodePool.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,

    /// Sync the files, restart components, report, and exit. The exit status is 1 if a step failed.
    #[arg(long)]
    pub once: bool,

    /// Read the Secret or the ConfigMap from a file, and apply it once without a management cluster. Nothing is
    /// reported. Can be repeated.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "once"])]
    pub from: Vec<PathBuf>,

    /// The shell command that restarts the kubelet.
    #[arg(long, value_name = "COMMAND", default_value = "systemctl daemon-reload && systemctl restart kubelet")]
    pub kubelet_restart_command: String,

    /// The shell command that restarts another unit of the layout Systemd. The command must fail if the unit does not
    /// run afterwards. {unit} stands for the name of the unit.
    #[arg(
        long,
        value_name = "COMMAND",
        default_value = "systemctl daemon-reload && systemctl restart {unit} && sleep 5 && systemctl is-active --quiet {unit}"
    )]
    pub unit_restart_command: String,

    /// The address of the kubelet's health endpoint: its healthzBindAddress and healthzPort.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:10248")]
    pub kubelet_health: String,

    /// Write files and restart nothing, for example while a host image is built.
    #[arg(long)]
    pub no_restarts: bool,

    /// The directory that stands for the node's root directory.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

impl Options {
    /// Returns the settings among the flags.
    #[must_use]
    pub fn settings(&self) -> FileSettings {
        FileSettings {
            management_server: self.management_server.clone(),
            certificate_authority: self.certificate_authority.clone(),
            token: self.token.clone(),
            namespace: self.namespace.clone(),
            cluster: self.cluster.clone(),
            node: self.node_name.clone(),
        }
    }
}
