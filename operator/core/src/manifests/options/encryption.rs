//! Encryption at rest. The configuration has the keys, so it is in the node's Secret.

use super::{ApiServerOption, mount};
use crate::model::Cluster;
use crate::pki::places::encryption_directory;

/// The path of the configuration on a machine.
#[must_use]
pub fn encryption_configuration(cluster: &Cluster) -> String {
    format!("{}/config.yaml", encryption_directory(cluster.layout()))
}

/// An API server looks at the file every minute: what is in it restarts nothing.
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
