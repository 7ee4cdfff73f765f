//! The state of one cluster that is necessary to evaluate CSRs of its kubelets.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::{ApproverSpec, ClusterSpecSpec, NodePoolSpec};

use super::names::DnsName;
use super::pkcs10::{Pkcs10, San};
use super::quota::NodeQuota;
use super::{
    ApprovalFacts, Declaration, Declarations, Evaluation, NodeFacts, Nodes, Reserved, Resolved, Signer, SigningRequest,
    Terms, Verdict, evaluate,
};

/// Evaluates the CSRs of one cluster. The declarations are fixed; Nodes and approved CSRs change.
#[derive(Clone, Debug)]
pub struct Approver {
    declarations: Declarations,
    reserved: Reserved,
    terms: Terms,
    nodes: Nodes,
    /// Computed on demand, and discarded when the Nodes change.
    quota: OnceCell<NodeQuota>,
    /// The node names of approved client CSRs by CSR name. They count toward the quota before their Nodes exist.
    admitted: BTreeMap<String, String>,
}

impl Approver {
    /// Returns the approver for a target cluster. `pools` are the pools of this cluster by name.
    #[must_use]
    pub fn of_cluster(cluster: &ClusterSpecSpec, pools: &BTreeMap<String, NodePoolSpec>, terms: Terms) -> Self {
        let declarations = Declarations::of_cluster(cluster, pools);
        let reserved = Reserved::of_cluster(cluster, &declarations);
        Self::new(declarations, reserved, terms)
    }

    /// Returns the approver for the management cluster, with the declarations of the policy.
    #[must_use]
    pub fn of_policy(approver: &ApproverSpec, terms: Terms) -> Self {
        let declarations = Declarations::of_approver(approver);
        let reserved = Reserved::of_approver(approver, &declarations);
        Self::new(declarations, reserved, terms)
    }

    /// Returns the approver for a cluster without declarations. It denies invalid CSRs and approves none.
    #[must_use]
    pub fn of_unknown_cluster(terms: Terms) -> Self {
        let why = "the reserved names and addresses are unknown: there is neither a ClusterSpec nor a \
                   CertificatePolicy with spec.approver";
        Self::new(Declarations::default(), Reserved::unknown(why), terms)
    }

    fn new(declarations: Declarations, reserved: Reserved, terms: Terms) -> Self {
        Self {
            declarations,
            reserved,
            terms,
            nodes: Nodes::default(),
            quota: OnceCell::new(),
            admitted: BTreeMap::new(),
        }
    }

    /// Returns the parameters of the policy.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Returns the observed Nodes.
    #[must_use]
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Replaces all Nodes. Returns whether something changed.
    pub fn set_nodes(&mut self, nodes: impl IntoIterator<Item = NodeFacts>) -> bool {
        let nodes = nodes.into_iter().collect();
        let changed = self.nodes != nodes;
        self.nodes = nodes;
        self.quota.take();
        changed
    }

    /// Adds or updates a Node. Returns whether something changed.
    pub fn update_node(&mut self, node: NodeFacts) -> bool {
        let changed = self.nodes.put(node);
        if changed {
            self.quota.take();
        }
        changed
    }

    /// Removes a deleted Node. Returns whether the Node was known.
    pub fn remove_node(&mut self, name: &str) -> bool {
        let gone = self.nodes.remove(name);
        if gone {
            self.quota.take();
        }
        gone
    }

    /// Records the approval of a client CSR, whoever approved it.
    pub fn record_approval(&mut self, request: &SigningRequest) {
        if request.signer() == Some(Signer::KubeletClient)
            && let Some(node) = request.subject_node()
        {
            self.admitted.insert(request.name.clone(), node);
        }
    }

    /// Removes a deleted CSR. The controller-manager deletes approved CSRs after one hour. A node without a Node object
    /// by then no longer counts toward the quota.
    pub fn remove_request(&mut self, name: &str) {
        self.admitted.remove(name);
    }

    /// Keeps only the approved CSRs of a new list.
    pub fn retain_requests(&mut self, names: &BTreeSet<String>) {
        self.admitted.retain(|request, _| names.contains(request));
    }

    /// Returns the declaration for a node.
    #[must_use]
    pub fn declaration(&self, node: &str) -> Declaration {
        self.declarations.of(node, |index, max| {
            let quota = self.quota.get_or_init(|| NodeQuota::of(&self.declarations, &self.nodes));
            if let Some(own) = self.nodes.get(node) {
                // An existing Node does not wait for one that does not exist yet.
                return quota.is_within_quota(index, max, own);
            }
            // A node without a Node object comes after all existing Nodes and all approved client CSRs.
            let admitted = self.admitted.values().filter(|name| {
                *name != node && self.nodes.get(name).is_none() && self.declarations.counts_toward_quota(index, name)
            });
            let admitted: BTreeSet<&String> = admitted.collect();
            quota.wanted(index) + admitted.len() < max
        })
    }

    /// Evaluates a CSR with the current state.
    #[must_use]
    pub fn evaluate(&self, request: &SigningRequest, resolved: &Resolved, now: Timestamp) -> Evaluation {
        let node = request.subject_node().unwrap_or_default();
        let facts = ApprovalFacts {
            nodes: &self.nodes,
            declaration: &self.declaration(&node),
            reserved: &self.reserved,
            terms: &self.terms,
            pools: self.declarations.pools(),
            admitted: self.admitted.iter().any(|(name, admitted)| *admitted == node && *name != request.name),
            resolved,
        };
        evaluate(request, &facts, now)
    }

    /// Returns the DNS names that need a lookup before the verdict on the CSR is final. The list is empty unless the
    /// policy requires lookups and no other rule objects.
    #[must_use]
    pub fn unresolved(&self, request: &SigningRequest, evaluation: &Evaluation) -> Vec<DnsName> {
        if evaluation.verdict != Verdict::Wait || evaluation.rule != "forward-resolution" {
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
