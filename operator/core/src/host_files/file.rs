//! A file on a machine.

use std::borrow::Cow;

/// A file of a machine that holds nothing secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its key in the ConfigMap.
    pub key: Cow<'static, str>,
    /// Its path on the machine.
    pub path: Cow<'static, str>,
    /// Its mode.
    pub mode: u32,
    /// Its content.
    pub content: String,
}

impl File {
    /// A file of root's.
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
