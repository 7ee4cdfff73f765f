//! What is asked of requests for client certificates alone: the one with which a machine joins, made with a bootstrap
//! token, and those with which a kubelet renews its own.
//!
//! A kubelet's client certificate is the node: it reads the Secrets of the Pods that run there. The controller-manager's
//! own approver looks at the form of a request and at RBAC only, so any bootstrap token is good for any node's name.

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

    /// The one pool of the requester's token; nothing for a node. `token-pool` objects to tokens without one.
    pub(super) fn token_pool(&self) -> Option<&'a str> {
        let mut pools = self.request.token_pools().filter(|_| self.is_bootstrap());
        match (pools.next(), pools.next()) {
            (Some(pool), None) => Some(pool),
            _ => None,
        }
    }
}

/// The requester is a node, or somebody with a bootstrap token. Nobody else is ever a kubelet: a person's credential that
/// may make requests is not one that may become a node.
pub fn requester(case: &Case<'_>) -> Outcome {
    if case.request.requester().is_some() {
        return Ok(());
    }
    let username = shown(&case.request.username);
    let message = format!("the requester {username} is neither system:node:<name> nor system:bootstrap:<token ID>");
    Err(Answer::deny(reasons::REQUESTER_NOT_A_NODE, message))
}

/// The requester is in the groups of what its username says that it is: the API server gives these to nodes and to
/// bootstrap tokens, and a username alone can be handed out by any authenticator.
pub fn groups(case: &Case<'_>) -> Outcome {
    if case.is_bootstrap() { identity::in_groups(case, BOOTSTRAPPERS_GROUP) } else { identity::groups(case) }
}

/// The request has no attributes, so no names and no other extensions: what a kubelet sends. The signer refuses names
/// too (`ValidateKubeletClientCSR`).
pub fn no_names(case: &Case<'_>) -> Outcome {
    if case.pkcs10()?.attributes.is_empty() {
        return Ok(());
    }
    let message = "the request asks for names or other extensions; a kubelet's client certificate has none";
    Err(Answer::deny(reasons::EXTENSION_NOT_ALLOWED, message.to_owned()))
}

/// A node asks in its own name; a bootstrap token asks in the name of a node.
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

/// The node's name is none that no node may have: a serving certificate with it could never be approved, and a person who
/// reads `kubernetes` in a list of Nodes is misled.
pub fn reserved_name(case: &Case<'_>) -> Outcome {
    let node = case.node_name()?;
    // Some clouds call their Nodes by an address, which is nobody's DNS name.
    let Ok(name) = DnsName::parse(node) else { return Ok(()) };
    match case.facts.reserved.name(case.facts.nodes, node, &name) {
        None => Ok(()),
        Some(reservation) => {
            Err(Answer::deny(reasons::RESERVED_NAME, format!("the node's name {} is {reservation}", shown(node))))
        }
    }
}

/// A bootstrap token has the group of one NodePool of this cluster. The NodePool may be applied after the token was made,
/// so a name that is not known waits; a token of no pool, or of several, never comes right.
pub fn token_pool(case: &Case<'_>) -> Outcome {
    if !case.is_bootstrap() {
        return Ok(());
    }
    let Some(pool) = case.token_pool() else {
        let message =
            "the token must be of one NodePool: one group system:bootstrappers:keyplane:<name of the NodePool>";
        return Err(Answer::deny(reasons::TOKEN_NOT_OF_ONE_POOL, message.to_owned()));
    };
    if case.facts.pools.contains(pool) {
        return Ok(());
    }
    Err(Answer::wait(reasons::NODE_POOL_NOT_FOUND, format!("there is no NodePool {} of this cluster yet", shown(pool))))
}

/// The pool of the token is one that declares the node. With a token of one pool nobody becomes a machine of another,
/// least of all one of the control plane.
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

/// For a renewal the Node is there. For a bootstrap it is not, and no other request for its name was approved: else who
/// holds a token of the pool could become a machine that runs already. Both may change, so this waits.
pub fn node(case: &Case<'_>) -> Outcome {
    let name = case.node_name()?;
    let exists = case.facts.nodes.get(name).is_some();
    if !case.is_bootstrap() {
        return if exists {
            Ok(())
        } else {
            Err(Answer::wait(reasons::NODE_NOT_FOUND, format!("there is no Node {} yet", shown(name))))
        };
    }
    if case.facts.terms.existing_node == ExistingNode::Approve {
        return Ok(());
    }
    if exists {
        let message = format!("there is a Node {} already: delete it if the machine was installed anew", shown(name));
        return Err(Answer::wait(reasons::NODE_EXISTS, message));
    }
    if case.facts.admitted {
        let message = format!("another request for {} was approved, and its Node is not there yet", shown(name));
        return Err(Answer::wait(reasons::NODE_ALREADY_ADMITTED, message));
    }
    Ok(())
}
