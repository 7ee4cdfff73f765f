//! Who asks, and whether the request is about who asks.

use keyplane_crds::reasons;

use super::{Case, Outcome};
use crate::approval::verdict::{Answer, shown};

const NODES_GROUP: &str = "system:nodes";
const AUTHENTICATED_GROUP: &str = "system:authenticated";

/// The requester is a node: `system:node:` and a Node's name. The identity is that of the requester, never one that the
/// request claims: an approver that took the first DNS name for it gave any node the certificate of any other
/// (GHSA-87pw-5j2g-6376).
pub fn requester(case: &Case<'_>) -> Outcome {
    if case.request.node_name().is_some() {
        return Ok(());
    }
    let username = shown(&case.request.username);
    Err(Answer::deny(
        reasons::REQUESTER_NOT_A_NODE,
        format!("the requester {username} is not system:node:<name of a Node>"),
    ))
}

/// The requester is in the groups of nodes and of the authenticated. The guidance of the kubelet TLS bootstrapping page:
/// a username alone can be handed out by any authenticator, the group is what makes it a node.
pub fn groups(case: &Case<'_>) -> Outcome {
    in_groups(case, NODES_GROUP)
}

/// The requester is in this group and in that of the authenticated.
pub fn in_groups(case: &Case<'_>, group: &str) -> Outcome {
    for group in [group, AUTHENTICATED_GROUP] {
        if !case.request.groups.iter().any(|known| known == group) {
            return Err(Answer::deny(
                reasons::REQUESTER_NOT_IN_GROUP,
                format!("the requester is not in the group {group}"),
            ));
        }
    }
    Ok(())
}

/// The subject is one organization and one common name, in a part of the name each, as plain strings. A second
/// organization (`system:masters`) is what readers disagree about that keep one of several (talos trustd,
/// CVE-2022-36103; approver-policy VC-53794).
pub fn subject(case: &Case<'_>) -> Outcome {
    if case.pkcs10()?.identity().is_some() {
        return Ok(());
    }
    let message = "the subject must be exactly one O and one CN, apart from each other, as plain strings";
    Err(Answer::deny(reasons::SUBJECT_NOT_ALLOWED, message.to_owned()))
}

/// The organization is `system:nodes`. The signer asks for it too (`ValidateKubeletServingCSR`).
pub fn organization(case: &Case<'_>) -> Outcome {
    let (organization, _) = case.pkcs10()?.identity().ok_or(Answer::NotEvaluated)?;
    if organization == NODES_GROUP {
        return Ok(());
    }
    let message = format!("the subject's O is {}, not {NODES_GROUP}", shown(organization));
    Err(Answer::deny(reasons::ORGANIZATION_NOT_ALLOWED, message))
}

/// The common name is the requester's username. The API server compares the two since 1.31 (KEP-4872), the signer
/// doesn't; a cluster with the feature gate off would let a node ask in the name of another.
pub fn common_name(case: &Case<'_>) -> Outcome {
    let (_, common_name) = case.pkcs10()?.identity().ok_or(Answer::NotEvaluated)?;
    let username = &case.request.username;
    if common_name == username {
        return Ok(());
    }
    let message = format!("the subject's CN is {}, the requester is {}", shown(common_name), shown(username));
    Err(Answer::deny(reasons::COMMON_NAME_NOT_REQUESTER, message))
}
