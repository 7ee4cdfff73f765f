//! Names of an agent's objects.

/// The ServiceAccount of a machine's agent. Its Role and the binding have the same name.
#[must_use]
pub fn service_account(cluster: &str, node: &str) -> String {
    format!("{cluster}-{node}-agent")
}

/// The Secret with which a machine's agent begins.
#[must_use]
pub fn bootstrap_secret(cluster: &str, node: &str) -> String {
    format!("{cluster}-{node}-agent-bootstrap")
}

/// The Lease of a machine's agent.
#[must_use]
pub fn lease(cluster: &str, node: &str) -> String {
    format!("{cluster}-{node}")
}
