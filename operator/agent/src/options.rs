//! What the agent is told on its command line.

use std::path::PathBuf;

use clap::Args;
use keyplane_core::agent_access::settings::FileSettings;

/// The options of `keyplane node`.
#[derive(Debug, Args)]
pub struct Options {
    /// The file with the settings: managementServer, certificateAuthority (a path), token (a path), namespace, cluster,
    /// node. Flags win over it. Not set means /etc/keyplane/node.yaml, if that is there.
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,

    /// The URL of the management cluster's API server, for example `https://management.example:6443`.
    #[arg(long, value_name = "URL")]
    pub management_server: Option<String>,

    /// The file with the certificates that it is verified with. Not set means /etc/keyplane/ca.crt.
    #[arg(long, value_name = "FILE")]
    pub certificate_authority: Option<String>,

    /// The file with the token, which the agent renews. Not set means /etc/keyplane/token.
    #[arg(long, value_name = "FILE")]
    pub token: Option<String>,

    /// The ClusterSpec's namespace.
    #[arg(long)]
    pub namespace: Option<String>,

    /// The ClusterSpec's name.
    #[arg(long)]
    pub cluster: Option<String>,

    /// The name that the ClusterSpec or NodePool gives this machine.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,

    /// Carry, restart, report, and end. Exit status 1 if something could not be done.
    #[arg(long)]
    pub once: bool,

    /// Take the Secret or the ConfigMap from a file, and carry it once without any management cluster. Nothing is
    /// reported. May be given several times.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "once"])]
    pub from: Vec<PathBuf>,

    /// The shell's command that restarts the kubelet.
    #[arg(long, value_name = "COMMAND", default_value = "systemctl daemon-reload && systemctl restart kubelet")]
    pub kubelet_restart_command: String,

    /// The shell's command that restarts another unit of the layout Systemd, and fails if the unit does not run then;
    /// {unit} stands for its name.
    #[arg(
        long,
        value_name = "COMMAND",
        default_value = "systemctl daemon-reload && systemctl restart {unit} && sleep 5 && systemctl is-active --quiet {unit}"
    )]
    pub unit_restart_command: String,

    /// Where the kubelet says that it is well: its healthzBindAddress and healthzPort.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:10248")]
    pub kubelet_health: String,

    /// Write files and restart nothing, for example while an image is made.
    #[arg(long)]
    pub no_restarts: bool,

    /// The directory that stands for the machine's /.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

impl Options {
    /// The settings among the flags.
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
