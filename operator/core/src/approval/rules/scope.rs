//! Whether a request is ours to judge. These rules ignore; they neither deny nor let wait.

use keyplane_crds::reasons;

use super::{Case, Outcome};
use crate::approval::request::Signer;
use crate::approval::verdict::{Answer, shown};

/// The request is for kubernetes.io/kubelet-serving or kubernetes.io/kube-apiserver-client-kubelet. Another signer's
/// certificates mean something else (one of kube-apiserver-client logs in as anybody); an approver that let the signer's
/// check slip approved them all (deckhouse #22901).
pub fn signer(case: &Case<'_>) -> Outcome {
    let signer = &case.request.signer_name;
    if case.request.signer().is_some() {
        return Ok(());
    }
    Err(Answer::ignore(reasons::OTHER_SIGNER, format!("the request is for the signer {}", shown(signer))))
}

/// Nobody has decided yet. A second verdict would contradict a person's, and the API server refuses a second condition
/// of a type.
pub fn open(case: &Case<'_>) -> Outcome {
    if !case.request.settled {
        return Ok(());
    }
    Err(Answer::ignore(
        reasons::ALREADY_SETTLED,
        "the request is approved, denied, failed, signed or being deleted".to_owned(),
    ))
}

/// The policy wants requests of this signer to be judged.
pub fn enabled(case: &Case<'_>) -> Outcome {
    if case.signer_terms()?.enabled {
        return Ok(());
    }
    let field = match case.request.signer() {
        Some(Signer::KubeletClient) => "kubeletClient",
        _ => "kubeletServing",
    };
    Err(Answer::ignore(reasons::APPROVAL_DISABLED, format!("the CertificatePolicy has {field}.enabled: false")))
}

/// The request is younger than the policy's limit, by default an hour. The API server vouches for a requester at the
/// moment of the request only: one that has waited for long may be of a machine that is gone, whose name another one has
/// now. The kubelet has given up by then and asked again, and the controller-manager removes the request after a day.
pub fn age(case: &Case<'_>) -> Outcome {
    let limit = case.facts.terms.wait_limit;
    let message = match case.request.created {
        Some(created) if case.now.duration_since(created) <= limit => return Ok(()),
        Some(_) => {
            let minutes = limit.as_mins();
            format!(
                "the request is more than {minutes} minutes old (signingRequests.waitLimit): a kubelet has asked anew"
            )
        }
        None => "the request does not say when it was made".to_owned(),
    };
    Err(Answer::ignore(reasons::REQUEST_TOO_OLD, message))
}
