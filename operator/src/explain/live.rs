//! A request in a cluster, and what is known of it there.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Node, Secret};
use keyplane_crds::{CertificatePolicy, ClusterSpec, NodePool};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::DeserializeGuard;
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;

use super::ExplainError;
use super::place::{self, Place};
use crate::approval::{NodeFacts, SigningRequest};
use crate::args::ExplainArguments;
use crate::kube::causes;

/// Reads the request, and finds by what it is judged.
pub(super) async fn read(arguments: &ExplainArguments, name: &str) -> Result<(SigningRequest, Place), ExplainError> {
    let options = KubeConfigOptions { context: arguments.context.clone(), ..KubeConfigOptions::default() };
    let config = match &arguments.context {
        Some(_) => Config::from_kubeconfig(&options).await.map_err(|error| failed("the kubeconfig", &error))?,
        None => Config::infer().await.map_err(|error| failed("the kubeconfig", &error))?,
    };
    let management = Client::try_from(config).map_err(|error| failed("the kubeconfig", &error))?;
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
    Ok((SigningRequest::from(&request), place.with_nodes(nodes.iter().map(NodeFacts::from))))
}

/// By the policy in Keyplane's own namespace.
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
            Err(ExplainError::Place(format!("while there are two, none is in force: {}", names.join(", "))))
        }
    }
}

/// By a ClusterSpec; and a client of its target.
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
    let kubeconfig = Kubeconfig::from_yaml(&kubeconfig).map_err(|error| failed(&what, &error))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let config = config.map_err(|error| failed(&what, &error))?;
    let client = Client::try_from(config).map_err(|error| failed(&what, &error))?;
    Ok((client, place))
}

/// The objects of a namespace. One that can't be read is as good as not there, as it is to the controllers.
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
