//! A problem that blocks a plan.

/// A problem that a user has to fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// The condition reason.
    pub reason: &'static str,
    /// The problem and its remedy.
    pub message: String,
}
