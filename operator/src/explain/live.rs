//! Reads a request and the related objects from a cluster.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Node, Secret};
use keyplane_crds::{CertificatePolicy, ClusterSpec, NodePool};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use super::ExplainError;
use super::place::{self, Place};
use crate::args::ExplainArguments;
use keyplane_client::causes;
use keyplane_client::connect::{connect, connect_by};
use keyplane_core::approval::{NodeFacts, SigningRequest};

/// A request in a cluster.
pub(super) struct Found {
    pub(super) request: SigningRequest,
    pub(super) place: Place,
    /// The condition of a request that already has a verdict.
    pub(super) condition: String,
}

/// Reads the request, and finds the ClusterSpec and the policy that apply.
pub(super) async fn read(arguments: &ExplainArguments, name: &str) -> Result<Found, ExplainError> {
    let management = connect(arguments.context.as_deref()).await.map_err(|error| failed("the kubeconfig", &error))?;
    let (cluster, place) = if let Some(cluster) = &arguments.cluster {
        target(&management, cluster).await?
    } else {
        let place = own(&management, &arguments.policy_namespace).await?;
        (management, place)
    };
    let requests: Api<CertificateSigningRequest> = Api::all(cluster.clone());
    let what = format!("CertificateSigningRequest {name}");
    let request = requests.get(name).await.map_err(|error| failed(&what, &error))?;
    let nodes: Api<Node> = Api::all(cluster);
    let nodes = nodes.list(&ListParams::default()).await.map_err(|error| failed("the Nodes", &error))?;
    let place = place.with_nodes(nodes.iter().map(NodeFacts::from));
    // A node with an approved request that has not created its Node yet blocks another node of the same name.
    let others = requests.list(&ListParams::default()).await.map_err(|error| failed("the requests", &error))?;
    let place = place.with_approved(others.iter().map(SigningRequest::from).filter(|other| other.approved));
    Ok(Found { condition: condition(&request), request: SigningRequest::from(&request), place })
}

/// The first condition, which is the verdict.
fn condition(request: &CertificateSigningRequest) -> String {
    let mut conditions = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let Some(condition) = conditions.next() else { return "being deleted".to_owned() };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}: {}: {}", condition.type_, text(&condition.reason), text(&condition.message))
}

/// Finds the policy in Keyplane's own namespace.
async fn own(client: &Client, namespace: &str) -> Result<Place, ExplainError> {
    let policies: Vec<CertificatePolicy> = list(client, namespace, "the CertificatePolicies").await?;
    let mut places = vec![];
    for policy in &policies {
        places.extend(place::of_policy(policy)?);
    }
    match places.len() {
        1 => Ok(places.remove(0)),
        0 => Ok(Place::nowhere(format!("no CertificatePolicy with spec.approver in the namespace {namespace}"))),
        _ => {
            let names: Vec<String> = places.into_iter().map(|place| place.name).collect();
            Err(ExplainError::Place(format!(
                "more than one CertificatePolicy has spec.approver, so none is in force: {}; remove all but one",
                names.join(", ")
            )))
        }
    }
}

/// Finds a ClusterSpec and its policy, and creates a client of its target cluster.
async fn target(management: &Client, cluster: &str) -> Result<(Client, Place), ExplainError> {
    let Some((namespace, name)) = cluster.split_once('/') else {
        return Err(ExplainError::Place(format!("--cluster {cluster}: write NAMESPACE/NAME of the ClusterSpec")));
    };
    let clusters: Api<ClusterSpec> = Api::namespaced(management.clone(), namespace);
    let what = format!("ClusterSpec {cluster}");
    let spec = clusters.get(name).await.map_err(|error| failed(&what, &error))?;
    let pools: Vec<NodePool> = list(management, namespace, "the NodePools").await?;
    let policy = match &spec.spec.certificate_policy_ref {
        Some(reference) => {
            let policies: Api<CertificatePolicy> = Api::namespaced(management.clone(), namespace);
            let what = format!("CertificatePolicy {}", reference.name);
            Some(policies.get(&reference.name).await.map_err(|error| failed(&what, &error))?)
        }
        None => None,
    };
    let place = place::of_cluster(&spec, &pools, policy.as_ref())?;
    let secrets: Api<Secret> = Api::namespaced(management.clone(), namespace);
    let secret = format!("{name}-kubeconfig");
    let what = format!("Secret {namespace}/{secret}");
    let secret = secrets.get(&secret).await.map_err(|error| failed(&what, &error))?;
    let kubeconfig = secret.data.as_ref().and_then(|data| data.get("value"));
    let kubeconfig = kubeconfig.map(|value| String::from_utf8_lossy(&value.0).into_owned()).unwrap_or_default();
    let client = connect_by(&kubeconfig).await.map_err(|error| failed(&what, &error))?;
    Ok((client, place))
}

/// Lists the objects of a namespace. Objects that can't be parsed are skipped, as in the controllers.
async fn list<K>(client: &Client, namespace: &str, what: &str) -> Result<Vec<K>, ExplainError>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let api: Api<DeserializeGuard<K>> = Api::namespaced(client.clone(), namespace);
    let list = api.list(&ListParams::default()).await.map_err(|error| failed(what, &error))?;
    Ok(list.items.into_iter().filter_map(|item| item.0.ok()).collect())
}

fn failed(what: &str, error: &dyn std::error::Error) -> ExplainError {
    ExplainError::Cluster { what: what.to_owned(), problem: causes(error) }
}
