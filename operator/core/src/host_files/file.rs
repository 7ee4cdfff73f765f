//! A non-secret file on a node.

use std::borrow::Cow;

/// A file on a node without secret content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The key in the ConfigMap.
    pub key: Cow<'static, str>,
    /// The path on the host.
    pub path: Cow<'static, str>,
    /// The file mode.
    pub mode: u32,
    /// The content.
    pub content: String,
}

impl File {
    /// Creates a file that root owns.
    #[must_use]
    pub fn new(
        key: impl Into<Cow<'static, str>>,
        path: impl Into<Cow<'static, str>>,
        mode: u32,
        content: String,
    ) -> Self {
        Self { key: key.into(), path: path.into(), mode, content }
    }
}
