//! Rules about the scope of Keyplane. They ignore a CSR; they neither deny it nor wait.

use keyplane_crds::reasons;

use super::{Case, Outcome};
use crate::approval::request::Signer;
use crate::approval::verdict::{Answer, shown};

/// The signer must be kubernetes.io/kubelet-serving or kubernetes.io/kube-apiserver-client-kubelet. Certificates of
/// other signers have other meanings (one of kube-apiserver-client can authenticate as any user). An approver without
/// this check approved all of them (deckhouse #22901).
pub fn signer(case: &Case<'_>) -> Outcome {
    let signer = &case.request.signer_name;
    if case.request.signer().is_some() {
        return Ok(());
    }
    Err(Answer::ignore(reasons::OTHER_SIGNER, format!("the request is for the signer {}", shown(signer))))
}

/// The CSR must have no verdict. A second verdict could contradict that of a user, and the API server rejects a second
/// condition of the same type.
pub fn open(case: &Case<'_>) -> Outcome {
    if !case.request.settled {
        return Ok(());
    }
    Err(Answer::ignore(
        reasons::ALREADY_SETTLED,
        "the request is approved, denied, failed, signed or being deleted".to_owned(),
    ))
}

/// The policy must enable the evaluation for this signer.
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

/// The CSR must be younger than the limit of the policy, by default one hour. The API server authenticates the
/// requester only at creation. An old CSR may come from a deleted node whose name now belongs to another one. By then
/// the kubelet has given up and created a new CSR. The controller-manager deletes a pending CSR after one day.
pub fn age(case: &Case<'_>) -> Outcome {
    let limit = case.facts.terms.wait_limit;
    let message = match case.request.created {
        Some(created) if case.now.duration_since(created) <= limit => return Ok(()),
        Some(_) => {
            let minutes = limit.as_mins();
            format!(
                "the CSR is older than {minutes} minutes (signingRequests.waitLimit); the kubelet has created another"
            )
        }
        None => "the request has no creation time".to_owned(),
    };
    Err(Answer::ignore(reasons::REQUEST_TOO_OLD, message))
}
