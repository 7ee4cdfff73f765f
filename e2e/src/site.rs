//! What the parts of a lab know about it.

use std::path::PathBuf;

use crate::parts::Parts;
use crate::subnet::Subnet;

/// The facts of a lab that its parts share.
#[derive(Debug)]
pub struct Site {
    /// The lab's id, which all names begin with.
    pub id: String,
    /// The lab's folder.
    pub folder: PathBuf,
    /// The lab's network.
    pub subnet: Subnet,
    /// The programs.
    pub parts: Parts,
}

impl Site {
    /// The address under which machines reach this host.
    #[must_use]
    pub fn host_address(&self) -> String {
        self.subnet.address(1)
    }

    /// The file that the process `name` logs to.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{name}.log"))
    }
}
