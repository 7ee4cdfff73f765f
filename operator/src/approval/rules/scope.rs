//! Whether a request is ours to judge. These rules ignore; they neither deny nor let wait.

use k8s_openapi::jiff::SignedDuration;

use super::{Case, Outcome};
use crate::approval::request::KUBELET_SERVING_SIGNER;
use crate::approval::verdict::{Answer, shown};

/// Four times as long as a kubelet waits (15 minutes, `certificateWaitTimeout` of client-go), which also leaves room for
/// clocks that differ.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(1);

/// The request is for kubernetes.io/kubelet-serving. Another signer's certificates mean something else (one of
/// kube-apiserver-client logs in); an approver that let the signer's check slip approved them all (deckhouse #22901).
pub fn signer(case: &Case<'_>) -> Outcome {
    let signer = &case.request.signer_name;
    if signer == KUBELET_SERVING_SIGNER {
        return Ok(());
    }
    Err(Answer::ignore("OtherSigner", format!("the request is for the signer {}", shown(signer))))
}

/// Nobody has decided yet. A second verdict would contradict a person's, and the API server refuses a second condition
/// of a type.
pub fn open(case: &Case<'_>) -> Outcome {
    if !case.request.settled {
        return Ok(());
    }
    Err(Answer::ignore("AlreadySettled", "the request is approved, denied, failed, signed or being deleted".to_owned()))
}

/// The policy wants requests to be judged.
pub fn enabled(case: &Case<'_>) -> Outcome {
    if case.facts.policy.enabled {
        return Ok(());
    }
    Err(Answer::ignore("ApprovalDisabled", "the CertificatePolicy has kubeletServing.enabled: false".to_owned()))
}

/// The request is younger than an hour. The API server vouches for a requester at the moment of the request only: one
/// that has waited for long may be of a machine that is gone, whose name another one has now. The kubelet has given up
/// by then and asked again, and the controller-manager removes the request after a day.
pub fn age(case: &Case<'_>) -> Outcome {
    let message = match case.request.created {
        Some(created) if case.now.duration_since(created) <= MAX_AGE => return Ok(()),
        Some(_) => "the request is more than an hour old: no kubelet waits for it any more",
        None => "the request does not say when it was made",
    };
    Err(Answer::ignore("RequestTooOld", message.to_owned()))
}
