//! `keyplane certs check-expiration`: the expiry of the certificates of all clusters, as `kubeadm certs
//! check-expiration` lists it for one node. The command reads the statuses of ClusterSpecs and no Secret.

mod report;

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::ClusterSpec;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, ResourceExt};

use crate::args::{CheckExpirationArguments, ExpirationFormat};
use keyplane_client::causes;
use keyplane_client::connect::{ConnectError, connect};

/// The reason why the certificates can't be listed.
#[derive(Debug, thiserror::Error)]
pub enum ExpirationError {
    /// The kubeconfig can't be used.
    #[error("the kubeconfig: {}", causes(.0))]
    Connect(#[from] ConnectError),
    /// The API server returned an error.
    #[error("{what}: {}", causes(.source))]
    Cluster {
        /// The requested object.
        what: String,
        /// The error.
        source: kube::Error,
    },
    /// No ClusterSpec exists.
    #[error("no ClusterSpec exists in {0}: choose another namespace with -n, or list all namespaces with -A")]
    Nothing(String),
}

/// Output of the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiration {
    /// The printed text.
    pub text: String,
    /// Whether a certificate is past its renewal time.
    pub is_any_due: bool,
}

/// Lists the certificates of the clusters.
///
/// # Errors
/// The ClusterSpecs can't be read.
pub async fn check(arguments: &CheckExpirationArguments, now: Timestamp) -> Result<Expiration, ExpirationError> {
    let client = connect(arguments.context.as_deref()).await?;
    let namespace = arguments.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let (api, place) = if arguments.all_namespaces {
        (Api::<DeserializeGuard<ClusterSpec>>::all(client), "any namespace".to_owned())
    } else {
        (Api::namespaced(client, &namespace), format!("namespace {namespace}"))
    };
    let clusters = if let Some(name) = &arguments.cluster {
        let what = format!("ClusterSpec {namespace}/{name}");
        vec![api.get(name).await.map_err(|source| ExpirationError::Cluster { what, source })?]
    } else {
        let what = "the ClusterSpecs".to_owned();
        api.list(&ListParams::default()).await.map_err(|source| ExpirationError::Cluster { what, source })?.items
    };
    if clusters.is_empty() {
        return Err(ExpirationError::Nothing(place));
    }
    let clusters: Vec<_> = clusters.iter().map(|cluster| cluster_of(cluster, now)).collect();
    let text = match arguments.output {
        ExpirationFormat::Table => report::table(&clusters, arguments.all_namespaces, now),
        ExpirationFormat::Json => report::json(&clusters),
        ExpirationFormat::Yaml => report::yaml(&clusters),
    };
    let is_any_due = clusters.iter().flat_map(|cluster| &cluster.certificates).any(report::Row::is_due);
    Ok(Expiration { text, is_any_due })
}

fn cluster_of(cluster: &DeserializeGuard<ClusterSpec>, now: Timestamp) -> report::Cluster {
    let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    match &cluster.0 {
        Ok(spec) => {
            let certificates = spec.status.iter().flat_map(|status| &status.certificates);
            let certificates: Vec<_> = certificates.map(|row| report::Row::of(row, now)).collect();
            let problem = certificates.is_empty().then(|| "has no certificates yet".to_owned());
            report::Cluster { namespace, name, certificates, problem }
        }
        Err(error) => {
            let problem = Some(format!("can't be read: {}", error.error));
            report::Cluster { namespace, name, certificates: vec![], problem }
        }
    }
}
