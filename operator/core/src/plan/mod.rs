//! Plans the writes to the management cluster: a pure function of (cluster, observed state, now).
//!
//! [`plan`] compares the desired state with the observed state and returns the steps that are missing. The function
//! generates no key and reads no clock. Keys are random, so a step that needs a key describes the Secret ([`Draft`])
//! and `keyplane-issuance` issues it. Callers repeat planning, issuing and writing until no step is left: the
//! controller against the API server, and `keyplane render` in memory, with the same functions.

pub(crate) mod certificate_authorities;
pub(crate) mod config_maps;
pub(crate) mod departed_nodes;
pub(crate) mod draft;
pub(crate) mod encryption_keys;
pub(crate) mod external_etcd;
pub(crate) mod external_signing;
pub mod kubelet_requests;
pub mod kubelet_rotation_order;
pub(crate) mod leaf_source;
pub(crate) mod node;
pub(crate) mod own_credential;
pub(crate) mod pending_keys;
pub(crate) mod referenced_secrets;
pub(crate) mod restore;
pub(crate) mod revocation;
pub mod rotation;
pub(crate) mod rotation_requests;
pub(crate) mod secret_file;
pub(crate) mod user_kubeconfig;
pub(crate) mod user_provided_cas;
pub(crate) mod users;
pub(crate) mod worker_credential;

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use k8s_openapi::jiff::Timestamp;

pub use departed_nodes::departed;
pub use draft::{Content, Draft, KeySource, Pair, PlannedLeaf, Source};
pub use encryption_keys::{encryption_use, encryption_work, next_encryption_change, reencryption};
pub use external_signing::{PendingCertificate, as_observed, external_cas};
pub use own_credential::own_credential;
pub use pending_keys::{KeyRequest, request_config_maps};
pub use restore::is_unknown;

use crate::blocker::Blocker;
use crate::inventory::Leaf;
use crate::model::{Cluster, Node};
use crate::observed::Observed;
use crate::pki::{CertificateTemplate, LeafTerms, valid_for};
use crate::rollout::rollout;
use external_signing::CsrBatch;

/// Functions that compose the Secret of each kind of draft from keys and certificates.
pub mod secrets {
    pub use super::encryption_keys::compose as encryption;
    pub use super::node::compose as node;
    pub use super::own_credential::compose as own_credential;
    pub use super::pending_keys::compose as pending;
    pub use super::referenced_secrets::files as user_provided_files;
    pub use super::secret_file::UserProvidedFile;
    pub use super::user_kubeconfig::compose as user_kubeconfig;
    pub use super::users::compose as users;
    pub use super::worker_credential::compose as worker_credential;
}

/// The steps that can be taken now, and the blockers of the others.
#[derive(Debug, Default)]
pub struct Plan {
    /// The steps, in the order of execution. Later steps may depend on earlier ones, so callers plan again after them.
    pub steps: Vec<Step>,
    /// The problems that block steps.
    pub blockers: Vec<Blocker>,
    /// The certificates that wait for an external signer.
    pub waiting: Vec<PendingCertificate>,
}

/// One write. An object that did not exist is created. An object that existed is replaced only in the resource version
/// that was observed.
#[derive(Debug)]
pub enum Step {
    /// A Secret with keys that is still to be issued.
    Secret(Box<Draft>),
    /// A ConfigMap derived from the spec.
    ConfigMap(Box<ConfigMap>),
    /// The deletion of an object of Keyplane's that is no longer needed.
    Removal(Box<Removal>),
}

/// The deletion of an object, in the resource version that was observed.
#[derive(Debug)]
pub struct Removal {
    /// The kind.
    pub kind: Kind,
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: Option<String>,
    /// The resource version that was observed.
    pub resource_version: Option<String>,
    /// The reason of the Event.
    pub reason: &'static str,
    /// The message for the Event and the log: what happens and what the user has to do.
    pub note: String,
}

impl Removal {
    /// Returns the reference to the object, for an Event.
    #[must_use]
    pub fn object(&self, namespace: &str) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(self.kind.name().to_owned()),
            name: Some(self.name.clone()),
            namespace: Some(namespace.to_owned()),
            uid: self.uid.clone(),
            ..ObjectReference::default()
        }
    }
}

/// The kinds of objects that Keyplane writes in the management cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
}

impl Kind {
    /// Returns the kind's name in the Kubernetes API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

/// Returns the writes that are missing. An empty plan means that the observed state equals the desired state.
#[must_use]
pub fn plan(cluster: &Cluster, observed: &Observed, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    plan_all(cluster, observed, now, &mut plan);
    restore::remove_missing(cluster, observed, &mut plan);
    plan
}

fn plan_all(cluster: &Cluster, observed: &Observed, now: Timestamp, plan: &mut Plan) {
    let Some(cas) = certificate_authorities::plan(cluster, observed, now, plan) else { return };
    // A revocation waits for nothing, and everything else follows from it.
    if revocation::plan(cluster, &cas, observed, now, plan) {
        return;
    }
    plan.blockers.extend(external_etcd::ended(cluster, observed, now));
    config_maps::plan_config_map(config_maps::trust_bundle(cluster, &cas), observed, plan);
    let rollout = rollout(cluster, observed);
    // A node's files contain the encryption keys, so the keys come first.
    let has_keys = encryption_keys::plan(cluster, observed, now, plan);
    match referenced_secrets::files(cluster, observed) {
        _ if !has_keys => {}
        Err(blocker) => plan.blockers.push(blocker),
        Ok(user_provided) => {
            for node in cluster.all_nodes() {
                node::plan(cluster, node, &cas, &user_provided, observed, now, plan);
            }
            // The NodePool controller writes the ConfigMaps of workers.
            for node in &cluster.nodes {
                config_maps::plan_config_map(
                    config_maps::node_config(cluster, node, &cas, &rollout, observed),
                    observed,
                    plan,
                );
            }
        }
    }
    worker_credential::plan(cluster, &cas, observed, now, plan);
    let mut csr_batch = CsrBatch::open(cluster, None, observed, now, plan);
    user_kubeconfig::plan(cluster, &cas, &mut csr_batch, observed, now, plan);
    users::plan(cluster, &cas, &mut csr_batch, observed, now, plan);
    own_credential::plan(cluster, &cas, &mut csr_batch, observed, now, plan);
    csr_batch.close(plan);
    departed_nodes::plan(cluster, observed, plan);
    // A stage advances only after everything that follows from the current stages is written.
    if plan.steps.is_empty() && plan.blockers.is_empty() {
        rotation::plan(cluster, &cas, observed, rollout.progress.wait(), now, plan);
    }
}

/// Returns the template for a certificate of a node, valid from now.
fn order(cluster: &Cluster, node: &Node, leaf: &Leaf, terms: LeafTerms, now: Timestamp) -> CertificateTemplate {
    let (not_before, not_after) = valid_for(now, terms.validity);
    CertificateTemplate {
        subject: leaf.subject(node),
        alternative_names: leaf.alternative_names(cluster, node),
        extended_usages: leaf.usages.to_vec(),
        not_before,
        not_after,
    }
}
