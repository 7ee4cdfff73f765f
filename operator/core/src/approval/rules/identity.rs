//! Rules about the identity of the requester, and the subject of the request.

use keyplane_crds::reasons;

use super::{Case, Outcome};
use crate::approval::verdict::{Answer, shown};

const NODES_GROUP: &str = "system:nodes";
const AUTHENTICATED_GROUP: &str = "system:authenticated";

/// The requester must be a node: `system:node:<name of the Node>`. The identity is that of the requester, never one
/// from the content of the request. An approver that used the first DNS name as identity gave any node the certificate
/// of any other node (GHSA-87pw-5j2g-6376).
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

/// The requester must be in the groups of nodes and of authenticated users, as the kubelet TLS bootstrapping page
/// recommends. Any authenticator can issue a username, and only the group identifies a node.
pub fn groups(case: &Case<'_>) -> Outcome {
    in_groups(case, NODES_GROUP)
}

/// The requester must be in the given group and in that of authenticated users.
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

/// The subject must be one organization and one common name, each in its own relative distinguished name and as a plain
/// string. With a second organization (`system:masters`), parsers that keep only one of them disagree (talos trustd,
/// CVE-2022-36103; approver-policy VC-53794).
pub fn subject(case: &Case<'_>) -> Outcome {
    if case.pkcs10()?.identity().is_some() {
        return Ok(());
    }
    let message = "the subject must be exactly one O and one CN, apart from each other, as plain strings";
    Err(Answer::deny(reasons::SUBJECT_NOT_ALLOWED, message.to_owned()))
}

/// The organization must be `system:nodes`. The signer requires this too (`ValidateKubeletServingCSR`).
pub fn organization(case: &Case<'_>) -> Outcome {
    let (organization, _) = case.pkcs10()?.identity().ok_or(Answer::NotEvaluated)?;
    if organization == NODES_GROUP {
        return Ok(());
    }
    let message = format!("the subject's O is {}, not {NODES_GROUP}", shown(organization));
    Err(Answer::deny(reasons::ORGANIZATION_NOT_ALLOWED, message))
}

/// The common name must be the username of the requester. The API server compares the two since 1.31 (KEP-4872), and
/// the signer does not. In a cluster with the feature gate off, a node could request a certificate for another node.
pub fn common_name(case: &Case<'_>) -> Outcome {
    let (_, common_name) = case.pkcs10()?.identity().ok_or(Answer::NotEvaluated)?;
    let username = &case.request.username;
    if common_name == username {
        return Ok(());
    }
    let message = format!("the subject's CN is {}, the requester is {}", shown(common_name), shown(username));
    Err(Answer::deny(reasons::COMMON_NAME_NOT_REQUESTER, message))
}
