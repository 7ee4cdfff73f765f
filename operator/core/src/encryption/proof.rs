//! What the API servers show of their configuration, and what was written anew.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use k8s_openapi::jiff::Timestamp;

use super::Progress;
use crate::checksum::hexadecimal;

/// The metric by which an API server shows which file it has loaded, at its start and whenever it has read it again. The
/// same in Kubernetes 1.36 and 1.37 (`encryptionconfig/metrics` of k8s.io/apiserver).
pub const CONFIGURATION_METRIC: &str = "apiserver_encryption_config_controller_last_config_info";

/// What a target said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The hash of the file that each node's API server has loaded, or why it can't be said.
    pub configurations: BTreeMap<String, Result<String, String>>,
    /// What was written anew.
    pub rewriting: Option<Rewriting>,
}

/// What was written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewriting {
    /// For the stage that began then.
    pub since: Timestamp,
    /// How much.
    pub progress: Progress,
    /// What holds it up.
    pub trouble: Option<String>,
}

/// The hash that an API server shows for a file.
#[must_use]
pub fn configuration_hash(file: &str) -> String {
    let hash = digest::digest(&digest::SHA256, file.as_bytes());
    format!("sha256:{}", hexadecimal(hash.as_ref()))
}

/// The hash in a line of an API server's metrics, if it is the line that has it.
#[must_use]
pub fn loaded_configuration(line: &str) -> Option<&str> {
    let labels = line.strip_prefix(CONFIGURATION_METRIC)?.strip_prefix('{')?.split('}').next()?;
    let label = labels.split(',').find_map(|label| label.strip_prefix("hash=\""))?;
    label.strip_suffix('"')
}

/// Why the API server of a node is not known to have loaded the file; nothing if it is.
pub(super) fn lack(node: &str, file: &str, facts: Option<&Facts>) -> Option<String> {
    match facts.and_then(|facts| facts.configurations.get(node)) {
        None => Some("its API server was not asked yet".to_owned()),
        Some(Err(why)) => Some(why.clone()),
        Some(Ok(loaded)) if *loaded == configuration_hash(file) => None,
        Some(Ok(_)) => Some("its API server has loaded another encryption configuration".to_owned()),
    }
}

pub(super) fn is_loaded_everywhere(nodes: &[String], file: &str, facts: Option<&Facts>) -> bool {
    !nodes.is_empty() && nodes.iter().all(|node| lack(node, file, facts).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_read_from_the_one_line_that_has_it() {
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
    fn the_hash_of_a_file_is_the_one_that_an_api_server_shows() {
        // `printf abc | sha256sum`
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(configuration_hash("abc"), abc);
    }
}
