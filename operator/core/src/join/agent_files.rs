//! The first files of the agents on the nodes of a pool.

use crate::host_files::File;

/// The first files of a node's agent.
#[derive(Debug, Clone)]
pub struct AgentFiles {
    /// The name of the node.
    pub machine: String,
    /// The files; one of them is a token.
    pub files: Vec<File>,
}
