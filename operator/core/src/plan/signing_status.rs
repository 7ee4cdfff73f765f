//! What the status says of certificates that wait for a signer outside.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{CertificateStatus, ClusterSpecStatus, SigningRequestStatus, reasons};

use super::Waiting;
use super::signing::WAITS_FOR_SIGNER;
use super::status::Outcome;
use crate::model::Cluster;

/// How many requests a message names.
const NAMED: usize = 5;

/// The list in the status.
pub(super) fn requests(waiting: &[Waiting]) -> Vec<SigningRequestStatus> {
    let request = |waiting: &Waiting| SigningRequestStatus {
        name: waiting.request.clone(),
        certificate: waiting.certificate.clone(),
        node: waiting.node.clone(),
        issuer: waiting.authority.name().to_owned(),
        request_time: Time(waiting.since),
        rejection: waiting.refusal.clone(),
    };
    waiting.iter().map(request).collect()
}

/// Whether certificates wait for a signer; nothing where no authority signs outside.
pub(super) fn outcome(
    cluster: &Cluster,
    waiting: &[Waiting],
    certificates: &[CertificateStatus],
    now: Timestamp,
) -> Option<Outcome> {
    if cluster.signed_outside.is_empty() {
        return None;
    }
    let refused: Vec<_> = waiting
        .iter()
        .filter_map(|waiting| Some(format!("{}: {}", waiting.request, waiting.refusal.as_ref()?)))
        .collect();
    if !refused.is_empty() {
        return Some(Outcome::bad(reasons::CERTIFICATE_REFUSED, format!("not used: {}", named(&refused))));
    }
    let open: Vec<_> = waiting.iter().filter(|waiting| !waiting.is_answered).collect();
    let names: Vec<_> = open.iter().map(|waiting| format!("{} since {}", waiting.request, waiting.since)).collect();
    let is_late = |waiting: &Waiting| {
        certificates.iter().any(|certificate| {
            certificate.name == waiting.certificate && certificate.node == waiting.node && is_late(certificate, now)
        })
    };
    Some(if open.iter().any(|waiting| is_late(waiting)) {
        Outcome::bad(
            reasons::SIGNER_OVERDUE,
            format!("a certificate ends soon, and these wait for their signer: {}", named(&names)),
        )
    } else if open.is_empty() {
        match waiting {
            [] => Outcome::good(reasons::SIGNED, "no certificate waits for a signer"),
            _ => Outcome::good(
                reasons::WAITING_FOR_MAINTENANCE_WINDOW,
                "what was signed is used in the next maintenance window",
            ),
        }
    } else {
        Outcome::bad(WAITS_FOR_SIGNER, format!("these wait for their signer: {}", named(&names)))
    })
}

fn named(words: &[String]) -> String {
    let more = words.len().saturating_sub(NAMED);
    let named = words.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    if more == 0 { named } else { format!("{named}; and {more} more (status.signingRequests)") }
}

/// Whether all that is due was asked for, and there is time left.
pub(super) fn is_under_way(status: &ClusterSpecStatus, now: Timestamp) -> bool {
    let mut due = status.certificates.iter().filter(|certificate| certificate.renewal_time.0 <= now);
    let is_asked = |certificate: &CertificateStatus| {
        let mut requests = status.signing_requests.iter();
        requests.any(|request| request.certificate == certificate.name && request.node == certificate.node)
    };
    due.all(|certificate| is_asked(certificate) && !is_late(certificate, now))
}

/// Whether less than a third is left of the time that there was for its renewal.
fn is_late(certificate: &CertificateStatus, now: Timestamp) -> bool {
    let left = certificate.not_after.0.duration_since(now);
    left < certificate.not_after.0.duration_since(certificate.renewal_time.0) / 3
}
