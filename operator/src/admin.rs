//! The HTTP endpoints /livez, /readyz and /metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// State of this replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The API server is not reachable yet, or the CRDs are not installed.
    Starting,
    /// Another replica holds the Lease.
    Standby,
    /// This replica holds the Lease.
    Leading,
    /// The replica is shutting down.
    Stopping,
}

/// The role, shared between the controllers and the probes.
#[derive(Debug, Clone, Default)]
pub struct Roles(Arc<AtomicU8>);

impl Roles {
    const ALL: [Role; 4] = [Role::Starting, Role::Standby, Role::Leading, Role::Stopping];

    /// Sets the role.
    pub fn set(&self, role: Role) {
        let index = Self::ALL.iter().position(|other| *other == role).unwrap_or_default();
        self.0.store(u8::try_from(index).unwrap_or_default(), Ordering::Relaxed);
    }

    /// Returns the role.
    #[must_use]
    pub fn get(&self) -> Role {
        Self::ALL.get(usize::from(self.0.load(Ordering::Relaxed))).copied().unwrap_or(Role::Starting)
    }
}

/// Serves until the token is cancelled.
///
/// # Errors
/// The listener fails.
pub async fn serve(
    listener: TcpListener,
    roles: Roles,
    metrics: Metrics,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        // An answer proves liveness: an unavailable API server is no reason to restart the Pod.
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { readiness(roles.get()) }))
        .route("/metrics", get(move || async move { metrics.text() }));
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn readiness(role: Role) -> (StatusCode, &'static str) {
    match role {
        Role::Starting => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the API server is not reachable yet, or the CRDs are not installed: see the log\n",
        ),
        Role::Standby => (StatusCode::OK, "ok: another replica leads\n"),
        Role::Leading => (StatusCode::OK, "ok: leading\n"),
        Role::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replica_is_ready_as_leader_and_as_standby() {
        let roles = Roles::default();
        assert_eq!(readiness(roles.get()).0, StatusCode::SERVICE_UNAVAILABLE);
        for (role, status) in [(Role::Standby, 200), (Role::Leading, 200), (Role::Stopping, 503)] {
            roles.set(role);
            assert_eq!(readiness(roles.get()).0.as_u16(), status, "{role:?}");
        }
    }
}
