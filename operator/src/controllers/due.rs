//! When a ClusterSpec is looked at again although nothing has changed.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::ClusterSpecStatus;

use super::RESYNC;
use keyplane_core::blocker::Blocker;
use keyplane_core::model::Cluster;
use keyplane_core::observed::Observed;
use keyplane_core::plan::next_encryption_change;

/// How often a Secret is looked for that a user has announced and not made yet.
const GIVEN_SECRET_PERIOD: Duration = Duration::from_secs(15);

/// How often an answer of a signer is looked at again: it may not be valid yet, or wait for a maintenance window.
const SIGNER_PERIOD: Duration = Duration::from_mins(1);

/// How often a rotation is looked at besides: some of what it waits for comes by the clock.
const ROTATION_PERIOD: Duration = Duration::from_secs(15);

/// When something is due by the clock alone: a certificate's renewal time or end, a change of encryption at rest, at the
/// latest after [`RESYNC`]. A Secret that a user still has to give bears no label that a watch would see, so it is looked
/// for.
pub(super) fn next_check(
    cluster: &Cluster,
    observed: &Observed,
    status: &ClusterSpecStatus,
    blockers: &[Blocker],
    now: Timestamp,
) -> Duration {
    if blockers.iter().any(Blocker::waits_for_a_secret) {
        return GIVEN_SECRET_PERIOD;
    }
    if status.rotation.is_some() {
        return ROTATION_PERIOD;
    }
    if !status.signing_requests.is_empty() {
        return SIGNER_PERIOD;
    }
    let times =
        status.certificates.iter().flat_map(|certificate| [certificate.renewal_time.0, certificate.not_after.0]);
    // The next maintenance window, for what is due already.
    let window = cluster.policy.maintenance_window.as_ref().and_then(|window| window.next_opening(now));
    let times = times.chain(window).chain(next_encryption_change(cluster, observed));
    wait_until(times.filter(|time| *time > now).min(), now)
}

/// Until a second after that time, so that it has come for sure; at the latest after [`RESYNC`].
pub(super) fn wait_until(time: Option<Timestamp>, now: Timestamp) -> Duration {
    let wait = time.and_then(|time| Duration::try_from(time.duration_since(now)).ok());
    wait.map_or(RESYNC, |wait| (wait + Duration::from_secs(1)).min(RESYNC))
}
