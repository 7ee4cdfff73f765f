//! All that is known of one cluster when its kubelets' requests are judged.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{ApproverSpec, ClusterSpecSpec, NodePoolSpec};

use super::names::DnsName;
use super::pkcs10::{Pkcs10, San};
use super::seats::Seating;
use super::{
    Declaration, Declarations, Facts, Judgement, NodeFacts, Nodes, Reserved, Resolved, Signer, SigningRequest, Terms,
    Verdict, judge,
};

/// Judges the requests of one cluster. What a person has declared is fixed; Nodes and approved requests come and go.
#[derive(Clone, Debug)]
pub struct Approver {
    declarations: Declarations,
    reserved: Reserved,
    terms: Terms,
    nodes: Nodes,
    /// Found out when it is needed, and again once the Nodes have changed.
    seating: OnceCell<Seating>,
    /// Machines that have had a client certificate approved, by the request for it: they take seats before their Nodes
    /// are there.
    admitted: BTreeMap<String, String>,
}

impl Approver {
    /// For a target cluster. The pools must be those of this cluster, by name.
    #[must_use]
    pub fn of_cluster(cluster: &ClusterSpecSpec, pools: &BTreeMap<String, NodePoolSpec>, terms: Terms) -> Self {
        let declarations = Declarations::of_cluster(cluster, pools);
        let reserved = Reserved::of_cluster(cluster, &declarations);
        Self::new(declarations, reserved, terms)
    }

    /// For the cluster that Keyplane runs in, by the policy that says so.
    #[must_use]
    pub fn of_policy(approver: &ApproverSpec, terms: Terms) -> Self {
        let declarations = Declarations::of_approver(approver);
        let reserved = Reserved::of_approver(approver, &declarations);
        Self::new(declarations, reserved, terms)
    }

    /// For a cluster of which nothing is declared: what is wrong in itself is refused, and nothing is approved.
    #[must_use]
    pub fn of_unknown_cluster(terms: Terms) -> Self {
        let why = "what no node may have is not known: there is neither a ClusterSpec nor a CertificatePolicy with \
                   spec.approver";
        Self::new(Declarations::default(), Reserved::unknown(why), terms)
    }

    fn new(declarations: Declarations, reserved: Reserved, terms: Terms) -> Self {
        Self {
            declarations,
            reserved,
            terms,
            nodes: Nodes::default(),
            seating: OnceCell::new(),
            admitted: BTreeMap::new(),
        }
    }

    /// What the policy says.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The Nodes.
    #[must_use]
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Takes in all Nodes at once, in place of those that were known. Tells whether that is anything new.
    pub fn set_nodes(&mut self, nodes: impl IntoIterator<Item = NodeFacts>) -> bool {
        let nodes = nodes.into_iter().collect();
        let changed = self.nodes != nodes;
        self.nodes = nodes;
        self.seating.take();
        changed
    }

    /// Takes in a Node. Tells whether that is anything new.
    pub fn node_seen(&mut self, node: NodeFacts) -> bool {
        let changed = self.nodes.put(node);
        if changed {
            self.seating.take();
        }
        changed
    }

    /// Forgets a Node that is gone. Tells whether it was there.
    pub fn node_gone(&mut self, name: &str) -> bool {
        let gone = self.nodes.remove(name);
        if gone {
            self.seating.take();
        }
        gone
    }

    /// Keeps in mind that a client certificate was approved, by whomever.
    pub fn approved(&mut self, request: &SigningRequest) {
        if request.signer() == Some(Signer::KubeletClient)
            && let Some(node) = request.subject_node()
        {
            self.admitted.insert(request.name.clone(), node);
        }
    }

    /// Forgets a request that is gone: the controller-manager removes approved ones after an hour. A machine that has made
    /// no Node by then has lost its seat.
    pub fn request_gone(&mut self, name: &str) {
        self.admitted.remove(name);
    }

    /// Forgets approved requests that a new list does not have.
    pub fn retain_requests(&mut self, names: &BTreeSet<String>) {
        self.admitted.retain(|request, _| names.contains(request));
    }

    /// What is declared about a node.
    #[must_use]
    pub fn declaration(&self, node: &str) -> Declaration {
        self.declarations.of(node, |index, max| {
            let seating = self.seating.get_or_init(|| Seating::of(&self.declarations, &self.nodes));
            if let Some(own) = self.nodes.get(node) {
                // A machine that is there does not wait for one that is not.
                return seating.has_seat(index, max, own);
            }
            // Who has no Node yet comes after all who have, and after those who were let in.
            let admitted = self.admitted.values().filter(|name| {
                *name != node && self.nodes.get(name).is_none() && self.declarations.is_seated(index, name)
            });
            let admitted: BTreeSet<&String> = admitted.collect();
            seating.wanted(index) + admitted.len() < max
        })
    }

    /// Judges a request by all that is known.
    #[must_use]
    pub fn judge(&self, request: &SigningRequest, resolved: &Resolved, now: Timestamp) -> Judgement {
        let node = request.subject_node().unwrap_or_default();
        let facts = Facts {
            nodes: &self.nodes,
            declaration: &self.declaration(&node),
            reserved: &self.reserved,
            terms: &self.terms,
            pools: self.declarations.pools(),
            admitted: self.admitted.iter().any(|(name, admitted)| *admitted == node && *name != request.name),
            resolved,
        };
        judge(request, &facts, now)
    }

    /// The DNS names that have to be looked up before the request can be judged to its end: none unless the policy wants
    /// it, and only where nothing else is in the way.
    #[must_use]
    pub fn unresolved(&self, request: &SigningRequest, judgement: &Judgement) -> Vec<DnsName> {
        if judgement.verdict != Verdict::Wait || judgement.rule != "forward-resolution" {
            return vec![];
        }
        let Ok(pkcs10) = Pkcs10::skim(&request.request) else { return vec![] };
        let names = pkcs10.sans.iter().filter_map(|san| match san {
            San::Dns(name) => DnsName::parse(name).ok(),
            _ => None,
        });
        names.collect()
    }
}
