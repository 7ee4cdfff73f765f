//! The option for encryption at rest. The configuration contains the keys, so its content is in the node's Secret.

use super::{ApiServerOption, mount};
use crate::model::Cluster;
use crate::pki::places::encryption_directory;

/// Returns the path of the configuration on a control-plane node.
#[must_use]
pub fn encryption_configuration(cluster: &Cluster) -> String {
    format!("{}/config.yaml", encryption_directory(cluster.layout()))
}

/// Returns the option. The API server reloads the file within a minute, so a change needs no restart.
pub(super) fn option(cluster: &Cluster) -> Option<ApiServerOption> {
    cluster.encryption_use.configured.then(|| ApiServerOption {
        arguments: vec![
            ("encryption-provider-config", encryption_configuration(cluster)),
            ("encryption-provider-config-automatic-reload", "true".to_owned()),
        ],
        mounts: vec![mount("encryption-config", &encryption_directory(cluster.layout()), true)],
        ..ApiServerOption::default()
    })
}
