//! Whether the node that asks is known, and whose the IP addresses are.

use super::{Case, Outcome};
use crate::approval::declaration::{Claim, Declaration};
use crate::approval::nodes::NodeFacts;
use crate::approval::reserved::AddressReservation;
use crate::approval::verdict::{Answer, shown};
use keyplane_crds::{UndeclaredAddress, reasons};

impl<'a> Case<'a> {
    /// The Node, if it is there and has said anything. `node` objects otherwise.
    pub(super) fn node_facts(&self) -> Result<&'a NodeFacts, Answer> {
        let name = self.node_name()?;
        let facts = self.facts.nodes.get(name).ok_or(Answer::NotEvaluated)?;
        if facts.names.is_empty() && facts.addresses.is_empty() {
            return Err(Answer::NotEvaluated);
        }
        Ok(facts)
    }

    /// What is declared about the node, if anything is and it can be read. `declared` objects otherwise.
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

/// What is reserved is known: the ranges of the cluster's networks can be read. Admission sees to it; if it did not, this
/// waits rather than approves what may be a Service's address.
pub fn reserved_ranges(case: &Case<'_>) -> Outcome {
    match case.facts.reserved.unreadable() {
        [] => Ok(()),
        [problem, ..] => Err(Answer::wait(reasons::RESERVED_UNKNOWN, cut(problem))),
    }
}

/// No address is special, a Service's or Pod's, the API endpoint's, or another machine's, whoever claims it.
///
/// Two cases wait, as they go away: an address that is listed for this node and for another (a move of which half is
/// written), and one in a selector's range that another Node reports (a machine that is gone, whose Node isn't yet).
/// An address that is listed for this node is not lost to another Node that reports it: else any node could stop any
/// other by its own status.
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
                format!("{message} and for this node: take it out of one"),
            ),
            AddressReservation::Reported(_) if listed => continue,
            AddressReservation::Reported(_) => Answer::wait(reasons::ADDRESS_IN_USE, message),
            AddressReservation::Listed(_) => return Err(Answer::deny(reasons::ANOTHER_NODES_ADDRESS, message)),
            _ => return Err(Answer::deny(reasons::RESERVED_ADDRESS, message)),
        };
        // What waits must not hide an address that denies.
        outcome = outcome.and(Err(objection));
    }
    outcome
}

/// The `ClusterSpec` or a `NodePool` declares the node. The declaration may come after the machine, as the objects of a
/// Git repository are applied in no order, so this waits.
pub fn node_declared(case: &Case<'_>) -> Outcome {
    let node = case.node_name()?;
    let declaration = case.facts.declaration;
    if declaration.node() != node || !declaration.is_declared() {
        let message = format!(
            "nothing declares the node {}: list it in a NodePool of its cluster, or, for the cluster that Keyplane runs in, in spec.approver of the CertificatePolicy",
            shown(node)
        );
        return Err(Answer::wait(reasons::NODE_NOT_DECLARED, message));
    }
    match declaration.unreadable() {
        [] => Ok(()),
        [problem, ..] => Err(Answer::wait(reasons::NODE_POOL_UNREADABLE, cut(problem))),
    }
}

/// Each address is declared for the node; the policy says whether one that is not may still come. A Node's status can't take the place of this: without an external cloud
/// provider a kubelet writes it as it likes, which is why in-tree approval was taken out (kubernetes #62471).
pub fn declared(case: &Case<'_>) -> Outcome {
    let declaration = case.declaration()?;
    for address in case.addresses()? {
        if declaration.claim(&address).is_none() {
            let node = shown(declaration.node());
            let message = format!("the IP address {address} is not declared for {node}: list it in its NodePool");
            return Err(match case.facts.terms.undeclared_address {
                UndeclaredAddress::Deny => Answer::deny(reasons::ADDRESS_NOT_DECLARED, message),
                UndeclaredAddress::Wait => Answer::wait(reasons::ADDRESS_NOT_DECLARED, message),
            });
        }
    }
    Ok(())
}

/// The Node is there and has addresses. Both come after the first request of a kubelet, so this waits.
pub fn node(case: &Case<'_>) -> Outcome {
    let name = case.node_name()?;
    if case.facts.nodes.get(name).is_none() {
        return Err(Answer::wait(reasons::NODE_NOT_FOUND, format!("there is no Node {} yet", shown(name))));
    }
    match case.node_facts() {
        Ok(_) => Ok(()),
        Err(_) => {
            Err(Answer::wait(reasons::NODE_HAS_NO_ADDRESSES, format!("the Node {} has no addresses yet", shown(name))))
        }
    }
}

/// The selector that matches the node's name has room for it, where it has a limit; the oldest Nodes come first. It bounds
/// what one leaked bootstrap token is good for. A Node that is deleted makes room, so this waits.
pub fn max_nodes(case: &Case<'_>) -> Outcome {
    let declaration = case.declaration()?;
    // A token is good for its own pool's seats.
    let pool = case.token_pool();
    let mut seats =
        declaration.seats().iter().filter(|seats| pool.is_none() || seats.pool.as_deref() == pool).peekable();
    let Some(first) = seats.peek().copied() else { return Ok(()) };
    if seats.any(|seats| seats.has_room) {
        return Ok(());
    }
    let max = first.max_nodes.unwrap_or_default();
    let message =
        format!("{} lets in {max} nodes, and there are as many: raise maxNodes or delete a Node", first.source);
    Err(Answer::wait(reasons::MAX_NODES_REACHED, message))
}

/// A sentence that has text of others in it, short enough for an Event.
fn cut(text: &str) -> String {
    const MAX_CHARS: usize = 300;
    text.chars().filter(|letter| !letter.is_control()).take(MAX_CHARS).collect()
}

/// Each address is in the Node's status. It may come later (a cloud controller, a second network), so this waits.
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
