//! Status of certificates that wait for an external signer.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{CertificateStatus, ClusterSpecStatus, SigningRequestStatus, reasons};

use super::Outcome;
use crate::model::Cluster;
use crate::plan::PendingCertificate;
use crate::plan::external_signing::WAITS_FOR_SIGNER;

/// The number of requests that a message names.
const MAX_NAMED: usize = 5;

/// Returns the list in the status.
pub(super) fn requests(waiting: &[PendingCertificate]) -> Vec<SigningRequestStatus> {
    let request = |waiting: &PendingCertificate| SigningRequestStatus {
        name: waiting.request.clone(),
        certificate: waiting.certificate.clone(),
        node: waiting.node.clone(),
        issuer: waiting.ca.name().to_owned(),
        request_time: Time(waiting.since),
        rejection: waiting.refusal.clone(),
    };
    waiting.iter().map(request).collect()
}

/// Returns whether certificates wait for a signer; `None` without external CAs.
pub(super) fn outcome(
    cluster: &Cluster,
    waiting: &[PendingCertificate],
    certificates: &[CertificateStatus],
    now: Timestamp,
) -> Option<Outcome> {
    if cluster.external_cas.is_empty() {
        return None;
    }
    let refused: Vec<_> = waiting
        .iter()
        .filter_map(|waiting| Some(format!("{}: {}", waiting.request, waiting.refusal.as_ref()?)))
        .collect();
    if !refused.is_empty() {
        return Some(Outcome::bad(reasons::CERTIFICATE_REFUSED, format!("rejected certificates: {}", named(&refused))));
    }
    let open: Vec<_> = waiting.iter().filter(|waiting| !waiting.is_answered).collect();
    let names: Vec<_> = open.iter().map(|waiting| format!("{} since {}", waiting.request, waiting.since)).collect();
    let is_late = |waiting: &PendingCertificate| {
        certificates.iter().any(|certificate| {
            certificate.name == waiting.certificate && certificate.node == waiting.node && is_late(certificate, now)
        })
    };
    Some(if open.iter().any(|waiting| is_late(waiting)) {
        Outcome::bad(
            reasons::SIGNER_OVERDUE,
            format!("a certificate expires soon, and these requests wait for their signer: {}", named(&names)),
        )
    } else if open.is_empty() {
        match waiting {
            [] => Outcome::good(reasons::SIGNED, "no certificate waits for a signer"),
            _ => Outcome::good(
                reasons::WAITING_FOR_MAINTENANCE_WINDOW,
                "signed certificates are applied in the next maintenance window",
            ),
        }
    } else {
        Outcome::bad(WAITS_FOR_SIGNER, format!("these requests wait for their signer: {}", named(&names)))
    })
}

fn named(words: &[String]) -> String {
    let more = words.len().saturating_sub(MAX_NAMED);
    let named = words.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join("; ");
    if more == 0 { named } else { format!("{named}; and {more} more (status.signingRequests)") }
}

/// Returns whether every due certificate is requested and there is time left.
pub(super) fn is_under_way(status: &ClusterSpecStatus, now: Timestamp) -> bool {
    let mut due = status.certificates.iter().filter(|certificate| certificate.renewal_time.0 <= now);
    let is_asked = |certificate: &CertificateStatus| {
        let mut requests = status.signing_requests.iter();
        requests.any(|request| request.certificate == certificate.name && request.node == certificate.node)
    };
    due.all(|certificate| is_asked(certificate) && !is_late(certificate, now))
}

/// Returns whether less than a third of the time between renewal time and expiry is left.
fn is_late(certificate: &CertificateStatus, now: Timestamp) -> bool {
    let left = certificate.not_after.0.duration_since(now);
    left < certificate.not_after.0.duration_since(certificate.renewal_time.0) / 3
}
