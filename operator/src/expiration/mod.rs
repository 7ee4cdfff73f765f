//! `keyplane certs check-expiration`: when the certificates of all clusters end, as `kubeadm certs check-expiration` says
//! it of one machine. What the statuses say is enough: no Secret is read.

mod report;

use k8s_openapi::jiff::Timestamp;
use keyplane_crds::ClusterSpec;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, ResourceExt};

use crate::args::{CheckExpirationArguments, ExpirationFormat};
use keyplane_client::causes;
use keyplane_client::connect::{ConnectError, connect};

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum ExpirationError {
    /// There is no cluster to ask.
    #[error("the kubeconfig: {}", causes(.0))]
    Connect(#[from] ConnectError),
    /// The cluster did not answer.
    #[error("{what}: {}", causes(.source))]
    Cluster {
        /// What was asked for.
        what: String,
        /// What came of it.
        source: kube::Error,
    },
    /// There is nothing to look at.
    #[error("there is no ClusterSpec in {0}: name another namespace with -n, or look at all with -A")]
    Nothing(String),
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiration {
    /// As it is printed.
    pub text: String,
    /// Whether a certificate is past its renewal time.
    pub is_any_due: bool,
}

/// Looks at the certificates of the clusters.
///
/// # Errors
/// If the ClusterSpecs can't be read.
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
