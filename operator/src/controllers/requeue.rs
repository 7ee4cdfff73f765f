//! Requeue delays of ClusterSpecs.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::ClusterSpecStatus;

use super::RESYNC;
use keyplane_core::blocker::Blocker;
use keyplane_core::model::Cluster;
use keyplane_core::observed::Observed;
use keyplane_core::plan::next_encryption_change;

/// Requeue delay while a referenced user-provided Secret does not exist yet.
const USER_SECRET_PERIOD: Duration = Duration::from_secs(15);

/// Requeue delay while certificates wait for an external signer: a certificate may not be valid yet, or may wait for a
/// maintenance window.
const SIGNER_PERIOD: Duration = Duration::from_mins(1);

/// Requeue delay during a rotation, because some of its steps depend on time.
const ROTATION_PERIOD: Duration = Duration::from_secs(15);

/// Returns the delay until the next time-based step, at most [`RESYNC`]: the renewal time or expiry of a certificate,
/// or a change of encryption at rest. A missing user-provided Secret may lack the label that a watch selects, so it is
/// polled.
pub(super) fn requeue_after(
    cluster: &Cluster,
    observed: &Observed,
    status: &ClusterSpecStatus,
    blockers: &[Blocker],
    now: Timestamp,
) -> Duration {
    if blockers.iter().any(Blocker::requires_secret) {
        return USER_SECRET_PERIOD;
    }
    if status.rotation.is_some() {
        return ROTATION_PERIOD;
    }
    if !status.signing_requests.is_empty() {
        return SIGNER_PERIOD;
    }
    let times =
        status.certificates.iter().flat_map(|certificate| [certificate.renewal_time.0, certificate.not_after.0]);
    // The next maintenance window, for renewals that are already due.
    let window = cluster.policy.maintenance_window.as_ref().and_then(|window| window.next_opening(now));
    let times = times.chain(window).chain(next_encryption_change(cluster, observed));
    wait_until(times.filter(|time| *time > now).min(), now)
}

/// Returns the delay until one second after the time, so that the time has certainly passed; at most [`RESYNC`].
pub(super) fn wait_until(time: Option<Timestamp>, now: Timestamp) -> Duration {
    let wait = time.and_then(|time| Duration::try_from(time.duration_since(now)).ok());
    wait.map_or(RESYNC, |wait| (wait + Duration::from_secs(1)).min(RESYNC))
}
