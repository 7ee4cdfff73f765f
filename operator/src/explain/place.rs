//! The objects that decide on a request: a ClusterSpec with its pools and policy, or the policy of the management
//! cluster.

use std::collections::BTreeMap;

use keyplane_crds::{CertificatePolicy, CertificatePolicySpec, ClusterSpec, NodePool, NodePoolSpec};
use kube::ResourceExt;

use super::ExplainError;
use super::documents::Documents;
use keyplane_core::approval::{Approver, NodeFacts, SigningRequest, Terms};

/// kubectl's default namespace for an object without one.
const DEFAULT_NAMESPACE: &str = "default";

/// The approver that decides on a request.
pub(super) struct Place {
    /// Name in the output.
    pub(super) name: String,
    pub(super) approver: Approver,
}

/// Chooses the approver among the objects of the files: the one that declares the node, if there is more than one.
pub(super) fn choose(documents: &Documents, request: &SigningRequest) -> Result<Place, ExplainError> {
    let mut places = vec![];
    for cluster in &documents.clusters {
        let policy = policy_of(cluster, &documents.policies)?;
        places.push(of_cluster(cluster, &documents.pools, policy)?);
    }
    for policy in documents.policies.iter().filter(|policy| policy.spec.approver.is_some()) {
        places.extend(of_policy(policy)?);
    }
    let place = match places.len() {
        0 => unknown(documents)?,
        1 => places.remove(0),
        _ => declaring(places, request)?,
    };
    Ok(place.with_nodes(documents.nodes.iter().map(NodeFacts::from)))
}

fn declaring(places: Vec<Place>, request: &SigningRequest) -> Result<Place, ExplainError> {
    let names: Vec<String> = places.iter().map(|place| place.name.clone()).collect();
    let Some(node) = request.subject_node() else {
        let message = format!(
            "the request has no node name, so more than one of these objects could decide on it: {}; pass only one of them",
            names.join(", ")
        );
        return Err(ExplainError::Place(message));
    };
    let mut declaring: Vec<Place> =
        places.into_iter().filter(|place| place.approver.declaration(&node).is_declared()).collect();
    match declaring.len() {
        1 => Ok(declaring.remove(0)),
        0 => {
            let message =
                format!("none of these objects declares the node {node}: {}; pass only one of them", names.join(", "));
            Err(ExplainError::Place(message))
        }
        _ => {
            let names: Vec<&str> = declaring.iter().map(|place| place.name.as_str()).collect();
            let message = format!(
                "more than one of these objects declares the node {node}: {}; pass only one of them",
                names.join(", ")
            );
            Err(ExplainError::Place(message))
        }
    }
}

/// Returns the policy that a ClusterSpec refers to. Without a reference, the only policy of the files applies, or else
/// the defaults.
fn policy_of<'a>(
    cluster: &ClusterSpec,
    policies: &'a [CertificatePolicy],
) -> Result<Option<&'a CertificatePolicy>, ExplainError> {
    let Some(reference) = &cluster.spec.certificate_policy_ref else {
        return Ok(match policies {
            [policy] if policy.spec.approver.is_none() => Some(policy),
            _ => None,
        });
    };
    let namespace = namespace_of(cluster);
    let found =
        policies.iter().find(|policy| policy.name_any() == reference.name && namespace_of(*policy) == namespace);
    found.map(Some).ok_or_else(|| {
        ExplainError::Place(format!(
            "ClusterSpec {}: spec.certificatePolicyRef: the files have no CertificatePolicy {} in the namespace \
             {namespace}: add it with -f, or remove the reference",
            cluster.name_any(),
            reference.name
        ))
    })
}

/// Creates the approver of a target cluster.
pub(super) fn of_cluster(
    cluster: &ClusterSpec,
    pools: &[NodePool],
    policy: Option<&CertificatePolicy>,
) -> Result<Place, ExplainError> {
    let (name, namespace) = (cluster.name_any(), namespace_of(cluster));
    let ours = pools.iter().filter(|pool| pool.spec.cluster_ref.name == name && namespace_of(*pool) == namespace);
    let pools: BTreeMap<String, NodePoolSpec> = ours.map(|pool| (pool.name_any(), pool.spec.clone())).collect();
    let by = policy.map_or_else(|| "the default policy".to_owned(), describe_policy);
    Ok(Place {
        name: format!("ClusterSpec {namespace}/{name}, {by}"),
        approver: Approver::of_cluster(&cluster.spec, &pools, terms(policy)?),
    })
}

/// Creates the approver of the management cluster, if the policy has `spec.approver`.
pub(super) fn of_policy(policy: &CertificatePolicy) -> Result<Option<Place>, ExplainError> {
    let Some(approver) = &policy.spec.approver else { return Ok(None) };
    let approver = Approver::of_policy(approver, terms(Some(policy))?);
    Ok(Some(Place { name: describe_policy(policy), approver }))
}

/// Creates the approver of a cluster without declarations.
fn unknown(documents: &Documents) -> Result<Place, ExplainError> {
    let policy = match documents.policies.as_slice() {
        [policy] => Some(policy),
        _ => None,
    };
    Ok(Place {
        name: "no ClusterSpec and no CertificatePolicy with spec.approver".to_owned(),
        approver: Approver::of_unknown_cluster(terms(policy)?),
    })
}

impl Place {
    /// Creates the approver of a cluster for which no policy was found.
    pub(super) fn nowhere(name: String) -> Self {
        Self { name, approver: Approver::of_unknown_cluster(Terms::default()) }
    }

    pub(super) fn with_approved(mut self, requests: impl Iterator<Item = SigningRequest>) -> Self {
        for request in requests {
            self.approver.record_approval(&request);
        }
        self
    }

    pub(super) fn with_nodes(mut self, nodes: impl Iterator<Item = NodeFacts>) -> Self {
        self.approver.set_nodes(nodes);
        self
    }
}

fn terms(policy: Option<&CertificatePolicy>) -> Result<Terms, ExplainError> {
    let default = CertificatePolicySpec::default();
    Terms::parse(policy.map_or(&default, |policy| &policy.spec)).map_err(|error| {
        let name = policy.map(ResourceExt::name_any).unwrap_or_default();
        ExplainError::Place(format!("CertificatePolicy {name}: {error}"))
    })
}

fn describe_policy(policy: &CertificatePolicy) -> String {
    format!("CertificatePolicy {}/{}", namespace_of(policy), policy.name_any())
}

/// Returns the namespace into which kubectl would apply the object.
pub(super) fn namespace_of(object: &impl ResourceExt) -> String {
    object.namespace().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())
}
