//! Join data for the first boot of a worker node: the same files and steps in three formats.

use keyplane_crds::BootstrapFormat;

use super::agent_files::AgentFiles;
use super::files::pool_files;
use super::pool::Pool;
use super::script::{self, places};
use super::token::Token;
use super::{cloud_config, ignition};
use crate::host_files::{self, File};
use crate::kubeconfig::{self, Credential};
use crate::model::Cluster;

/// The path of kubeadm for the kubeconfig with the token.
const BOOTSTRAP_KUBECONFIG: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
/// The user name of kubeadm in that kubeconfig.
const TOKEN_USER: &str = "tls-bootstrap-token-user";

/// Renders the join data of a pool. The join data contains the bootstrap token, so it is secret.
#[must_use]
pub fn bootstrap_data(cluster: &Cluster, pool: &Pool, trust: &str, token: &Token, agents: &[AgentFiles]) -> String {
    let places = places(pool);
    let downloads = pool.bootstrap.downloads.clone().unwrap_or_default();
    let kubelet = match downloads.kubelet {
        Some(_) => format!("{}/kubelet", places.programs),
        None => host_files::PACKAGED_KUBELET.to_owned(),
    };
    let mut files = pool_files(cluster, pool, trust, &kubelet);
    if downloads.containerd.is_some() {
        let unit = host_files::containerd_unit(&format!("{}/bin", places.containerd));
        files.push(File::new("containerd.service", host_files::CONTAINERD_UNIT, 0o644, unit));
    }
    let credential = Credential::Token(token.text());
    let kubeconfig = kubeconfig::write(&cluster.endpoint, trust, TOKEN_USER, credential);
    let token = File::new("bootstrap-kubelet.conf", BOOTSTRAP_KUBECONFIG, 0o600, kubeconfig);
    let beginning = script::beginning(cluster, pool);
    let ending = script::ending(pool, &pool.kubelet_configuration(cluster), &token, agents);
    let about = format!(
        "# Joins this machine to the Kubernetes cluster {} as one of NodePool {}. Written by Keyplane.\n\
         # It holds a bootstrap token: keep it secret until the machine has joined.\n",
        cluster.name, pool.name
    );
    let steps = format!("#!/bin/sh\n{about}{beginning}{ending}");
    match pool.bootstrap.format {
        BootstrapFormat::Script => {
            let files: Vec<_> = files.iter().map(script::here_document).collect();
            format!(
                "#!/bin/sh\n{about}# Run it as root. It may be run again: what is done stays done.\n\
                 {beginning}\n# The machine's files.\n{}{ending}",
                files.concat()
            )
        }
        BootstrapFormat::CloudConfig => cloud_config::write(&files, &steps),
        BootstrapFormat::Ignition => ignition::write(&files, &steps),
    }
}
