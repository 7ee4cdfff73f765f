//! Facts about encryption: the configuration that each API server has loaded, and the re-encryption.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use k8s_openapi::jiff::Timestamp;

use super::Progress;
use crate::checksum::hexadecimal;

/// The metric with the hash of the loaded configuration. The API server sets it at its start and after every reload.
/// The metric is the same in Kubernetes 1.36 and 1.37 (`encryptionconfig/metrics` of k8s.io/apiserver).
pub const CONFIGURATION_METRIC: &str = "apiserver_encryption_config_controller_last_config_info";

/// The facts about a target cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The hash of the file that each node's API server has loaded, or the reason why the hash is unknown.
    pub configurations: BTreeMap<String, Result<String, String>>,
    /// The re-encryption.
    pub reencryption: Option<Reencryption>,
}

/// The observed re-encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reencryption {
    /// The start time of its stage.
    pub since: Timestamp,
    /// The progress.
    pub progress: Progress,
    /// The error that delays the re-encryption.
    pub trouble: Option<String>,
}

/// Returns the hash that an API server reports for a file.
#[must_use]
pub fn configuration_hash(file: &str) -> String {
    let hash = digest::digest(&digest::SHA256, file.as_bytes());
    format!("sha256:{}", hexadecimal(hash.as_ref()))
}

/// Returns the hash in a line of an API server's metrics; `None` for other lines.
#[must_use]
pub fn loaded_configuration(line: &str) -> Option<&str> {
    let labels = line.strip_prefix(CONFIGURATION_METRIC)?.strip_prefix('{')?.split('}').next()?;
    let label = labels.split(',').find_map(|label| label.strip_prefix("hash=\""))?;
    label.strip_suffix('"')
}

/// Returns the reason why the API server of a node is not known to have loaded the file; `None` if the API server has.
pub(super) fn problem(node: &str, file: &str, facts: Option<&Facts>) -> Option<String> {
    match facts.and_then(|facts| facts.configurations.get(node)) {
        None => Some("its API server was not contacted yet".to_owned()),
        Some(Err(why)) => Some(why.clone()),
        Some(Ok(loaded)) if *loaded == configuration_hash(file) => None,
        Some(Ok(_)) => Some("its API server has loaded another encryption configuration".to_owned()),
    }
}

pub(super) fn is_loaded_everywhere(nodes: &[String], file: &str, facts: Option<&Facts>) -> bool {
    !nodes.is_empty() && nodes.iter().all(|node| problem(node, file, facts).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_hash_from_the_metric_line_only() {
        let line = "apiserver_encryption_config_controller_last_config_info{apiserver_id_hash=\"sha256:aa\",hash=\"sha256:bb\"} 1";
        assert_eq!(loaded_configuration(line), Some("sha256:bb"));
        for other in [
            "# HELP apiserver_encryption_config_controller_last_config_info [ALPHA] hash=\"sha256:bb\"",
            "apiserver_encryption_config_controller_automatic_reloads_total{hash=\"sha256:bb\"} 1",
            "apiserver_encryption_config_controller_last_config_info{apiserver_id_hash=\"sha256:aa\"} 1",
            "",
        ] {
            assert_eq!(loaded_configuration(other), None, "{other}");
        }
    }

    #[test]
    fn file_hash_equals_the_hash_of_the_api_server() {
        // `printf abc | sha256sum`
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(configuration_hash("abc"), abc);
    }
}
