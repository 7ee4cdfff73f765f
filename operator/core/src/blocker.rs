//! What stands in the way of a plan.

/// Something that a person has to put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// The reason of the condition.
    pub reason: &'static str,
    /// What is in the way, and the cure.
    pub message: String,
}
