//! Status of revocations that wait for their confirmation.

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{RevocationStatus, keys, reasons};

use super::{Outcome, revocation_steps};
use crate::certificate_authorities::ClusterCas;
use crate::model::Cluster;
use crate::observed::Observed;
use crate::plan::revocation::requested_revocations;

/// Returns the status and the condition about revocations that wait for their confirmation.
pub(super) fn report(
    cluster: &Cluster,
    cas: &ClusterCas,
    observed: &Observed,
    now: Timestamp,
) -> Option<(RevocationStatus, Outcome)> {
    let mut requests = requested_revocations(cluster, cas, observed, now);
    requests.retain(|request| !request.is_confirmed(cluster));
    if requests.is_empty() {
        return None;
    }
    let subjects: Vec<_> = requests.iter().map(|request| request.subject).collect();
    let names: Vec<_> = subjects.iter().map(|subject| subject.name().to_owned()).collect();
    let confirm = requests.iter().map(|request| request.confirmation.as_str()).collect::<Vec<_>>().join(",");
    let message = format!(
        "the revocation of {} interrupts the cluster and has not started: read status.revocation.steps, which list the \
         duration and your tasks, then confirm with spec.rotate.revoke.confirm or the annotation {}: {confirm}",
        names.join(", "),
        keys::CONFIRM_REVOCATION_ANNOTATION,
    );
    let missing = requests.iter().filter_map(|request| request.user_provided.as_ref()?.as_ref().err());
    let missing = missing.map(|why| format!("before the revocation: {why}"));
    let steps = missing.chain(revocation_steps::steps(cluster, observed, &subjects)).collect();
    Some((RevocationStatus { names, confirm, steps }, Outcome::bad(reasons::REVOCATION_NOT_CONFIRMED, message)))
}
