//! Rules about the declaration of the node, and the owner of the IP addresses.

use super::{Case, Outcome};
use crate::approval::declaration::{Claim, Declaration};
use crate::approval::nodes::NodeFacts;
use crate::approval::reserved::AddressReservation;
use crate::approval::verdict::{Answer, shown};
use keyplane_crds::{UndeclaredAddress, reasons};

impl<'a> Case<'a> {
    /// Returns the Node, if it exists and has addresses. Rule `node` objects otherwise.
    pub(super) fn node_facts(&self) -> Result<&'a NodeFacts, Answer> {
        let name = self.node_name()?;
        let facts = self.facts.nodes.get(name).ok_or(Answer::NotEvaluated)?;
        if facts.names.is_empty() && facts.addresses.is_empty() {
            return Err(Answer::NotEvaluated);
        }
        Ok(facts)
    }

    /// Returns the declaration of the node, if it exists and is valid. Rule `declared` objects otherwise.
    pub(super) fn declaration(&self) -> Result<&'a Declaration, Answer> {
        let name = self.node_name()?;
        let declaration = self.facts.declaration;
        if declaration.node() == name && declaration.is_declared() && declaration.unreadable().is_empty() {
            Ok(declaration)
        } else {
            Err(Answer::NotEvaluated)
        }
    }
}

/// All reserved ranges must be valid. Admission ensures that. If a range is invalid nevertheless, this waits, because
/// the address may belong to a Service.
pub fn reserved_ranges(case: &Case<'_>) -> Outcome {
    match case.facts.reserved.unreadable() {
        [] => Ok(()),
        [problem, ..] => Err(Answer::wait(reasons::RESERVED_UNKNOWN, cut(problem))),
    }
}

/// No address may be special, or belong to a Service, a Pod, the API endpoint or another node, whatever the
/// declarations say.
///
/// Two cases wait, because they are temporary: an address that is listed for this node and for another one (a move in
/// progress), and an address in the range of a selector that another Node reports (a deleted machine whose Node object
/// still exists). An address that is listed for this node is approved even if another Node reports it; otherwise any
/// node could block any other node with its own status.
pub fn reserved(case: &Case<'_>) -> Outcome {
    let node = case.node_name()?;
    let declaration = case.facts.declaration;
    let mut outcome = Ok(());
    for address in case.addresses()? {
        let Some(reservation) = case.facts.reserved.address(case.facts.nodes, node, &address) else { continue };
        let listed = declaration.node() == node && declaration.claim(&address) == Some(Claim::Listed);
        let message = format!("the IP address {address} is {reservation}");
        let objection = match reservation {
            AddressReservation::Listed(_) if listed => Answer::wait(
                reasons::ADDRESS_DECLARED_TWICE,
                format!("{message} and for this node; remove one of the declarations"),
            ),
            AddressReservation::Reported(_) if listed => continue,
            AddressReservation::Reported(_) => Answer::wait(reasons::ADDRESS_IN_USE, message),
            AddressReservation::Listed(_) => return Err(Answer::deny(reasons::ANOTHER_NODES_ADDRESS, message)),
            _ => return Err(Answer::deny(reasons::RESERVED_ADDRESS, message)),
        };
        // A waiting address must not hide an address that is denied.
        outcome = outcome.and(Err(objection));
    }
    outcome
}

/// The `ClusterSpec` or a `NodePool` must declare the node. The declaration may arrive after the node, because tools
/// apply the objects of a Git repository in any order, so this waits.
pub fn node_declared(case: &Case<'_>) -> Outcome {
    let node = case.node_name()?;
    let declaration = case.facts.declaration;
    if declaration.node() != node || !declaration.is_declared() {
        let message = format!(
            "no declaration of the node {} exists; list the node in a NodePool of its cluster, or for the management \
             cluster in spec.approver of the CertificatePolicy",
            shown(node)
        );
        return Err(Answer::wait(reasons::NODE_NOT_DECLARED, message));
    }
    match declaration.unreadable() {
        [] => Ok(()),
        [problem, ..] => Err(Answer::wait(reasons::NODE_POOL_UNREADABLE, cut(problem))),
    }
}

/// Each address must be declared for the node; the policy decides whether an undeclared address waits. The status of
/// the Node is not sufficient. Without an external cloud provider the kubelet writes the status freely, which is why
/// in-tree approval was removed (kubernetes #62471).
pub fn declared(case: &Case<'_>) -> Outcome {
    let declaration = case.declaration()?;
    for address in case.addresses()? {
        if declaration.claim(&address).is_none() {
            let node = shown(declaration.node());
            let message = format!("the IP address {address} is not declared for {node}; list it in its NodePool");
            return Err(match case.facts.terms.undeclared_address {
                UndeclaredAddress::Deny => Answer::deny(reasons::ADDRESS_NOT_DECLARED, message),
                UndeclaredAddress::Wait => Answer::wait(reasons::ADDRESS_NOT_DECLARED, message),
            });
        }
    }
    Ok(())
}

/// The Node must exist and have addresses. Both may arrive after the first CSR of a kubelet, so this waits.
pub fn node(case: &Case<'_>) -> Outcome {
    let name = case.node_name()?;
    if case.facts.nodes.get(name).is_none() {
        return Err(Answer::wait(reasons::NODE_NOT_FOUND, format!("Node {} does not exist yet", shown(name))));
    }
    match case.node_facts() {
        Ok(_) => Ok(()),
        Err(_) => {
            Err(Answer::wait(reasons::NODE_HAS_NO_ADDRESSES, format!("Node {} has no addresses yet", shown(name))))
        }
    }
}

/// The node must be within the quota (`maxNodes`) of a matching selector; the oldest Nodes come first. The quota limits
/// the damage of a leaked bootstrap token. A deleted Node frees quota, so this waits.
pub fn max_nodes(case: &Case<'_>) -> Outcome {
    let declaration = case.declaration()?;
    // For a token, only the quota of its own pool counts.
    let pool = case.token_pool();
    let mut quotas =
        declaration.quotas().iter().filter(|quota| pool.is_none() || quota.pool.as_deref() == pool).peekable();
    let Some(first) = quotas.peek().copied() else { return Ok(()) };
    if quotas.any(|quota| quota.has_capacity) {
        return Ok(());
    }
    let max = first.max_nodes.unwrap_or_default();
    let message = format!("{} has reached maxNodes ({max}); raise maxNodes or delete a Node", first.source);
    Err(Answer::wait(reasons::MAX_NODES_REACHED, message))
}

/// Shortens a message with text of others to the limit of an Event.
fn cut(text: &str) -> String {
    const MAX_CHARS: usize = 300;
    text.chars().filter(|letter| !letter.is_control()).take(MAX_CHARS).collect()
}

/// Each address must be in the status of the Node. The address may arrive later (from a cloud controller, or with a
/// second network), so this waits.
pub fn reported(case: &Case<'_>) -> Outcome {
    let facts = case.node_facts()?;
    for address in case.addresses()? {
        if !facts.addresses.contains(&address) {
            let message = format!("the IP address {address} is not in the Node's status");
            return Err(Answer::wait(reasons::ADDRESS_NOT_REPORTED, message));
        }
    }
    Ok(())
}
