//! Secret files of a node, and the modes of files.

use crate::pki::SecretText;

/// Mode of files that only root may read (kubeadm, `keyutil.WriteKey`).
pub(crate) const PRIVATE: u32 = 0o600;
/// Mode of files that every user of the host may read (kubeadm, `certutil.WriteCert`).
pub(crate) const PUBLIC: u32 = 0o644;

/// A user-provided file for every control-plane node.
#[derive(Debug)]
pub struct UserProvidedFile {
    /// The key in the node's Secret.
    pub key: &'static str,
    /// The path on the node.
    pub path: String,
    /// The file mode.
    pub mode: u32,
    /// The content.
    pub content: SecretText,
}
