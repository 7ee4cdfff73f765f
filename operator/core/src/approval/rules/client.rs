//! Rules for client certificates only: the first one of a node, requested with a bootstrap token, and renewals by the
//! kubelet.
//!
//! A client certificate of a kubelet is the identity of the node, which can read the Secrets of its Pods. The approver
//! of the controller-manager checks only the form of the CSR and RBAC, so any bootstrap token can request any node
//! name.

use keyplane_crds::{ExistingNode, reasons};

use super::{Case, Outcome, identity};
use crate::approval::names::DnsName;
use crate::approval::request::{Requester, node_of_subject};
use crate::approval::verdict::{Answer, shown};

const BOOTSTRAPPERS_GROUP: &str = "system:bootstrappers";

impl<'a> Case<'a> {
    fn is_bootstrap(&self) -> bool {
        self.request.requester() == Some(Requester::Token)
    }

    /// Returns the only pool of the token, or `None` for a node. Rule `token-pool` objects to tokens without exactly
    /// one pool.
    pub(super) fn token_pool(&self) -> Option<&'a str> {
        let mut pools = self.request.token_pools().filter(|_| self.is_bootstrap());
        match (pools.next(), pools.next()) {
            (Some(pool), None) => Some(pool),
            _ => None,
        }
    }
}

/// The requester must be a node or a bootstrap token. No other user can become a node, even with permission to create
/// CSRs.
pub fn requester(case: &Case<'_>) -> Outcome {
    if case.request.requester().is_some() {
        return Ok(());
    }
    let username = shown(&case.request.username);
    let message = format!("the requester {username} is neither system:node:<name> nor system:bootstrap:<token ID>");
    Err(Answer::deny(reasons::REQUESTER_NOT_A_NODE, message))
}

/// The requester must be in the groups that match its username. The API server assigns these groups to nodes and
/// bootstrap tokens, and any authenticator can issue a username alone.
pub fn groups(case: &Case<'_>) -> Outcome {
    if case.is_bootstrap() { identity::in_groups(case, BOOTSTRAPPERS_GROUP) } else { identity::groups(case) }
}

/// The request must have no attributes, so neither names nor other extensions, as in a kubelet CSR. The signer rejects
/// names too (`ValidateKubeletClientCSR`).
pub fn no_names(case: &Case<'_>) -> Outcome {
    if case.pkcs10()?.attributes.is_empty() {
        return Ok(());
    }
    let message = "the request has names or other extensions; a kubelet's client certificate has none";
    Err(Answer::deny(reasons::EXTENSION_NOT_ALLOWED, message.to_owned()))
}

/// A node must request a certificate for itself; a bootstrap token must request one for a node.
pub fn common_name(case: &Case<'_>) -> Outcome {
    if !case.is_bootstrap() {
        return identity::common_name(case);
    }
    let pkcs10 = case.pkcs10()?;
    let (_, common_name) = pkcs10.identity().ok_or(Answer::NotEvaluated)?;
    if node_of_subject(pkcs10).is_some() {
        return Ok(());
    }
    let message = format!("the subject's CN is {}, not system:node:<name of a Node>", shown(common_name));
    Err(Answer::deny(reasons::COMMON_NAME_NOT_A_NODE, message))
}

/// The node name must not be reserved. A serving certificate with a reserved name could never be approved, and
/// `kubernetes` in a list of Nodes is misleading.
pub fn reserved_name(case: &Case<'_>) -> Outcome {
    let node = case.node_name()?;
    // Some clouds use an address as the name of a Node. An address is not a DNS name.
    let Ok(name) = DnsName::parse(node) else { return Ok(()) };
    match case.facts.reserved.name(case.facts.nodes, node, &name) {
        None => Ok(()),
        Some(reservation) => {
            Err(Answer::deny(reasons::RESERVED_NAME, format!("the node's name {} is {reservation}", shown(node))))
        }
    }
}

/// The bootstrap token must have the group of exactly one NodePool of this cluster. The NodePool may be created after
/// the token, so an unknown name waits. A token of no pool, or of several, is denied.
pub fn token_pool(case: &Case<'_>) -> Outcome {
    if !case.is_bootstrap() {
        return Ok(());
    }
    let Some(pool) = case.token_pool() else {
        let message =
            "the token must belong to one NodePool: one group system:bootstrappers:keyplane:<name of the NodePool>";
        return Err(Answer::deny(reasons::TOKEN_NOT_OF_ONE_POOL, message.to_owned()));
    };
    if case.facts.pools.contains(pool) {
        return Ok(());
    }
    Err(Answer::wait(
        reasons::NODE_POOL_NOT_FOUND,
        format!("NodePool {} of this cluster does not exist yet", shown(pool)),
    ))
}

/// The pool of the token must declare the node. With a token of one pool, no machine can join as a node of another pool
/// or of the control plane.
pub fn declared_by_pool(case: &Case<'_>) -> Outcome {
    let node = case.node_name()?;
    if !case.is_bootstrap() {
        return Ok(());
    }
    let pool = case.token_pool().ok_or(Answer::NotEvaluated)?;
    if !case.facts.pools.contains(pool) {
        return Err(Answer::NotEvaluated);
    }
    let declaration = case.declaration()?;
    if declaration.pools().contains(pool) {
        return Ok(());
    }
    let message =
        format!("the node {} is declared, but not by {}, the NodePool of the token", shown(node), shown(pool));
    Err(Answer::deny(reasons::ANOTHER_POOLS_NODE, message))
}

/// For a renewal, the Node must exist. For a bootstrap, the Node must not exist, and no other client CSR for its name
/// may be approved. Otherwise the holder of a token of the pool could impersonate a running node. Both may change, so
/// this waits.
pub fn node(case: &Case<'_>) -> Outcome {
    let name = case.node_name()?;
    let exists = case.facts.nodes.get(name).is_some();
    if !case.is_bootstrap() {
        return if exists {
            Ok(())
        } else {
            Err(Answer::wait(reasons::NODE_NOT_FOUND, format!("Node {} does not exist yet", shown(name))))
        };
    }
    if case.facts.terms.existing_node == ExistingNode::Approve {
        return Ok(());
    }
    if exists {
        let message = format!("Node {} already exists; delete the Node if the machine was reinstalled", shown(name));
        return Err(Answer::wait(reasons::NODE_EXISTS, message));
    }
    if case.facts.admitted {
        let message = format!("another CSR for {} is approved, and the Node does not exist yet", shown(name));
        return Err(Answer::wait(reasons::NODE_ALREADY_ADMITTED, message));
    }
    Ok(())
}
